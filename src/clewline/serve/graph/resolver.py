"""Pins what a declared graph refers to: every alias a version, every function its code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from clewline.errors import ClewlineError, NotFound, NotSupported
from clewline.model import origin
from clewline.project import Project
from clewline.serve.graph import functions
from clewline.serve.graph.functions import FunctionFiles, ProjectFunctions
from clewline.serve.graph.parser import (
    ADDRESS,
    DeclaredImport,
    DeclaredNode,
    FunctionCall,
    ModelReference,
)
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.tree import Tree, node_kind
from clewline.signature.accepted_limits import read_accepted
from clewline.store.digest import Digest
from clewline.store.records import ModelVersion
from clewline.store.ref import RecordSource, find_version

PREPROCESSING = "transform"
"""The task of a version that is fitted preprocessing."""

ImportedVersions = Mapping[DeclaredImport, ModelVersion]
"""The versions that files from elsewhere have become."""


class Resolver:
    """
    Turns declared nodes into the tree that a revision pins.

    Args:
        project: The project.
        records: Its records.
        problems: Where it adds what it cannot find.
        imported: The versions that files from elsewhere have become. For one that is
            missing, it looks for a version of its name that was made of a file with
            its digest.
    """

    def __init__(
        self,
        project: Project,
        records: RecordSource,
        problems: Problems,
        imported: ImportedVersions,
    ) -> None:
        self.problems = problems
        self.models: dict[str, str] = {}  # node → name@number
        self.packages: dict[str, Digest] = {}  # name@number → package
        self.code: FunctionFiles | None = None
        self._project, self._records, self._imported = project, records, imported
        self._functions: ProjectFunctions | None = None

    def resolve(self, root: DeclaredNode) -> Tree:
        """Resolve a graph; what cannot be found is added to the problems."""
        readable = []
        for call in root.references(FunctionCall):
            try:
                functions.read_functions(self._project, [call.function])
                readable.append(call.function)
            except ClewlineError as error:
                self.problems.add_error(call.at, error)
        if readable:
            self.code = functions.read_functions(self._project, readable)
            self._functions = functions.functions_of(self.code)
        try:
            return self.child(root)
        finally:
            if self._functions is not None:
                self._functions.close()

    def child(self, declared: DeclaredNode | dict[str, DeclaredNode]) -> Tree:
        """Resolve a node, or several by name."""
        if isinstance(declared, dict):
            return {name: self.child(each) for name, each in declared.items()}
        tree: Tree = node_kind(declared.kind).resolve(declared, self)
        return tree

    def settings(self, node: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """
        Pin what settings refer to.

        A `ModelReference` becomes `name@number`; a `FunctionCall` stands in the
        result under three keys: function, frame and config.
        """
        found: dict[str, Any] = {}
        for key, value in settings.items():
            if isinstance(value, FunctionCall):
                found |= self._function(value)
            elif isinstance(value, ModelReference):
                found[key] = self._model(node, value)
            else:
                found[key] = self.settings(node, value) if isinstance(value, dict) else value
        return found

    def accepted_fields(self, tree: Tree) -> dict[str, Any]:
        """Join what people accepted for the models that get the endpoint's own fields."""
        joined: dict[str, Any] = {}
        for ref in dict.fromkeys(_models_of_request(tree)):
            model = ref.partition("@")[0]
            try:
                accepted = read_accepted(self._project.signatures / f"{model}.yaml")
            except ClewlineError as error:
                self.problems.add_error("", error)
                continue
            for name, limits in msgspec.to_builtins(accepted).get("fields", {}).items():
                both = _intersection(joined.get(name, limits), limits)
                if both is None:
                    facts = {"model": model, "field": name, "limits": limits}
                    self.problems.add("disjoint_limits", "", others=joined[name], **facts)
                joined[name] = both or limits
        return joined

    def _function(self, call: FunctionCall) -> dict[str, Any]:
        frame, path = call.frame, call.function.partition(":")[0]
        if self._functions is not None and self.code is not None and path in self.code.files:
            try:
                declared = self._functions.frame(call.function)
                frame = frame or declared
                if frame is None:
                    self.problems.add("no_frame", call.at, function=call.function)
            except ClewlineError as error:
                self.problems.add_error(call.at, error)
        return {"function": call.function, "frame": frame, "config": call.config}

    def _model(self, node: str, reference: ModelReference) -> str:
        wanted = reference.wanted
        try:
            if isinstance(wanted, DeclaredImport):
                imported = self._imported.get(wanted)
                found = imported or find_import(self._project, self._records, wanted)
            elif ADDRESS.fullmatch(wanted):
                raise NotSupported(
                    f"{wanted} is an address, and preprocessing cannot be imported.",
                    "Register the preprocessing, and name it as NAME@ALIAS.",
                )
            else:
                found = find_version(self._records, wanted)
        except ClewlineError as error:
            self.problems.add_error(reference.at, error)
            return ""
        if (found.task == PREPROCESSING) != reference.is_preprocessing:
            needs = reference.is_preprocessing
            code = "model_as_preprocessing" if needs else "preprocessing_as_model"
            self.problems.add(code, reference.at, model=found.ref, value=wanted)
        self.models[node] = found.ref
        self.packages[found.ref] = found.package
        return found.ref


def find_import(project: Project, records: RecordSource, wanted: DeclaredImport) -> ModelVersion:
    """
    Find the version that a file from elsewhere has become, by the file's digest.

    Raises:
        NotSupported: It has no digest.
        NotFound: It was not imported, or a file that goes with it cannot be read.
    """
    if wanted.digest is None or wanted.name is None:
        raise NotSupported(
            f"{wanted.source} is an address without a digest, so its content could change.",
            "Write {from: ADDRESS, digest: sha256:…, name: NAME}; `clewline endpoints check` "
            "prints the digest.",
        )
    versions = records.find(ModelVersion, name=wanted.name, order="-number", limit=None)
    sums: dict[str, str] = {}
    for key, file in (("signature", wanted.signature), ("sample", wanted.sample)):
        if file is not None:
            path = project.root / file
            try:
                sums[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                message = f"{path} cannot be read: {error.strerror}."
                raise NotFound(message, "Check the path.") from error
    digest = origin.parse_sha256(wanted.digest)
    found = origin.find_by_origin(project.packages, versions, digest, **sums)
    if found is None:
        raise NotFound(
            f"No version of {wanted.name} was made of {wanted.source} with {wanted.digest}.",
            "`clewline endpoints check` or `apply` fetches it; without a network, use "
            f"`clewline models import FILE --digest {wanted.digest} --name {wanted.name}`.",
        )
    return found


def _models_of_request(tree: Tree) -> Iterator[str]:
    """Yield the models whose fields are the endpoint's, which no transform makes anew."""
    for taker in node_kind(tree["kind"]).request_takers(tree):
        if isinstance(taker, dict):
            yield from _models_of_request(taker)
        elif taker:
            yield taker


def _intersection(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """Return the limits that pass both; None if no value does, or they cannot be compared."""
    if one == other:
        return one
    joined = {**one, **other}
    ways = {each["mutable"] for each in (one, other) if "mutable" in each}
    if len(ways) > 1:  # up and down, or one of them and not at all
        joined["mutable"] = False
    if "depends_on" in one:
        joined["depends_on"] = [*dict.fromkeys([*one["depends_on"], *other.get("depends_on", [])])]
    if "levels" in one and "levels" in other:
        joined["levels"] = [level for level in one["levels"] if level in other["levels"]]
        if not joined["levels"]:
            return None
    if "bounds" in one and "bounds" in other:
        lows, highs = zip(one["bounds"], other["bounds"], strict=True)
        if not all(isinstance(bound, int | float) for bound in (*lows, *highs)):
            return None
        joined["bounds"] = [max(lows), min(highs)]
        if joined["bounds"][0] > joined["bounds"][1]:
            return None
    return joined
