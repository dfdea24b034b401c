"""One process explains for a server: at its limits it ends, and the next one goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from explained import CRASHES, GOOD, HANGS, HUNGRY, RAISES, answer_rows, odd_project
from support import PATIENCE_S, wait_for

from clewline.errors import ClewlineError, Fault
from clewline.explain import channel
from clewline.explain.background import failed_explanations
from clewline.explain.channel import ExplainReply, ExplainRequest
from clewline.explain.explain_prediction import explain_prediction, stored_explanations
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.metrics.metric_families import merge_families
from clewline.serve.metrics.shared_metrics import SharedMetrics
from clewline.store.store import Store
from clewline.workers.explaining_process import ExplainingProcess
from clewline.workers.messages import ExplainLimits

LIMITS = ExplainLimits(seconds=3.0, memory_bytes=3 << 30)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    return odd_project(tmp_path_factory.mktemp("odd"))


class Explaining:
    """An explaining process and one who asks it; a thread looks after the process."""

    def __init__(self, project: Project, limits: ExplainLimits = LIMITS) -> None:
        numbers = count(1)
        self._shared = SharedMetrics.create(1)
        self.process = ExplainingProcess(
            str(project.root), limits, self._shared, 0, lambda: next(numbers)
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_after)
        self._thread.start()

    def _look_after(self) -> None:
        while not self._stop.wait(0.01):
            self.process.look_after(time.monotonic())

    def ask(self, prediction: str, **options: Any) -> socket.socket:
        request = ExplainRequest(prediction=prediction, **options)
        asked = channel.ask(self.process.channel.asking, request)
        assert asked is not None
        asked.settimeout(PATIENCE_S)
        return asked

    def explain(self, prediction: str, **options: Any) -> Any:
        return result(self.ask(prediction, **options))

    def counts(self, name: str) -> dict[tuple[str, ...], float]:
        """Read a counter, by the values of its labels."""
        families = merge_families(self.process.metrics())
        found = next(each for each in families if each.name == name)
        return {tuple(v for _, v in each.labels): each.values[0] for each in found.samples}

    def exits(self, reason: str) -> float:
        return self.counts("clewline_explaining_exits_total")[reason,]

    @property
    def pid(self) -> int | None:
        """The id of the process that computes, below the one that the server has started."""
        with suppress(psutil.NoSuchProcess):  # it has just ended
            started = self.process._process
            below = [] if started is None else psutil.Process(started.pid).children()
            return below[0].pid if below else None
        return None

    def computing(self) -> int | None:
        """Return the id of the process once its model has started another one."""
        with suppress(psutil.NoSuchProcess):
            pid = self.pid
            return pid if pid is not None and psutil.Process(pid).children() else None
        return None

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.process.close()


def result(asked: socket.socket) -> Any:
    """Read the reply: an explanation, an error, or None if the process died without one."""
    data = b""
    with asked:
        while part := asked.recv(1 << 16):
            data += part
    if not data:
        return None
    found = msgspec.json.decode(data, type=ExplainReply).result()
    return found if isinstance(found, ClewlineError) else msgspec.json.decode(found)


@pytest.fixture(scope="module")
def explaining(odd: tuple[Project, list[str]]) -> Iterator[Explaining]:
    running = Explaining(odd[0])
    yield running
    running.close()


def test_a_prediction_is_explained_at_the_lowest_priority(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    good = odd[1][GOOD]
    found = explaining.explain(good)
    assert found["prediction"] == good
    assert found["model"] == "odd@1"
    process = psutil.Process(explaining.pid)
    assert process.nice() == 19
    assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    # Linux may share the CPU among sessions first, whatever the priorities in them.
    assert os.getsid(process.pid) == os.getsid(0)
    assert os.getpgid(process.pid) != os.getpgid(0)  # that a Ctrl-C reaches


def test_an_error_of_ours_and_of_the_model_is_replied(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    unknown = explaining.explain("01a1fc0f-da59-7789-becf-2d0773e288df")
    assert unknown.code == "not_found"
    raised = explaining.explain(odd[1][RAISES])
    assert isinstance(raised, Fault)
    assert "raised ValueError" in str(raised)


def test_a_model_that_hangs_gets_its_error_and_what_waits_behind_it_is_explained(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    ids = odd[1]
    hung, others = explaining.ask(ids[HANGS]), [explaining.ask(ids[GOOD]) for _ in range(5)]
    error = result(hung)
    assert isinstance(error, Fault)
    assert "took more than 3 s" in str(error)
    assert [result(each)["prediction"] for each in others] == [ids[GOOD]] * 5
    assert explaining.exits("limit") >= 1
    # What the model has started has ended with its process.
    wait_for(lambda: not is_running(["sleep", "601"]))


def is_running(command: list[str]) -> bool:
    return any(each.info["cmdline"] == command for each in psutil.process_iter(["cmdline"]))


def test_a_model_that_crashes_its_process_takes_only_its_own_request_with_it(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    ids = odd[1]
    asked = [explaining.ask(ids[at]) for at in (GOOD, CRASHES, GOOD)]
    found = [result(each) for each in asked]
    assert found[0]["prediction"] == found[2]["prediction"] == ids[GOOD]
    assert found[1] is None
    wait_for(lambda: explaining.exits("crashed") == 1)


def test_a_model_that_wants_too_much_memory_gets_its_error(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    ids = odd[1]
    error = explaining.explain(ids[HUNGRY])
    assert "needs more than 3072 MiB" in str(error)
    assert explaining.explain(ids[GOOD])["prediction"] == ids[GOOD]


def test_after_kill_9_the_next_process_goes_on(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    ids = odd[1]
    hung, behind = explaining.ask(ids[HANGS]), explaining.ask(ids[GOOD])
    killed = wait_for(explaining.computing)
    os.kill(killed, signal.SIGKILL)
    assert result(hung) is None
    assert result(behind)["prediction"] == ids[GOOD]
    assert explaining.pid != killed
    assert explaining.exits("killed") == 1


def test_an_explanation_that_nobody_waits_for_is_not_computed_to_its_end(
    explaining: Explaining, odd: tuple[Project, list[str]]
) -> None:
    ids = odd[1]
    assert explaining.explain(ids[GOOD])
    before = explaining.pid
    left = explaining.ask(ids[HANGS])
    wait_for(explaining.computing)
    left.close()
    assert explaining.explain(ids[GOOD])["prediction"] == ids[GOOD]
    assert explaining.pid == before, "it was interrupted, not ended at its limit"


def test_it_ends_itself_when_it_has_nothing_to_do_and_is_started_again(
    odd: tuple[Project, list[str]],
) -> None:
    project, ids = odd
    running = Explaining(project, ExplainLimits(idle_s=0.1))
    try:
        assert running.explain(ids[GOOD])["prediction"] == ids[GOOD]
        wait_for(lambda: running.exits("idle") == 1)
        hung = running.ask(ids[HANGS])
        pid = wait_for(running.computing)
    finally:
        running.close()
    assert not psutil.pid_exists(pid)
    assert result(hung) is None


def test_in_the_background_each_prediction_is_explained_once_or_fails_with_its_reason(
    odd: tuple[Project, list[str]],
) -> None:
    project, _ = odd
    with Store.open(project.store_root) as store:
        spec = b'endpoint: e\nmodel: odd@1\nexplain: {kind: attributions, when: "x >= 0"}\n'
        revision.apply(project, store, parse_endpoint(spec, Path("endpoints/e.yaml")))
    rows = [{"x": float(x)} for x in (GOOD, HANGS, CRASHES, RAISES, GOOD, -1)]
    good, hangs, crashes, raises, last, unmatched = answer_rows(project, "e", rows)
    running = Explaining(project, ExplainLimits(seconds=1.5))
    try:
        channel.ring(running.process.channel.bell)
        wait_for(lambda: stored_explanations(project, last))  # the newest first
        os.kill(wait_for(running.computing), signal.SIGKILL)  # it explains another meanwhile
        wait_for(lambda: stored_explanations(project, good))
        assert running.explain(good)["prediction"] == good  # who asks is not kept waiting
        wait_for(lambda: all(failed_explanations(project, each) for each in (hangs, crashes)))
        counts = running.counts("clewline_explanations_total")
    finally:
        running.close()
    for each in (hangs, crashes):
        assert "ended 2 times" in failed_explanations(project, each)[0].reason
    assert "ValueError" in failed_explanations(project, raises)[0].reason
    for each in (good, last):
        assert len(stored_explanations(project, each)) == 1
        assert failed_explanations(project, each) == []
    assert stored_explanations(project, unmatched) == []
    assert counts["background", "attributions", "failed"] >= 1
    assert counts["request", "attributions", "stored"] == 1


def test_a_package_that_is_gone_is_an_error_and_the_stored_explanation_is_still_there(
    odd: tuple[Project, list[str]],
) -> None:
    project, ids = odd
    explain_prediction(project, ids[GOOD])
    package = project.packages / "odd" / "1"
    package.rename(project.packages / "elsewhere")
    running = Explaining(project)
    try:
        assert running.explain(ids[GOOD])["prediction"] == ids[GOOD]
        gone = running.explain(ids[GOOD], options={"budget": 33})
        assert isinstance(gone, ClewlineError)
        assert "odd" in str(gone)
    finally:
        running.close()
        (project.packages / "elsewhere").rename(package)


def test_a_full_channel_refuses_and_closing_it_tells_everybody_who_waits(
    odd: tuple[Project, list[str]],
) -> None:
    pair = channel.ExplainChannel.create()
    request = ExplainRequest(prediction=odd[1][GOOD])
    waiting = []
    while (asked := channel.ask(pair.asking, request)) is not None:
        waiting.append(asked)
        assert len(waiting) < 10_000
    assert len(waiting) > 64
    pair.close()
    for each in waiting:
        each.settimeout(PATIENCE_S)
        assert result(each) is None
