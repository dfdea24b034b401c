"""Makes a project: its files from a template, its key, its store."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

from fairlead import project
from fairlead.errors import Conflict, NotFound, UsageError
from fairlead.project import Project

TEMPLATES = files("fairlead") / "templates"


def create(root: Path, *, name: str | None = None, template: str = "tumours") -> Project:
    """
    Make a project in a folder, or complete one that was cloned without its key and store.

    Args:
        root: The folder; made if it does not exist.
        name: The project's name; the folder's by default.
        template: `tumours`, a pipeline that runs, or `empty`.

    Raises:
        Conflict: The folder is a whole project, or holds a file that the template would replace.
        NotFound: There is no such template.
    """
    root = root.resolve()
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file.", "Name a folder.")
    if not (root / project.FILE).exists():
        name = name or re.sub(r"[^a-z0-9-]+", "-", root.name.lower()).strip("-") or "project"
        copy_template(template, root, name)
        begin_git(root)
        head = f'[project]\nname = "{name}"\nid = "{secrets.token_hex(8)}"\n'
        (root / project.FILE).write_text(head, encoding="utf-8")
    elif (root / ".fairlead").exists():
        raise Conflict(f"{root} is a fairlead project already.", "Work in it, or name another.")
    return complete(project.load(root))


def complete(made: Project) -> Project:
    """Give a project its store and, when it has none, its key."""
    from fairlead.model.seal import make_keys
    from fairlead.store.store import Store

    Store.create(made.store_root).close()
    if made.public_key is not None:
        # A clone: what others have sealed can be checked here, and the key is theirs to hand over.
        return made
    public = make_keys(made.private_key)
    with (made.root / project.FILE).open("a", encoding="utf-8") as file:
        file.write(
            "\n[keys]\n"
            "# Seals are checked with this; the private half lies in .fairlead/keys.\n"
            f'public = "{public}"\n'
        )
    return project.load(made.root)


def copy_template(template: str, root: Path, name: str) -> None:
    """Copy a template's files, refusing to replace any."""
    known = sorted(entry.name for entry in TEMPLATES.iterdir() if entry.is_dir())
    if template not in known:
        raise NotFound(f"There is no template {template!r}.", f"There are: {', '.join(known)}.")
    with as_file(TEMPLATES / template) as folder:
        pairs = [(path, root / target_path(path, folder)) for path in walk(folder)]
        taken = [str(target.relative_to(root)) for _, target in pairs if target.exists()]
        if taken:
            raise Conflict(
                f"{root} holds {', '.join(taken)}, which the template would replace.",
                "Move them away, or use `--template empty`.",
            )
        for source, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            if source.suffix == ".md":
                target.write_text(source.read_text("utf-8").replace("{{name}}", name), "utf-8")


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
