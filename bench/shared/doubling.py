"""An endpoint whose answers are not all finite: its model doubles two numbers of float32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import onnx
from onnx import TensorProto, helper
from shared.demo import clewline

from clewline.project import Project

BODIES = [
    msgspec.json.encode({"rows": [{"a": 1.5, "b": 2.0}] * 3}),
    msgspec.json.encode({"rows": [{"a": 1.5, "b": 3e38}]}),  # float32 holds it, but not twice it
    msgspec.json.encode({"rows": [{"a": -3e38, "b": 3e38}, {"a": 1.5, "b": 2.0}] * 20}),
]
"""Requests whose answers are finite, infinite, and both."""


def add(project: Project, name: str = "doubling") -> None:
    """Register the model, and bring the endpoint of the same name live."""
    pairs: list[str | int | None] = ["rows", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["twice"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, pairs)],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, pairs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        file, sample = Path(folder) / "doubling.onnx", Path(folder) / "sample.csv"
        onnx.save(model, file)
        sample.write_text("a,b\n" + "".join(f"{row / 4},{row / 2}\n" for row in range(20)))
        words = ("models", "import", str(file), "--name", name, "--sample", str(sample))
        clewline(*words, cwd=project.root)
    (project.root / "endpoints").mkdir(exist_ok=True)
    text = f"endpoint: {name}\nmodel: {name}@1\n"
    (project.root / f"endpoints/{name}.yaml").write_text(text)
    clewline("endpoints", "apply", name, cwd=project.root)
