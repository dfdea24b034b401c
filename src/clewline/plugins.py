"""
Everything that the author of a plug-in imports.

    entry-point group     an entry point names                  contract in clewline.testing
    clewline.families     a subclass of `Family`                family.FamilyContract
    clewline.nodes        a subclass of `NodeKind`              node.NodeContract
    clewline.routers      a subclass of `Router`                router.RouterContract
    clewline.formats      an object like `BodyFormat`
    clewline.executors    a class like `Executor`               executor.ExecutorContract
    clewline.explainers   a class like `Explainer`              explainer.ExplainerContract
    clewline.pages        a class like `ConsolePage`            page.PageContract

clewline's own kinds use the same entry points. Errors are in `clewline.errors`.
What a page imports is in `clewline.console.page` and `clewline.console.table`, so that nothing
else loads the console.
"""

from __future__ import annotations

from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import Explainer, ExplainerOptions
from clewline.flow.executors import Executor
from clewline.model.families.boosting import BoosterFamily
from clewline.model.families.estimators import EstimatorFamily
from clewline.model.families.family import Family, PackageContents, RegistrationInputs
from clewline.model.families.sample_file import TrainingSample
from clewline.model.runtime.outputs import Outputs, Predictor, Transformer
from clewline.serve.formats.body_format import BodyFormat, RequestRows
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import NodeFit
from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode
from clewline.serve.graph.routers.router import RouteContext, Router, record_state
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.store.records import RouterState

__all__ = [
    "Batch",
    "BodyFormat",
    "BoosterFamily",
    "Builder",
    "Columns",
    "DeclaredNode",
    "EstimatorFamily",
    "Executor",
    "ExplainedModel",
    "ExplainedRow",
    "Explainer",
    "ExplainerOptions",
    "Explanation",
    "Family",
    "Field",
    "GraphParser",
    "Node",
    "NodeAnswers",
    "NodeFit",
    "NodeKind",
    "Output",
    "Outputs",
    "PackageContents",
    "Predictor",
    "RegistrationInputs",
    "RequestRows",
    "RouteContext",
    "Router",
    "RouterState",
    "Signature",
    "TrainingSample",
    "Transformer",
    "WrittenNode",
    "record_state",
]
