"""The models from elsewhere that endpoints' files name."""

from __future__ import annotations

from typing import Any

from clewline.errors import ClewlineError
from clewline.hub import address as addresses
from clewline.hub.import_model import BOUNDS, ModelImport, import_model, unpinned_error
from clewline.hub.web import DownloadLimits
from clewline.project import Project
from clewline.serve.endpoint_file import EndpointSpec
from clewline.serve.graph.parser import DeclaredImport
from clewline.serve.graph.problems import Problems
from clewline.store.records import ModelVersion
from clewline.store.store import Store


def import_endpoint_models(
    project: Project, store: Store, spec: EndpointSpec, bounds: DownloadLimits = BOUNDS
) -> dict[DeclaredImport, ModelVersion]:
    """
    Bring what a file names from elsewhere: fetch, check and register what is not here yet.

    Nothing is fetched for a file that is wrong otherwise.

    Raises:
        InvalidEndpoint: Something is wrong with the file, or cannot be brought; names all.
    """
    wanted = [] if spec.root is None else spec.root.imports()
    problems = Problems(spec.problems)
    if not wanted or problems:
        return {}
    found: dict[DeclaredImport, ModelVersion] = {}
    for each in wanted:
        try:
            found[each] = _brought(project, store, each, bounds)
        except ClewlineError as error:
            problems.add_error(each.at, error)
    problems.require_none(spec.file)
    return found


def _brought(
    project: Project, store: Store, each: DeclaredImport, bounds: DownloadLimits
) -> ModelVersion:
    if each.digest is None or each.name is None:
        raise unpinned_error(addresses.parse_address(each.source), bounds)
    files: dict[str, Any] = {
        key: project.root / path
        for key, path in (("signature", each.signature), ("sample", each.sample))
        if path is not None
    }
    wanted = ModelImport(source=each.source, name=each.name, digest=each.digest, **files)
    return import_model(project, store, wanted, bounds)
