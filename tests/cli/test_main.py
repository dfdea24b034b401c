"""The command line's entry: global options, errors, exit statuses."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from clewline.cli import main
from clewline.cli.main import COMMANDS, status
from clewline.serve import doctor

SOURCE = Path(main.__file__).parent.parent


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (errno.ENOSPC, "store_full", "is full"),
        (errno.EACCES, "store_read_only", "This user cannot use /data/x"),
        (errno.EROFS, "store_read_only", "cannot be written"),
        (errno.EMFILE, "overloaded", "ulimit -n"),
        (errno.ENOTDIR, "fault", "This is a bug in clewline"),
    ],
)
def test_a_full_or_forbidden_disk_is_no_bug_of_clewline(
    recorded: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: str,
    says: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/data/x")

    monkeypatch.setattr("clewline.serve.doctor.check_store", fail)
    assert status(["doctor", "--quick"]) == 3
    assert says in capsys.readouterr().err
    assert status(["--json", "doctor", "--quick"]) == 3
    assert msgspec.json.decode(capsys.readouterr().err)["error"]["code"] == code
    with pytest.raises(OSError, match="/data/x"):
        status(["--debug", "doctor", "--quick"])


def test_a_project_may_be_named_anywhere_before_the_double_dash(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("CLEWLINE_PROJECT", "")
    for words in (["--project", str(recorded), "why", "4f9a"], ["why", f"--project={recorded}"]):
        assert status([*words, *(["4f9a"] if "4f9a" not in words else [])]) == 0
        assert "run 4f9a2c81d0be" in capsys.readouterr().out
    assert status(["why", "4f9a", "--project"]) == 2
    assert "--project needs a folder" in capsys.readouterr().err


def test_an_unknown_command_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status(["dokter"]) == 2
    assert capsys.readouterr().err == (
        "error: There is no command 'dokter'.\n"
        "  Did you mean 'doctor'? `clewline --help` lists the commands.\n"
    )


def test_an_unknown_subcommand_points_to_a_help_that_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status(["runs", "lst"]) == 2
    assert "`clewline runs --help` shows how to call it." in capsys.readouterr().err
    assert status(["runs", "show"]) == 2
    assert "`clewline runs show --help` shows how to call it." in capsys.readouterr().err


@pytest.mark.parametrize(
    "group", [name for name, (path, _, _) in COMMANDS.items() if path.endswith(":app")]
)
def test_the_help_of_a_command_is_one_line_of_the_list(
    capsys: pytest.CaptureFixture[str], group: str
) -> None:
    assert status([group, "--help"]) == 0
    table = capsys.readouterr().out.partition("Commands")[2].partition("╰")[0]
    assert all(re.match(r"│ [a-z]+ ", line) for line in table.splitlines()[1:]), table


def test_help_lines_fit_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_help_and_version_load_no_parser() -> None:
    script = (
        "import sys; from clewline.cli.main import status; "
        "assert status(['--help']) == status(['--version']) == status([]) == 0; "
        "sys.exit(' '.join({'cyclopts', 'rich'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_every_finding_of_the_doctor_has_its_sentences() -> None:
    sources = [path.read_text("utf-8") for path in SOURCE.rglob("*.py")]
    codes = {
        (code, "fixable=True" in rest)
        for text in sources
        for code, rest in re.findall(r'\bFinding\(\s*"(\w+)"((?:[^()]|\([^()]*\))*)\)', text)
    }
    assert {code for code, _ in codes} == set(doctor._WHAT)
    assert {code for code, fixable in codes if not fixable} == set(doctor._FIX)
