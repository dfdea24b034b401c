"""The YAML files that people write, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidConfig

if TYPE_CHECKING:
    import yaml


def read(path: Path, fix: str) -> Any:
    """
    Read a file; None when it is empty.

    Args:
        path: The file.
        fix: What to do when it is not YAML, for the error.

    Raises:
        InvalidConfig: It is not YAML, or a key stands twice.
        FileNotFoundError: There is no such file.
    """
    return parse(path.read_bytes(), path, fix)


def parse(text: bytes, path: Path, fix: str) -> Any:
    """Read the text of a file, as `read`; `path` is for the errors."""
    import yaml  # 20 ms that a server without such a file need not pay

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _refuse_repeated(root, path)
        _refuse_growth(root, len(text), path)
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path} is not YAML: {error}.", fix) from error


def _refuse_repeated(root: yaml.Node, path: Path) -> None:
    """Refuse a key that stands twice: YAML would keep the last, and say nothing."""
    from yaml import MappingNode, SequenceNode

    seen: set[int] = set()
    waiting: list[yaml.Node] = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias, which may lead in a circle
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            waiting += node.value
        elif isinstance(node, MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in keys:
                    message = f"{path}: the key {name} stands twice, again in line {line}."
                    raise InvalidConfig(message, "Leave one.")
                keys.add(name)
                waiting.append(value)


GROWTH = 10
"""So many values for each byte of a file may its aliases make of it."""


def _refuse_growth(root: yaml.Node, size: int, path: Path) -> None:
    """Refuse aliases of aliases, which make millions of values of a line or two, or a circle."""
    from yaml import MappingNode, SequenceNode

    left = GROWTH * size
    waiting: list[yaml.Node] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, SequenceNode):
            waiting += node.value
        elif isinstance(node, MappingNode):
            waiting += [value for _, value in node.value]
        left -= 1
        if left < 0 or len(waiting) > GROWTH * size:
            raise InvalidConfig(f"{path} grows without bounds by its aliases.", "Write it out.")
