"""A pipeline is found by name, and only its own file is imported."""

from __future__ import annotations

from typing import Any

import pytest

from clewline.errors import InvalidConfig, NotFound
from clewline.flow.pipeline_files import find_pipeline, pipelines_of

ONE = "@cl.pipeline\ndef {name}():\n    pass\n"


def test_only_the_file_that_defines_it_is_imported(bench: Any) -> None:
    bench.write("pipelines/one.py", ONE.format(name="one"))
    bench.write("pipelines/two.py", "raise RuntimeError\n" + ONE.format(name="two"))
    assert find_pipeline(bench.project, "one").name == "one"


def test_a_pipeline_may_have_another_name_than_its_function(bench: Any) -> None:
    bench.write("pipelines.py", "@cl.pipeline(name='nightly')\ndef f():\n    pass\n")
    assert find_pipeline(bench.project, "nightly").name == "nightly"
    assert list(pipelines_of(bench.project).values()) == [["nightly"]]


def test_a_miss_gives_the_nearest_name(bench: Any) -> None:
    bench.write("pipelines.py", ONE.format(name="income"))
    with pytest.raises(NotFound, match="Did you mean 'income'"):
        find_pipeline(bench.project, "incom")


def test_without_pipelines_the_error_says_where_to_put_them(bench: Any) -> None:
    with pytest.raises(NotFound, match="defines no pipeline"):
        find_pipeline(bench.project, "x")


def test_two_files_with_one_name_are_refused(bench: Any) -> None:
    bench.write("pipelines.py", ONE.format(name="income"))
    bench.write("pipelines/b.py", ONE.format(name="income"))
    with pytest.raises(InvalidConfig, match=r"pipelines\.py and pipelines/b\.py"):
        find_pipeline(bench.project, "income")


def test_a_syntax_error_names_file_and_line(bench: Any) -> None:
    bench.write("pipelines.py", "def f(:\n")
    with pytest.raises(InvalidConfig, match=r"pipelines\.py:4"):
        find_pipeline(bench.project, "f")


def test_an_edited_helper_is_imported_anew(bench: Any) -> None:
    bench.write("helper.py", "SIZE = 1\n")
    bench.write("pipelines.py", "from helper import SIZE\n" + ONE.format(name="main"))
    assert find_pipeline(bench.project, "main").fn.__globals__["SIZE"] == 1
    bench.write("helper.py", "SIZE = 22\n")
    assert find_pipeline(bench.project, "main").fn.__globals__["SIZE"] == 22


def test_what_a_file_raises_when_it_is_imported_is_named_with_its_line(bench: Any) -> None:
    bench.write("helper.py", "\n\nLIMIT = 1 / 0\n")
    bench.write("pipelines.py", "import helper\n" + ONE.format(name="main"))
    with pytest.raises(InvalidConfig, match=r"helper\.py:\d+: ZeroDivisionError while") as raised:
        find_pipeline(bench.project, "main")
    assert "Correct helper.py" in str(raised.value.fix)


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(bench: Any) -> None:
    bench.write("pipelines.py", "import notthere.part\n" + ONE.format(name="main"))
    with pytest.raises(InvalidConfig, match=r"pipelines\.py:\d+: ModuleNotFoundError") as raised:
        find_pipeline(bench.project, "main")
    assert "install" in str(raised.value.fix)
    assert "'notthere'" in str(raised.value.fix)
    bench.write("pipelines.py", ONE.format(name="main"))
    assert find_pipeline(bench.project, "main").name == "main"
