"""The YAML files that people write, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidConfig

if TYPE_CHECKING:
    import yaml

GROWTH = 10
"""How many values the aliases of a file may make for each of its bytes."""


def read(path: Path, fix: str) -> Any:
    """
    Read a file; None when it is empty.

    Args:
        path: The file.
        fix: What to do when it is not YAML, for the error.

    Raises:
        InvalidConfig: It is not YAML, a key is given twice, or its aliases grow without bounds.
        FileNotFoundError: There is no such file.
    """
    return parse(path.read_bytes(), path, fix)


def parse(text: bytes, path: Path, fix: str) -> Any:
    """Parse the text of a file as `read` does; `path` is for the errors."""
    import yaml  # 20 ms that a server without such a file need not pay

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _check(root, len(text), path)
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path} is not YAML: {error}.", fix) from error


def write(document: Any) -> str:
    """Write plain values as YAML, keys in their order."""
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _check(root: yaml.Node, size: int, path: Path) -> None:
    """
    Refuse two things that YAML accepts silently.

    A key that stands twice: YAML keeps the last. Aliases of aliases, which make millions of
    values of a line or two, or a circle.
    """
    from yaml import MappingNode, SequenceNode

    left = GROWTH * size
    waiting: list[yaml.Node] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, SequenceNode):
            waiting += node.value
        elif isinstance(node, MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in names:
                    raise InvalidConfig(
                        f"{path}: the key {name} is given twice, again in line {line}.",
                        "Remove one of them.",
                    )
                names.add(name)
                waiting.append(value)
        left -= 1
        if left < 0 or len(waiting) > GROWTH * size:
            raise InvalidConfig(
                f"{path} grows without bounds through its aliases.",
                "Write the values out instead of using aliases.",
            )
