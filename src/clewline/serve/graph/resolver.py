"""What an endpoint's file comes to: every alias a version, every function a state of the code."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from clewline.errors import ClewlineError, InvalidConfig, NotFound, NotSupported
from clewline.model import origin as origins
from clewline.project import Project
from clewline.serve.endpoint_file import EndpointSpec
from clewline.serve.graph import declared
from clewline.serve.graph import functions as codes
from clewline.serve.graph.declared import Call, Node
from clewline.serve.graph.functions import FunctionFiles, ProjectFunctions
from clewline.serve.graph.model_import import DeclaredImport
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.tree import ONLY
from clewline.signature import accepted_limits as accepted_bounds
from clewline.store.digest import Digest
from clewline.store.records import ModelVersion, Revision
from clewline.store.ref import RecordSource, find_version

PREPROCESSING = "transform"
"""The task of a version that is a fitted preprocessing."""


class RevisionDraft(NamedTuple):
    """The revision that applying a file would make, and its code, which is not stored yet."""

    revision: Revision
    code: FunctionFiles | None


ImportedVersions = Mapping[DeclaredImport, ModelVersion]
"""The versions that files from elsewhere have become."""


def resolve(
    project: Project,
    records: RecordSource,
    spec: EndpointSpec,
    brought: ImportedVersions | None = None,
) -> RevisionDraft:
    """
    Resolve a file against the records and the working tree; nothing is fetched.

    Args:
        project: Whose it is.
        records: Of the project.
        spec: The file.
        brought: What its models from elsewhere have become; where one is missing, a version
            of its name is looked for that was made of a file with its digest.

    Raises:
        InvalidEndpoint: A model, version, alias, file or function is not there, a function
            does not say what it takes, or accepted bounds contradict each other; names all.
        NotFound: There is no such model, version or alias, where the file names one alone.
    """
    if spec.graph is None:
        Problems(spec.problems).require_none(source_of(spec))
        return RevisionDraft(_of_one_model(project, records, spec, brought or {}), None)
    resolver = _Resolver(project, records, Problems(spec.problems), brought or {})
    try:
        tree = resolver.tree(spec.graph)
        accepted = _accepted(project, resolver, spec.graph)
    finally:
        resolver.close()
    resolver.problems.require_none(source_of(spec))
    return RevisionDraft(
        Revision(
            endpoint=spec.endpoint,
            number=_next(records, spec),
            spec=spec.source,
            models=resolver.models,
            packages=resolver.packages,
            accepted=_as_kept(accepted),
            graph=_as_kept(tree),
            code=resolver.code.digest if resolver.code else None,
            created=time.time(),
        ),
        resolver.code,
    )


def source_of(spec: EndpointSpec) -> str:
    """Give the file of an endpoint as a person is told it."""
    return f"endpoints/{spec.endpoint}.yaml"


def version(records: RecordSource, text: str) -> ModelVersion:
    """
    Find the version that a text in a file means: `income@3`, `income@champion`.

    Raises:
        NotFound: There is no such model, version or alias; names the nearest.
        NotSupported: It is the address of a preprocessing, which no file from elsewhere is.
    """
    if text.startswith(("hf:", "http://", "https://")):
        raise NotSupported(
            f"{text} is an address, and no file from elsewhere is a preprocessing.",
            "Register one, and name it as NAME@ALIAS.",
        )
    return find_version(records, text)


def elsewhere(project: Project, records: RecordSource, wanted: DeclaredImport) -> ModelVersion:
    """
    Find the version that a file from elsewhere has become, by the file's digest.

    Raises:
        NotSupported: It has no digest.
        NotFound: It was not imported.
    """
    if wanted.digest is None or wanted.name is None:
        raise NotSupported(
            f"{wanted.source} is an address without a digest, so anything could be behind it.",
            "Write {from: ADDRESS, digest: sha256:…, name: NAME}; `clewline endpoints check` "
            "tells the digest.",
        )
    versions = records.find(ModelVersion, name=wanted.name, order="-number", limit=None)
    sums = {
        key: _sum(project.root / path)
        for key, path in (("signature", wanted.signature), ("sample", wanted.sample))
        if path is not None
    }
    found = origins.find_by_origin(
        project.packages, versions, origins.parse_sha256(wanted.digest), **sums
    )
    if found is None:
        raise NotFound(
            f"No version of {wanted.name} was made of {wanted.source} with {wanted.digest}.",
            "`clewline endpoints check` or `apply` fetches it; without a network, "
            f"`clewline models import FILE --digest {wanted.digest} --name {wanted.name}`.",
        )
    return found


def _sum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error


def _of_one_model(
    project: Project, records: RecordSource, spec: EndpointSpec, brought: ImportedVersions
) -> Revision:
    wanted = spec.model or ""
    if isinstance(wanted, DeclaredImport):
        found = brought.get(wanted) or elsewhere(project, records, wanted)
    else:
        found = version(records, wanted)
    model = found.ref
    accepted = accepted_bounds.read_accepted(project.signatures / f"{found.name}.yaml").builtins()
    return Revision(
        endpoint=spec.endpoint,
        number=_next(records, spec),
        spec=spec.source,
        models={ONLY: model},
        packages={model: found.package},
        accepted=_as_kept(accepted),
        created=time.time(),
    )


def _as_kept(plain: dict[str, Any]) -> dict[str, Any]:
    """Plain values as the catalog gives them back, so that equal ones compare equal."""
    kept: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain))
    return kept


def _next(records: RecordSource, spec: EndpointSpec) -> int:
    newest = records.find(Revision, order="-number", limit=1, endpoint=spec.endpoint)
    return newest[0].number + 1 if newest else 1


class _Resolver:
    """Turns declared nodes into the tree that a revision pins."""

    def __init__(
        self, project: Project, records: RecordSource, problems: Problems, brought: ImportedVersions
    ) -> None:
        self.problems = problems
        self._brought = brought
        self.models: dict[str, str] = {}
        self.packages: dict[str, Digest] = {}
        self.code: FunctionFiles | None = None
        self._project, self._records = project, records
        self._functions: ProjectFunctions | None = None

    def tree(self, root: Node) -> dict[str, Any]:
        """Resolve a graph; what cannot be is entered as a problem."""
        self._load(declared.calls(root))
        return self._node(root)

    def close(self) -> None:
        if self._functions is not None:
            self._functions.close()

    def _load(self, calls: list[Call]) -> None:
        """Read the files of all functions; where one is missing, each is tried alone."""
        good = []
        for call in calls:
            try:
                codes.read_functions(self._project, [call.function])
                good.append(call.function)
            except ClewlineError as error:
                self._enter(call.at, error)
        if good:
            self.code = codes.read_functions(self._project, good)
            self._functions = codes.functions_of(self.code)

    def _node(self, node: Node) -> dict[str, Any]:
        tree: dict[str, Any] = {"name": node.name}
        match node:
            case declared.Model():
                tree |= {"kind": "model", "model": self._model(node, node.model)}
                tree |= {"pin": node.pin, "isolate": node.isolate}
            case declared.Transform():
                tree |= {"kind": "transform", **self._before(node), "then": self._node(node.then)}
            case declared.After():
                tree |= {"kind": "after", **self._call(node.call), "of": self._node(node.of)}
            case declared.Route():
                tree |= {"kind": "route", "how": node.how, "config": node.config}
                tree["arms"] = self._nodes(node.arms)
            case declared.Combine():
                tree |= {"kind": "combine", "how": node.how, "config": self._combined(node)}
                tree["branches"] = self._nodes(node.branches)
            case declared.Shadow():
                tree |= {"kind": "shadow", "of": self._node(node.of)}
                tree |= {"shadows": self._nodes(node.shadows), "config": node.config}
            case declared.Other():
                below = {
                    key: self._nodes(child) if isinstance(child, dict) else self._node(child)
                    for key, child in node.children.items()
                }
                tree |= {**node.config, "kind": node.kind, **below}
        return tree

    def _nodes(self, nodes: dict[str, Node]) -> dict[str, Any]:
        return {name: self._node(node) for name, node in nodes.items()}

    def _before(self, node: declared.Transform) -> dict[str, Any]:
        if node.model is not None:
            pinned = {"model": self._model(node, node.model, task=PREPROCESSING)}
            return {**pinned, "isolate": True} if node.isolate else pinned
        assert node.call is not None
        fields = None if node.fields is None else msgspec.to_builtins(node.fields)
        return {**self._call(node.call), "fields": fields}

    def _combined(self, node: declared.Combine) -> dict[str, Any]:
        config = dict(node.config)
        if node.call is not None:
            config |= self._call(node.call)
        if node.model is not None:
            config["model"] = self._model(node, node.model)
        return config

    def _model(self, node: Node, wanted: str | DeclaredImport, task: str | None = None) -> str:
        """Pin a version and its package."""
        try:
            found = self._version(wanted)
        except ClewlineError as error:
            self._enter(node.at, error)
            return ""
        ref = found.ref
        if (found.task == PREPROCESSING) != (task == PREPROCESSING):
            does = "prepares fields and answers nothing" if task is None else "prepares nothing"
            fix = f"Write transform: {wanted}." if task is None else "Name a fitted preprocessing."
            self.problems.add(node.at, f"{node.at} is {ref}, which {does}.", fix)
        self.models[node.name] = ref
        self.packages[ref] = found.package
        return ref

    def _version(self, wanted: str | DeclaredImport) -> ModelVersion:
        if isinstance(wanted, DeclaredImport):
            found = self._brought.get(wanted)
            return found or elsewhere(self._project, self._records, wanted)
        return version(self._records, wanted)

    def _call(self, call: Call) -> dict[str, Any]:
        """Pin a function: what it is given, and its arguments."""
        frame = call.frame
        try:
            known = (
                self._functions and call.function.partition(":")[0] in (self.code or _NONE).files
            )
            declares = self._functions.frame(call.function) if self._functions and known else frame
            frame = frame or declares
        except ClewlineError as error:
            self._enter(call.at, error)
        else:
            if frame is None and known:
                self.problems.add(
                    call.at,
                    f"{call.at}: {call.function} does not say what it takes.",
                    "Annotate its first parameter as pl.DataFrame, pd.DataFrame, np.ndarray or "
                    "list[dict], or write frame: polars, pandas, numpy or rows.",
                )
        return {"function": call.function, "frame": frame, "config": call.config}

    def _enter(self, at: str, error: ClewlineError) -> None:
        self.problems.add(at, f"{at}: {error.message}", error.fix or "")


_NONE = FunctionFiles({})


# What a person accepted


def _accepted(project: Project, resolver: _Resolver, root: Node) -> dict[str, Any]:
    """Join what was accepted for the models that get the endpoint's own fields."""
    joined: dict[str, Any] = {}
    for model in dict.fromkeys(_at_the_door(resolver, root)):
        try:
            found = accepted_bounds.read_accepted(project.signatures / f"{model}.yaml")
        except InvalidConfig as error:
            resolver.problems.add("", error.message, error.fix or "")
            continue
        for name, limits in found.builtins().get("fields", {}).items():
            both = _narrower(joined.get(name, limits), limits)
            if both is None:
                resolver.problems.add(
                    "",
                    f"signatures/{model}.yaml accepts {limits} for {name!r}, and another model "
                    f"of the graph {joined[name]}, so nothing would pass both.",
                    "Let them overlap.",
                )
            joined[name] = both or limits
    return {"fields": joined} if joined else {}


def _at_the_door(resolver: _Resolver, node: Node) -> Iterator[str]:
    """Names of models whose fields are the endpoint's: none behind what makes others of them."""
    ref = resolver.models.get(node.name)
    if isinstance(node, declared.Transform):
        if ref is not None:
            yield ref.partition("@")[0]
        if ref is not None or node.fields is not None:
            return
    elif isinstance(node, declared.Model) and ref is not None:
        yield ref.partition("@")[0]
    answering = (node.of,) if isinstance(node, declared.Shadow) else declared.children(node)
    for child in answering:
        yield from _at_the_door(resolver, child)


def _narrower(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """What passes both; None when nothing does, or nobody can tell."""
    if one == other:
        return one
    joined = {**one, **other}
    if "levels" in one and "levels" in other:
        joined["levels"] = [level for level in one["levels"] if level in other["levels"]]
        if not joined["levels"]:
            return None
    if "bounds" in one and "bounds" in other:
        pairs = list(zip(one["bounds"], other["bounds"], strict=True))
        if not all(isinstance(bound, int | float) for pair in pairs for bound in pair):
            return None
        joined["bounds"] = [max(pairs[0]), min(pairs[1])]
        if joined["bounds"][0] > joined["bounds"][1]:
            return None
    return joined
