"""Import the models that an endpoint's file takes from elsewhere."""

from __future__ import annotations

from clewline.errors import ClewlineError
from clewline.hub.address import parse_address
from clewline.hub.download import DownloadLimits
from clewline.hub.import_model import LIMITS, ModelImport, import_model, unpinned_error
from clewline.project import Project
from clewline.serve.endpoint_file import EndpointSpec
from clewline.serve.graph.parser import DeclaredImport
from clewline.serve.graph.problems import Problems
from clewline.store.records import ModelVersion
from clewline.store.store import Store


def import_endpoint_models(
    project: Project, store: Store, spec: EndpointSpec, limits: DownloadLimits = LIMITS
) -> dict[DeclaredImport, ModelVersion]:
    """
    Fetch, check and register each model of an endpoint's file that is not registered yet.

    Fetches nothing if the file has another fault.

    Raises:
        InvalidEndpoint: Something is wrong with the file, or cannot be imported; names all.
    """
    imports = [] if spec.root is None else spec.root.imports()
    problems = Problems(spec.problems)
    if not imports or problems:
        return {}
    found: dict[DeclaredImport, ModelVersion] = {}
    for each in imports:
        try:
            if each.digest is None or each.name is None:
                raise unpinned_error(parse_address(each.source), limits)
            wanted = ModelImport(
                source=each.source,
                name=each.name,
                digest=each.digest,
                signature=None if each.signature is None else project.root / each.signature,
                sample=None if each.sample is None else project.root / each.sample,
            )
            found[each] = import_model(project, store, wanted, limits)
        except ClewlineError as error:
            problems.add_error(each.at, error)
    problems.require_none(spec.file)
    return found
