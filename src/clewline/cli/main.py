"""The command `clewline`: finds the command, loads only its module, and prints its errors."""

from __future__ import annotations

import os
import sys

from clewline.cli.output import Mode, print_error, print_message
from clewline.errors import ClewlineError, Fault, UsageError, did_you_mean
from clewline.version import __version__

WORK, SERVE, LINEAGE = "From code to model", "From model to prediction", "Lineage"

# name → import path, what it does, group
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("init:init", "Create a project that runs.", WORK),
    "run": ("run:run", "Run a pipeline.", WORK),
    "cache": ("cache:app", "Show which steps are cached, and why others are not.", WORK),
    "runs": ("runs:app", "List, show and compare runs.", WORK),
    "models": ("models:app", "List, show, compare, verify and promote model versions.", WORK),
    "predict": ("predict:predict", "Answer the rows of a file with a model version.", WORK),
    "data": ("data:app", "Assess tables before a model is trained on them.", WORK),
    "endpoints": ("endpoints:app", "List, show, check and apply endpoints.", SERVE),
    "serve": ("serve:serve", "Start the prediction server.", SERVE),
    "up": ("serve:up", "Start the prediction server and the console.", SERVE),
    "mcp": ("mcp:mcp", "Serve the line to assistants (MCP).", SERVE),
    "tokens": ("tokens:app", "Add, list and revoke access tokens.", SERVE),
    "predictions": ("predictions:app", "List, show and compact predictions.", SERVE),
    "why": ("why:why", "Follow the lineage back: what made this?", LINEAGE),
    "impact": ("why:impact", "Follow the lineage forward: what came of this?", LINEAGE),
    "explain": (
        "explain:explain",
        "Explain a prediction: what moved the answer?",
        LINEAGE,
    ),
    "replay": ("replay:replay", "Repeat a run or a prediction and compare bit for bit.", LINEAGE),
    "doctor": ("doctor:doctor", "Check the store, and say how to fix problems.", LINEAGE),
}

PURPOSE = "Take models from training run to production decision, and keep their lineage."

EPILOGUE = """\
All commands accept --json (print JSON), --project FOLDER (use that project),
--debug (show tracebacks) and --help.
Exit status: 0 success, 1 a check failed, 2 wrong usage, 3 clewline failed."""


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    sys.exit(status(sys.argv[1:] if argv is None else argv))


def status(words: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        return _call(_take_global_options(words))
    except KeyboardInterrupt:
        print_message("Interrupted.")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`clewline runs | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if Mode.debug:
            raise
        known = _as_known_error(error)
        print_error(known)
        return known.exit_code


def _take_global_options(words: list[str]) -> list[str]:
    """Set the mode from --json, --debug and --project, which may stand anywhere before `--`."""
    end = words.index("--") if "--" in words else len(words)
    before, rest = [], words[end:]
    for word in words[:end]:
        name, equals, value = word.partition("=")
        before += [name, value] if equals and name == "--project" else [word]
    Mode.json, Mode.debug = "--json" in before, "--debug" in before
    if "--project" in before:
        at = before.index("--project")
        if at + 1 == len(before):
            raise UsageError("--project needs a folder.", "Write --project FOLDER.")
        os.environ["CLEWLINE_PROJECT"] = before[at + 1]
        del before[at : at + 2]
    return [word for word in before if word not in ("--json", "--debug")] + rest


def _call(words: list[str]) -> int:
    """Parse the words and call the command."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(
                f"{word!a} is not UTF-8 text.", "Rename the file, or use another name."
            )
    command = words[0] if words and not words[0].startswith("-") else None
    if command is not None and command not in COMMANDS:
        near = did_you_mean(command, COMMANDS, "")
        raise UsageError(
            f"There is no command {command!r}.",
            f"{near} `clewline --help` lists the commands.".strip(),
        )
    if words == ["--version"]:
        print(f"clewline {__version__}")
        return 0
    if words in ([], ["--help"], ["-h"]):
        print(f"Usage: clewline COMMAND\n\n{PURPOSE}")
        for group in (WORK, SERVE, LINEAGE):
            print(f"\n{group}:")
            for name, (_, text, of) in COMMANDS.items():
                if of == group:
                    print(f"  {name:<12} {text}")
        print(f"\n{EPILOGUE}")
        return 0
    from cyclopts import App, CycloptsError, UnknownCommandError  # 0.2 s that help need not take

    app = App(
        name="clewline",
        help=PURPOSE,
        help_epilogue=EPILOGUE,
        help_format="plaintext",  # the default loads a Markdown parser: 50 ms
    )
    for name, (path, help_text, _) in COMMANDS.items():
        # The module of a command is imported when it is called.
        app.command(f"clewline.cli.{path}", name=name, help=help_text)
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        is_group = command is not None and COMMANDS[command][0].endswith(":app")
        depth = 2 if is_group and not isinstance(error, UnknownCommandError) else 1
        called = [word for word in words[:depth] if not word.startswith("-")]
        help_command = " ".join(["clewline", *called, "--help"])
        raise UsageError(str(error), f"`{help_command}` shows how to call it.") from error
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    return 0


def _as_known_error(error: Exception) -> ClewlineError:
    """Return an error of ours; a full or forbidden disk is no mistake of clewline's."""
    from clewline.store.disk import known_error

    fault = Fault(
        f"{type(error).__name__}: {error}",
        "This is a bug in clewline. Run the command again with --debug and report the output.",
    )
    return known_error(error, fault)


if __name__ == "__main__":
    main()
