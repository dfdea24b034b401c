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
from collections.abc import Callable, Collection, Iterator
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
    found = [text for node in _nodes(schema) if (text := _wrong(node, functions))]
    if schema["protocol"] != PROTOCOL:
        found.append(f"skops protocol {schema['protocol']}")
    return sorted(set(found))


def _nodes(value: Any) -> Iterator[SkopsNode]:
    """Yield every node, however deep."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if isinstance(item.get("__loader__"), str):
                yield item
            left += item.values()
        elif isinstance(item, list):
            left += item


def _wrong(node: SkopsNode, functions: Collection[str]) -> str | None:
    loader, name = node["__loader__"], _name(node)
    allowed = _ALLOWED.get(loader)
    if allowed is None:
        return f"a {loader} of {name}"
    if loader == "FunctionNode":
        return None if name in functions or _is_ufunc(name) else f"{name} as a function"
    if name in functions or not allowed(node, name):
        return UNUSUAL_DICT if loader == "DictNode" else f"{name} as a {loader}"
    return None


def _name(node: SkopsNode) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _is_ufunc(name: str) -> bool:
    from skops.io._trusted_types import NUMPY_UFUNC_TYPE_NAMES, SCIPY_UFUNC_TYPE_NAMES

    return name in NUMPY_UFUNC_TYPE_NAMES or name in SCIPY_UFUNC_TYPE_NAMES


def _is_dtype(name: str) -> bool:
    from skops.io._trusted_types import NUMPY_DTYPE_TYPE_NAMES

    return name in NUMPY_DTYPE_TYPE_NAMES


def _dict(node: SkopsNode, name: str) -> bool:
    """Say whether a dict is allowed; it may hold the attributes of an instance."""
    keys, values = node["key_types"], node["content"]
    return (
        name in {"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"}
        and keys["__loader__"] == "ListNode"
        and all(_key(key) for key in keys["content"])
        and all(_answers(values[named]) for named in NAMING & values.keys())
        and all(_computes(values[called]) for called in CALLED & values.keys())
    )


def _key(node: SkopsNode) -> bool:
    """Say whether a node may convert the key of a dict."""
    return node["__loader__"] == "TypeNode" and (_name(node) in PLAIN or _is_dtype(_name(node)))


def _defaultdict(node: SkopsNode, name: str) -> bool:
    factory = node["content"]["default_factory"]
    is_plain = factory["__loader__"] == "TypeNode" and _name(factory) in FACTORIES
    return name == "collections.defaultdict" and (is_plain or factory["__loader__"] == "JsonNode")


def _partial(node: SkopsNode, name: str) -> bool:
    return name == "functools.partial" and node["content"]["func"]["__loader__"] == "FunctionNode"


def _type(node: SkopsNode, name: str) -> bool:
    return name in FACTORIES | {"builtins.object", "builtins.tuple"} or _is_dtype(name)


def _object(node: SkopsNode, name: str) -> bool:
    """Say whether an instance is allowed; its attributes stand in a dict, which is checked."""
    if name.startswith(("builtins.", "collections.", "functools.")):
        return False
    content = node.get("content")
    if content is None or content["__loader__"] == "DictNode":
        return content is None or _name(content) == "builtins.dict"
    if content["__loader__"] == "JsonNode":
        return json.loads(content["content"]) is None
    return content["__loader__"] == "TupleNode" and name.startswith(COMPILED)


def _constructed(node: SkopsNode, name: str) -> bool:
    """Say whether an instance may be made by calling its type."""
    return not name.startswith(("builtins.", "collections.", "functools."))


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


def _array(node: SkopsNode, name: str) -> bool:
    return name == "numpy.ndarray" or _is_dtype(name)


def _loss(node: SkopsNode, name: str) -> bool:
    # Compiled losses of scikit-learn 1.5 say that their module is `_loss`.
    return name.startswith(
        ("sklearn._loss._loss.Cy", "_loss.Cy", "sklearn.linear_model._sgd_fast.")
    )


def _only(*names: str) -> Callable[[SkopsNode, str], bool]:
    return lambda _, name: name in names


def _any(node: SkopsNode, name: str) -> bool:
    """Allow a node: skops takes no class from it, or only a name."""
    return True


_ALLOWED: dict[str, Callable[[SkopsNode, str], bool]] = {
    "BytearrayNode": _any,
    "BytesNode": _any,
    "ConstructorFromReduceNode": _constructed,
    "DTypeNode": _any,
    "DefaultDictNode": _defaultdict,
    "DictNode": _dict,
    "FunctionNode": _any,
    "JsonNode": _any,
    "ListNode": _only("builtins.list"),
    "LossNode": _loss,
    "MaskedArrayNode": _any,
    "NdArrayNode": _array,
    "ObjectNode": _object,
    "PartialNode": _partial,
    "RandomGeneratorNode": _only("numpy.random._generator.Generator"),
    "RandomStateNode": _only("numpy.random.mtrand.RandomState"),
    "SetNode": _only("builtins.set"),
    "SliceNode": _any,
    "SparseMatrixNode": _any,
    "TreeNode": _any,
    "TupleNode": _only("builtins.tuple"),
    "TypeNode": _type,
}
"""Loader → whether a node of it is what scikit-learn writes. A loader that is missing is refused:
`MethodNode` and `OperatorFuncNode` make callables, `CachedNode` stands for one unseen."""
