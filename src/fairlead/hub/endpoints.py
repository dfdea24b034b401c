"""The models from elsewhere that endpoints' files name."""

from __future__ import annotations

from typing import Any

from fairlead.errors import FairleadError
from fairlead.hub import address as addresses
from fairlead.hub.bring import BOUNDS, Wanted, bring, unpinned
from fairlead.hub.web import Bounds
from fairlead.project import Project
from fairlead.serve.imported import Imported
from fairlead.serve.spec import declared
from fairlead.serve.spec.endpoint_file import EndpointSpec
from fairlead.serve.spec.problems import Problems
from fairlead.serve.spec.resolve import source_of
from fairlead.store.records import ModelVersion
from fairlead.store.store import Store


def brought(
    project: Project, store: Store, spec: EndpointSpec, bounds: Bounds = BOUNDS
) -> dict[Imported, ModelVersion]:
    """
    Bring what a file names from elsewhere: fetch, check and register what is not here yet.

    Nothing is fetched for a file that is wrong otherwise.

    Raises:
        InvalidEndpoint: Something is wrong with the file, or cannot be brought; names all.
    """
    wanted = [] if spec.root is None else declared.imports(spec.root)
    problems = Problems(spec.problems)
    if not wanted or problems:
        return {}
    found: dict[Imported, ModelVersion] = {}
    for each in wanted:
        try:
            found[each] = _brought(project, store, each, bounds)
        except FairleadError as error:
            problems.add(each.at, f"{each.at}: {error.message}", error.fix or "")
    problems.require_none(source_of(spec))
    return found


def _brought(project: Project, store: Store, each: Imported, bounds: Bounds) -> ModelVersion:
    if each.digest is None or each.name is None:
        raise unpinned(addresses.parse(each.source), bounds)
    files: dict[str, Any] = {
        key: project.root / path
        for key, path in (("signature", each.signature), ("sample", each.sample))
        if path is not None
    }
    wanted = Wanted(source=each.source, name=each.name, digest=each.digest, **files)
    return bring(project, store, wanted, bounds)
