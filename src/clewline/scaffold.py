"""Makes a project: its files from a template, its key, its store."""

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
"""Files that most repositories have: the one is left as it is, the other gets what it lacks."""


def create(
    root: Path, *, name: str | None = None, template: str = "tumours", new_key: bool = False
) -> Project:
    """
    Make a project in a folder, or complete one that was cloned without its key and store.

    Args:
        root: The folder; made if it does not exist.
        name: The project's name; the folder's by default.
        template: `tumours`, a pipeline that runs, or `empty`.
        new_key: Seal with a new key from now on; what the old one sealed is no longer accepted.

    Raises:
        Conflict: The folder is a whole project, or holds a file that the template would replace.
        NotFound: There is no such template.
        StoreFull, StoreReadOnly: The folder cannot be written.
    """
    root = root.resolve()
    with disk_errors(root):
        return _created(root, name, template, new_key)


def _created(root: Path, name: str | None, template: str, new_key: bool) -> Project:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file.", "Name a folder.")
    if not (root / project.FILE).exists():
        name = name or re.sub(r"[^a-z0-9-]+", "-", root.name.lower()).strip("-") or "project"
        copy_template(template, root, name)
        begin_git(root)
        head = f'[project]\nname = "{name}"\nid = "{secrets.token_hex(8)}"\n'
        (root / project.FILE).write_text(head, encoding="utf-8")
    found = project.load(root)
    if found.private_key.exists() or (is_whole(found) and not new_key):
        raise Conflict(f"{root} is a clewline project already.", "Work in it, or name another.")
    return complete(found, new_key=new_key)


def is_whole(found: Project) -> bool:
    """Tell whether a project has its store and a key that its seals are checked with."""
    return found.store_root.exists() and found.public_key is not None


def complete(found: Project, *, new_key: bool = False) -> Project:
    """Give a project its store and, when it has none or a new one is wanted, its key."""
    from clewline.model.seal import make_keys
    from clewline.store.store import Store

    Store.create(found.store_root).close()
    if found.public_key is not None and not new_key:
        # A clone: what others have sealed can be checked here, and the key is theirs to hand over.
        return found
    write_public_key(found.root / project.FILE, make_keys(found.private_key))
    return project.load(found.root)


def write_public_key(path: Path, public: str) -> None:
    """Write the public key into a `clewline.toml`, in the place of an earlier one."""
    text = path.read_text("utf-8")
    line = f'public = "{public}"'
    text, replaced = re.subn(r'(?m)^public = ".*"$', line, text)
    if not replaced:
        text += (
            "\n[keys]\n"
            "# Seals are checked with this; the private half lies in .clewline/keys.\n"
            f"{line}\n"
        )
    path.write_text(text, encoding="utf-8")


def copy_template(template: str, root: Path, name: str) -> None:
    """Copy a template's files, refusing to replace any; a README stays, .gitignore is added to."""
    known = sorted(entry.name for entry in TEMPLATES.iterdir() if entry.is_dir())
    if template not in known:
        raise NotFound(f"There is no template {template!r}.", f"There are: {', '.join(known)}.")
    with as_file(TEMPLATES / template) as folder:
        pairs = [(path, root / target_path(path, folder)) for path in walk(folder)]
        there = [target.relative_to(root) for _, target in pairs if target.exists()]
        taken = [str(path) for path in there if str(path) not in (README, IGNORED)]
        if taken:
            raise Conflict(
                f"{root} holds {', '.join(taken)}, which the template would replace.",
                "Move them away, or use `--template empty`.",
            )
        for source, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                copy_file(source, target, name)
            elif target.name == IGNORED:
                add_lines(target, source.read_text("utf-8").splitlines())


def copy_file(source: Path, target: Path, name: str) -> None:
    """Copy one file, with the project's name in texts."""
    shutil.copyfile(source, target)
    if source.suffix == ".md":
        target.write_text(source.read_text("utf-8").replace("{{name}}", name), "utf-8")


def add_lines(path: Path, lines: list[str]) -> None:
    """Add the lines to a file that are not in it: what lies in `.clewline` is not for Git."""
    text = path.read_text("utf-8")
    missing = [line for line in lines if line not in text.splitlines()]
    between = "\n" if text and not text.endswith("\n") else ""
    path.write_text(text + between + "".join(f"{line}\n" for line in missing), "utf-8")


def walk(folder: Path) -> list[Path]:
    """The files of a template, without what running it has left."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts]


def target_path(path: Path, folder: Path) -> Path:
    """Where a template's file goes; `gitignore` has no dot there, since packaging obeys it."""
    relative = path.relative_to(folder)
    return relative.with_name(".gitignore") if relative.name == "gitignore" else relative


def begin_git(root: Path) -> None:
    """Make the folder a Git repository, unless it is inside one or there is no Git."""
    if shutil.which("git") is None:
        return
    asked = ["git", "-C", str(root), "rev-parse", "--is-inside-work-tree"]
    inside = subprocess.run(asked, capture_output=True, text=True, check=False)
    if inside.returncode != 0:
        subprocess.run(["git", "-C", str(root), "init", "--quiet", "-b", "main"], check=True)
