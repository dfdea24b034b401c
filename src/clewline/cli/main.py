"""The command `clewline`: finds the command, loads only its module, and prints its errors."""

from __future__ import annotations

import difflib
import os
import sys

from cyclopts import App, CycloptsError, Group

from clewline.cli.output import Mode, complain, message
from clewline.errors import ClewlineError, Fault, UsageError

WORK = Group("From code to model", sort_key=1)
SERVE = Group("From model to prediction", sort_key=2)
LINE = Group("The line", sort_key=3)

# import path, name, what it does, group
COMMANDS: tuple[tuple[str, str, str, Group], ...] = (
    ("init:init", "init", "Make a project that runs.", WORK),
    ("run:run", "run", "Run a pipeline.", WORK),
    ("cache:app", "cache", "Say what would be a hit or a miss, and why.", WORK),
    ("runs:app", "runs", "List, show and compare runs.", WORK),
    ("models:app", "models", "List, show, compare, verify and promote model versions.", WORK),
    ("endpoints:app", "endpoints", "List, show, check and apply endpoints.", SERVE),
    ("serve:serve", "serve", "Start the prediction server.", SERVE),
    ("serve:up", "up", "Start everything for one machine.", SERVE),
    ("tokens:app", "tokens", "Add, list and revoke the tokens of callers.", SERVE),
    ("predictions:app", "predictions", "List and show predictions.", SERVE),
    ("why:why", "why", "Follow the line back: what made this?", LINE),
    ("why:impact", "impact", "Follow the line forward: what came of this?", LINE),
    ("replay:replay", "replay", "Do a run or a prediction again and compare bit for bit.", LINE),
    ("doctor:doctor", "doctor", "Check the store, and say how to mend what is found.", LINE),
)

EPILOGUE = (
    "Everywhere: --json prints the answer as JSON, --project FOLDER works on that project, "
    "--debug shows tracebacks. "
    "Exit status: 0 done, 1 the answer is no, 2 the call was wrong, 3 our fault."
)


def build() -> App:
    """Make the command tree; a command's module is imported when it is called."""
    app = App(
        name="clewline",
        help="From training run to production decision, on one line that can be followed back.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",  # the default loads a Markdown parser: 50 ms
        version=version,
    )
    for path, name, help_text, group in COMMANDS:
        app.command(f"clewline.cli.{path}", name=name, help=help_text, group=group)
    return app


def version() -> str:
    """The name and version, as `--version` prints them."""
    from importlib.metadata import version as installed

    return f"clewline {installed('clewline')}"


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    words = sys.argv[1:] if argv is None else argv
    sys.exit(status(words))


def status(words: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        rest = take_global_options(words)
        refuse_undecodable(rest)
        return call(rest)
    except ClewlineError as error:
        if Mode.debug:
            raise
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        message("Interrupted.")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`clewline runs | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if Mode.debug:
            raise
        complain(
            Fault(
                f"{type(error).__name__}: {error}",
                "This is a fault of clewline's. Run it again with --debug and report the output.",
            )
        )
        return 3


def refuse_undecodable(words: list[str]) -> None:
    """Refuse words that are no text: no record could hold them."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{word!a} is not UTF-8 text.", "Rename the file, or use another name."
            ) from error


def take_global_options(words: list[str]) -> list[str]:
    """Set the mode from --json, --debug and --project, which may stand anywhere before `--`."""
    end = words.index("--") if "--" in words else len(words)
    before, after = words[:end], words[end:]
    Mode.json = "--json" in before
    Mode.debug = "--debug" in before
    before = [part for word in before for part in split_project(word)]
    if "--project" in before:
        at = before.index("--project")
        if at + 1 == len(before):
            raise UsageError("--project was given without a folder.", "Use --project FOLDER.")
        os.environ["CLEWLINE_PROJECT"] = before[at + 1]
        del before[at : at + 2]
    return [word for word in before if word not in ("--json", "--debug")] + after


def split_project(word: str) -> list[str]:
    """Take `--project=FOLDER` apart."""
    return word.split("=", 1) if word.startswith("--project=") else [word]


def call(words: list[str]) -> int:
    """Parse the words and call the command."""
    if words and not words[0].startswith("-"):
        refuse_unknown(words[0])
    try:
        build()(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        called = " ".join(["clewline", *command_words(words)])
        raise UsageError(str(error), f"`{called} --help` shows how to call it.") from error
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    return 0


def refuse_unknown(command: str) -> None:
    """Refuse a command that does not exist, here, before any command's module is imported."""
    names = [name for _, name, _, _ in COMMANDS]
    if command not in names:
        near = difflib.get_close_matches(command, names, n=1)
        hint = f"Did you mean `clewline {near[0]}`? " if near else ""
        raise UsageError(
            f"There is no command {command!r}.", f"{hint}`clewline --help` lists the commands."
        )


def command_words(words: list[str]) -> list[str]:
    """The leading words that name a command, such as `models promote`."""
    groups = {name for path, name, _, _ in COMMANDS if path.endswith(":app")}
    named = words[:2] if words and words[0] in groups else words[:1]
    return [word for word in named if not word.startswith("-")]


if __name__ == "__main__":
    main()
