"""Create a project: its files from a template, its key, its store."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

from clewline import project
from clewline.errors import Conflict, NotFound, UsageError
from clewline.project import Project
from clewline.store.disk import disk_errors

TEMPLATES = files("clewline") / "templates"

README, IGNORED = "README.md", ".gitignore"
"""Files that most repositories have: a README is kept, and .gitignore gets the missing lines."""


def create(
    root: Path, *, name: str | None = None, template: str = "tumours", new_key: bool = False
) -> Project:
    """
    Create a project in a folder, or complete a clone that has no key and store.

    Args:
        root: The folder; created if it does not exist.
        name: The project's name; the folder's by default.
        template: `tumours`, a pipeline that runs, or `empty`.
        new_key: Seal with a new key from now on. Seals of the old key are no longer accepted.

    Raises:
        Conflict: The folder is a complete project, or holds a file that the template would
            replace.
        NotFound: There is no such template.
        UsageError: The path is a file.
        StoreFull, StoreReadOnly: The folder cannot be written.
    """
    root = root.resolve()
    with disk_errors(root):
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root} is a file.", "Name a folder.")
        if not (root / project.FILE).exists():
            name = name or re.sub(r"[^a-z0-9-]+", "-", root.name.lower()).strip("-") or "project"
            _copy_template(template, root, name)
            _init_git(root)
            head = f'[project]\nname = "{name}"\nid = "{secrets.token_hex(8)}"\n'
            (root / project.FILE).write_text(head, encoding="utf-8")
        found = project.load(root)
        is_complete = found.store_root.exists() and found.public_key is not None
        if found.private_key.exists() or (is_complete and not new_key):
            raise Conflict(
                f"{root} is already a clewline project.", "Use it, or choose another folder."
            )
        return _complete(found, new_key)


def _complete(found: Project, new_key: bool) -> Project:
    """Create a project's store and, if it has no key or a new one is wanted, its key."""
    from clewline.model.seal import make_keys
    from clewline.store.store import Store

    Store.create(found.store_root).close()
    if found.public_key is not None and not new_key:
        # A clone can check the seals of others; only they can hand over the private key.
        return found
    path = found.root / project.FILE
    text, line = path.read_text("utf-8"), f'public = "{make_keys(found.private_key)}"'
    text, replaced = re.subn(r'(?m)^public = ".*"$', line, text)
    if not replaced:
        text += (
            "\n[keys]\n"
            "# Seals are checked with this key. Its private half is in .clewline/keys.\n"
            f"{line}\n"
        )
    path.write_text(text, encoding="utf-8")
    return project.load(found.root)


def _copy_template(template: str, root: Path, name: str) -> None:
    """Copy a template's files; refuse to replace any but README.md and .gitignore."""
    known = sorted(entry.name for entry in TEMPLATES.iterdir() if entry.is_dir())
    if template not in known:
        raise NotFound(f"There is no template {template!r}.", f"Use {' or '.join(known)}.")
    with as_file(TEMPLATES / template) as folder:
        sources: dict[str, Path] = {}
        for source in sorted(folder.rglob("*")):
            path = source.relative_to(folder)
            if source.is_file() and "__pycache__" not in path.parts:
                # Packaging would obey a .gitignore, so the template has it without the dot.
                is_ignore = path.name == "gitignore"
                sources[str(path.with_name(IGNORED) if is_ignore else path)] = source
        kept = (README, IGNORED)
        taken = [file for file in sources if file not in kept and (root / file).exists()]
        if taken:
            raise Conflict(
                f"{root} holds {', '.join(taken)}, which the template would replace.",
                "Move them away, or use `--template empty`.",
            )
        for file, source in sources.items():
            target = root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(source, target)
                if source.suffix == ".md":
                    text = source.read_text("utf-8").replace("{{name}}", name)
                    target.write_text(text, "utf-8")
            elif target.name == IGNORED:  # `.clewline` must not be committed
                text = target.read_text("utf-8")
                lines = source.read_text("utf-8").splitlines()
                missing = [line for line in lines if line not in text.splitlines()]
                end = "\n" if text and not text.endswith("\n") else ""
                target.write_text(text + end + "".join(f"{line}\n" for line in missing), "utf-8")


def _init_git(root: Path) -> None:
    """Make the folder a Git repository, unless it is inside one or Git is not installed."""
    if shutil.which("git") is None:
        return
    inside = ["git", "-C", str(root), "rev-parse", "--is-inside-work-tree"]
    if subprocess.run(inside, capture_output=True, check=False).returncode != 0:
        subprocess.run(["git", "-C", str(root), "init", "--quiet", "-b", "main"], check=True)
