"""The adapter of ONNX: compiled models, compiled preprocessing, and files that somebody brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clewline.model.compile.candidate_forms import MODEL
from clewline.model.compile.trees import ServedTrees
from clewline.model.families.family import Family, PackageContents, RegistrationInputs
from clewline.model.runtime.outputs import FunctionPredictor, FunctionTransformer
from clewline.signature.field import Signature


class OnnxFamily(Family):
    """ONNX Runtime: one thread, no arena, so that thousands of models share a machine."""

    name = "onnx"
    title = "ONNX"
    distributions = ("onnx", "onnxruntime")
    file_name = MODEL
    file_endings = (".onnx",)
    concurrent = True  # ONNX Runtime promises that a session may be run by several threads

    def recognizes(self, data: bytes) -> bool:
        """Say whether bytes are an ONNX file."""
        from clewline.model.families.onnx.onnx_file import parse

        return parse(data) is not None

    def read(self, data: bytes, name: str) -> bytes:
        """Return the bytes: they are served as they are."""
        return data

    def convert_file(self, model: Any, inputs: RegistrationInputs, name: str) -> PackageContents:
        """Make the files of a package from the bytes of a file; as `Family.convert`."""
        from clewline.model.families.onnx.onnx_file import convert_file

        return convert_file(model, inputs)

    def load(
        self, files: Mapping[str, bytes], signature: Signature
    ) -> FunctionPredictor | FunctionTransformer:
        """Load a model; errors as of `Family.load`."""
        from clewline.model.families.onnx.loading import load_onnx

        return load_onnx(files, signature)

    def served_trees(self, files: Mapping[str, bytes], signature: Signature) -> ServedTrees | None:
        """Read the trees of a compiled model; as `Family.served_trees`."""
        from clewline.model.families.onnx.served_trees import read_served_trees

        return read_served_trees(files, signature)
