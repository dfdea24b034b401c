"""
What a skops file may ask for beyond its types, so that a crafted one calls nothing.

skops checks the names of types. A file can still put a callable where skops, when
loading, or scikit-learn, when answering, calls what stands there: a `partial` of a
scorer as the type of a dict's key, a method of an array as a stack's `predict`. So
each place may hold only what scikit-learn itself writes there.

Source:
    skops.io._general, _numpy and _sklearn, protocol 2: `_construct` of each node.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from io import BytesIO
from typing import Any
from zipfile import ZipFile

PROTOCOL = 2
"""Protocol of skops files; code that we have not reviewed reads older ones."""

PLAIN = frozenset(f"builtins.{name}" for name in ("bool", "float", "int", "str"))
FACTORIES = PLAIN | {
    "builtins.dict",
    "builtins.list",
    "builtins.set",
    "collections.OrderedDict",
}
ANSWERS = frozenset({"decision_function", "predict", "predict_log_proba", "predict_proba"})
NAMING = frozenset(
    {
        "_response_method",
        "chain_method",
        "chain_method_",
        "response_method",
        "stack_method",
        "stack_method_",
    }
)
"""Attributes that name a method which is called."""

CALLED = frozenset({"func", "inverse_func"})
"""Attributes that are called with arguments which stand in the file."""

COMPILED = ("sklearn.metrics._dist_metrics.", "sklearn.neighbors._")
"""Where types are from that keep a tuple, not attributes by name."""

UNUSUAL_DICT = "a dict with a key, method or function of a kind that scikit-learn does not write"

SkopsNode = dict[str, Any]


def unusual_parts(data: bytes, functions: Collection[str]) -> list[str]:
    """
    Name what in a skops file scikit-learn does not write; an empty list means nothing.

    Args:
        data: The file.
        functions: Names that may stand where a function is expected, and nowhere else.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, BadZipFile: It is no skops file.
    """
    with ZipFile(BytesIO(data)) as file:
        schema = json.loads(file.read("schema.json"))
    found, left = set(), [schema]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            left += item.values()
            if isinstance(item.get("__loader__"), str) and (text := _wrong(item, functions)):
                found.add(text)
    if schema["protocol"] != PROTOCOL:
        found.add(f"skops protocol {schema['protocol']}")
    return sorted(found)


def _wrong(node: SkopsNode, functions: Collection[str]) -> str | None:
    """Say what scikit-learn does not write in a node; None if it writes such nodes."""
    loader, name = node["__loader__"], _name(node)
    content: Any = node.get("content")
    is_python = name.startswith(("builtins.", "collections.", "functools."))
    match loader:
        case "FunctionNode":
            return None if name in functions or _is_ufunc(name) else f"{name} as a function"
        case (  # skops takes no class from these, or only a name
            "BytearrayNode"
            | "BytesNode"
            | "DTypeNode"
            | "JsonNode"
            | "MaskedArrayNode"
            | "SliceNode"
            | "SparseMatrixNode"
            | "TreeNode"
        ):
            allowed = True
        case "ListNode" | "SetNode" | "TupleNode":
            allowed = name == f"builtins.{loader.removesuffix('Node').lower()}"
        case "RandomGeneratorNode":
            allowed = name == "numpy.random._generator.Generator"
        case "RandomStateNode":
            allowed = name == "numpy.random.mtrand.RandomState"
        case "NdArrayNode":
            allowed = name == "numpy.ndarray" or _is_dtype(name)
        case "LossNode":
            # Compiled losses of scikit-learn 1.5 say that their module is `_loss`.
            modules = ("sklearn._loss._loss.Cy", "_loss.Cy", "sklearn.linear_model._sgd_fast.")
            allowed = name.startswith(modules)
        case "TypeNode":
            allowed = name in FACTORIES | {"builtins.object", "builtins.tuple"} or _is_dtype(name)
        case "ConstructorFromReduceNode":  # an instance that is made by calling its type
            allowed = not is_python
        case "PartialNode":
            func = node["content"]["func"]
            allowed = name == "functools.partial" and func["__loader__"] == "FunctionNode"
        case "DefaultDictNode":
            factory = node["content"]["default_factory"]
            is_plain = factory["__loader__"] == "TypeNode" and _name(factory) in FACTORIES
            is_null = factory["__loader__"] == "JsonNode"
            allowed = name == "collections.defaultdict" and (is_plain or is_null)
        case "ObjectNode":  # its attributes stand in a dict, which is checked itself
            match content and content["__loader__"]:
                case None:
                    allowed = True
                case "DictNode":
                    allowed = _name(content) == "builtins.dict"
                case "JsonNode":
                    allowed = json.loads(content["content"]) is None
                case kind:
                    allowed = kind == "TupleNode" and (
                        name.startswith(COMPILED) or _is_spline(name, content["content"])
                    )
            allowed = allowed and not is_python
        case "DictNode":  # it may hold the attributes of an instance
            keys, values = node["key_types"], node["content"]
            allowed = (
                name in {"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"}
                and keys["__loader__"] == "ListNode"
                and all(_converts_key(key) for key in keys["content"])
                and all(_answers(values[named]) for named in NAMING & values.keys())
                and all(_computes(values[called]) for called in CALLED & values.keys())
            )
        case _:  # MethodNode and OperatorFuncNode make callables, CachedNode stands for one unseen
            return f"a {loader} of {name}"
    if allowed and name not in functions:
        return None
    return UNUSUAL_DICT if loader == "DictNode" else f"{name} as a {loader}"


def _name(node: SkopsNode) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _is_spline(name: str, state: list[SkopsNode]) -> bool:
    """Say whether a node is a spline of SciPy 1.18 and newer: one for arrays of NumPy, an array."""
    return (
        name == "scipy.interpolate._bsplines.BSpline"
        and [_name(part) for part in state]
        == ["scipy.interpolate._bsplines._BSpline", "numpy.ndarray"]
        and [part["__loader__"] for part in state] == ["ObjectNode", "NdArrayNode"]
    )


def _is_ufunc(name: str) -> bool:
    from skops.io._trusted_types import NUMPY_UFUNC_TYPE_NAMES, SCIPY_UFUNC_TYPE_NAMES

    return name in NUMPY_UFUNC_TYPE_NAMES or name in SCIPY_UFUNC_TYPE_NAMES


def _is_dtype(name: str) -> bool:
    from skops.io._trusted_types import NUMPY_DTYPE_TYPE_NAMES

    return name in NUMPY_DTYPE_TYPE_NAMES


def _converts_key(node: SkopsNode) -> bool:
    """Say whether a node may convert the key of a dict."""
    return node["__loader__"] == "TypeNode" and (_name(node) in PLAIN or _is_dtype(_name(node)))


def _answers(node: SkopsNode) -> bool:
    """Say whether a node is `auto`, None, or names of methods that answer."""
    if node["__loader__"] in ("ListNode", "TupleNode"):
        return all(_answers(item) for item in node["content"])
    if node["__loader__"] != "JsonNode":
        return False
    return json.loads(node["content"]) in {*ANSWERS, "auto", None}


def _computes(node: SkopsNode) -> bool:
    """Say whether a node holds functions only; these nodes are checked themselves."""
    if node["__loader__"] in ("ListNode", "TupleNode"):
        return all(_computes(item) for item in node["content"])
    return node["__loader__"] in ("FunctionNode", "JsonNode", "PartialNode")
