"""A model in a process of its own: its crash or hang is an error of one batch, never ours."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import PATIENCE_S, wait_for

from clewline.errors import IntegrityError, ModelFailed
from clewline.model.families.python_class.family import PythonClassFamily
from clewline.model.isolation import isolated_predictor as module
from clewline.model.isolation import messages
from clewline.model.isolation.isolated_predictor import (
    DEFAULT_LIMITS,
    IsolatedPredictor,
    IsolationLimits,
    load_isolated,
)
from clewline.model.isolation.process import ModelProcess
from clewline.model.runtime.outputs import Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

Load = Callable[..., IsolatedPredictor]

SIGNATURE = Signature(
    fields=(Field(name="do", kind="text", nullable=True),),
    output=Output(name="y", task="regression"),
)

SOURCE = """
import ctypes, multiprocessing, os, subprocess, sys, time
import numpy as np

class Model:
    def __init__(self, vocabulary):
        self.path = vocabulary

    def predict(self, rows):
        return [getattr(self, row["do"])() for row in rows]

    def one(self): return 1
    def crash(self): return ctypes.string_at(0)
    def leave(self): sys.exit(3)
    def hang(self): time.sleep(1000)
    def wrong(self): raise ValueError("not this row")
    def secret(self): return len([name for name in os.environ if name.startswith("SECRET")])
    def here(self): return int(os.path.exists("pyproject.toml"))
    def pid(self): return os.getpid()
    def say(self):
        print("I was asked")
        return 1
    def fork(self): return 1 if os.fork() else -1
    def native_fork(self): return 1 if ctypes.CDLL(None).fork() else -1
    def pool(self):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return sum(pool.map(abs, [-1, -2]))
    def leave_child(self):
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
    def leave_fork(self):
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        return pid
    def flood(self):
        for _ in range(2000):
            print("x" * 999)
        print("y" * 3000)
        print("the end")
        return 1
    def large(self): return np.ones(1 << 27).sum()  # 1 GiB
    def endless(self):
        kept = []
        while True:
            kept.append(ctypes.create_string_buffer(1 << 20))
"""


def asked(*words: str | None) -> Columns:
    texts = np.array([[word] for word in words], dtype=object)
    return Columns(np.empty((len(words), 0)), texts)


@pytest.fixture
def files(package: Any) -> dict[str, bytes]:
    made: dict[str, bytes] = package(SOURCE, vocabulary=[1])
    return made


@pytest.fixture
def load(files: dict[str, bytes]) -> Iterator[Load]:
    """Load the model under limits; it is closed at the end."""
    with ExitStack() as stack:

        def load_model(limits: IsolationLimits = DEFAULT_LIMITS) -> IsolatedPredictor:
            loaded = load_isolated("moods@3", "python_class", SIGNATURE, lambda: files, limits)
            assert isinstance(loaded, IsolatedPredictor)
            stack.callback(loaded.close)
            return loaded

        yield load_model


@pytest.fixture
def model(load: Load) -> IsolatedPredictor:
    return load()


def values(outputs: Outputs) -> list[float]:
    assert outputs.values is not None
    return outputs.values.tolist()


def test_it_answers_as_in_this_process_but_from_another_one_with_nothing_of_ours(
    model: IsolatedPredictor, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "x")
    here = PythonClassFamily().load(files, SIGNATURE)
    assert values(model.predict(asked("one", "one"))) == values(here.predict(asked("one", "one")))
    other = load_isolated("moods@3", "python_class", SIGNATURE, lambda: files)
    assert isinstance(other, IsolatedPredictor)
    pid, secrets, here = values(other.predict(asked("pid", "secret", "here")))
    other.close()
    assert (pid != os.getpid(), secrets, here) == (True, 0, 0)
    assert not Path(f"/proc/{int(pid)}").exists()
    assert model.rss_bytes > 1 << 20


def test_what_it_raises_is_told_and_it_goes_on(model: IsolatedPredictor) -> None:
    before = model.pid
    with pytest.raises(ModelFailed, match=r"predict raised ValueError\."):
        model.predict(asked("one", "wrong"))
    assert values(model.predict(asked("one"))) == [1]
    assert model.pid == before


def test_a_crash_fails_its_batch_alone_and_the_next_call_is_answered(
    model: IsolatedPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModelFailed, match=r"The process of moods@3 was ended by SIGSEGV\."):
        model.predict(asked("crash"))
    assert values(model.predict(asked("one"))) == [1]
    assert "Segmentation fault" in caplog.text
    assert model.failure is None


def test_a_hang_is_ended_when_its_time_is_over(load: Load) -> None:
    model = load(IsolationLimits(timeout_s=2.0))
    before = model.pid
    with pytest.raises(ModelFailed, match=r"gave no answer within 2 s"):
        model.predict(asked("hang"))
    assert not Path(f"/proc/{before}").exists()
    assert values(model.predict(asked("one"))) == [1]


@pytest.mark.parametrize("word", ["fork", "native_fork"])
def test_a_fork_of_the_model_never_answers_for_it(
    word: str, model: IsolatedPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CRASHES", 100)
    monkeypatch.setattr(module, "BACKOFF_S", (0.0,))
    answers: list[list[float]] = []
    failures: list[str] = []
    for asked_for in [word, "one"] * 5:
        try:
            answers.append(values(model.predict(asked(asked_for))))
        except ModelFailed as error:
            failures.append(error.message)
    assert answers == [[1]] * len(answers)
    assert all("wrote what is no answer to its call" in failure for failure in failures)
    assert bool(failures) == (word == "native_fork")  # Python's forks have no socket to write to


def test_a_model_may_use_forks_that_answer_it_alone(model: IsolatedPredictor) -> None:
    assert values(model.predict(asked("pool", "one"))) == [3, 1]


@pytest.mark.parametrize("word", ["leave_child", "leave_fork"])
@pytest.mark.parametrize("how", ["closed", "killed", "crashed", "late"])
def test_what_the_model_started_ends_with_it(word: str, how: str, load: Load) -> None:
    model = load(IsolationLimits(timeout_s=5.0))
    (left,) = values(model.predict(asked(word)))
    assert Path(f"/proc/{left:.0f}").exists()
    match how:
        case "closed":
            model.close()
        case "killed":
            assert model.pid is not None
            os.kill(model.pid, signal.SIGKILL)
        case _:
            with pytest.raises(ModelFailed):
                model.predict(asked({"crashed": "crash", "late": "hang"}[how]))
    wait_for(lambda: not Path(f"/proc/{left:.0f}").exists())


def test_after_three_crashes_in_a_row_it_stays_failed(
    model: IsolatedPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.0, 0.0))
    for _ in range(3):
        with pytest.raises(ModelFailed, match=r"SIGSEGV|exited"):
            model.predict(asked("crash"))
    assert model.failure is not None
    assert "3 crashes in a row, the last: it was ended by SIGSEGV" in model.failure
    assert "Segmentation fault" in model.failure
    with pytest.raises(ModelFailed, match="stays failed") as caught:
        model.predict(asked("one"))
    assert "Segmentation fault" not in caught.value.message  # callers are told no traces
    assert model.pid is None


def test_what_it_prints_goes_to_the_log_under_its_name(
    model: IsolatedPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model.predict(asked("say"))
        model.close()  # which waits for the last line
    assert "moods@3: I was asked" in caplog.text


def test_of_what_it_prints_the_log_has_so_much_and_the_number_of_the_rest(
    model: IsolatedPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model.predict(asked("flood"))
        process = model._process
        assert process is not None
        model.close()
    assert 60_000 < sum(len(record.getMessage()) for record in caplog.records) < 70_000
    dropped = re.search(r"moods@3: (\d+) bytes more that it printed were not logged", caplog.text)
    assert dropped is not None
    logged = sum(message.count("x") for message in caplog.messages)
    assert int(dropped[1]) > 2_000_000 - logged
    assert process.last_lines[-1] == "the end"


@pytest.mark.parametrize("word", ["large", "endless"])
def test_a_model_that_needs_more_memory_than_its_limit_fails_with_the_limit(
    word: str, load: Load
) -> None:
    model = load(IsolationLimits(memory_bytes=512 << 20))
    with pytest.raises(ModelFailed, match=r"needs more memory than its limit, 512\.0 MiB") as found:
        model.predict(asked(word))
    assert "`isolate: {memory: …}`" in str(found.value.fix)
    assert values(model.predict(asked("one"))) == [1]
    assert model.restarts == 0
    assert values(load().predict(asked("large"))) == [1 << 27]


def test_a_limit_on_memory_in_which_nothing_can_be_loaded_is_named(load: Load) -> None:
    with pytest.raises(ModelFailed) as found:
        load(IsolationLimits(memory_bytes=4 << 20))
    assert "Its limit on memory is 4.0 MiB." in str(found.value.fix)


def test_closing_ends_a_call_that_hangs(model: IsolatedPredictor) -> None:
    ended: list[BaseException] = []
    started = threading.Event()

    def ask() -> None:
        started.set()
        try:
            model.predict(asked("hang"))
        except (ModelFailed, RuntimeError) as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    started.wait()
    model.close()
    thread.join(timeout=20)
    assert len(ended) == 1
    with pytest.raises(RuntimeError, match="closed"):
        model.predict(asked("one"))


def test_what_loading_raises_is_raised_here(files: dict[str, bytes]) -> None:
    with pytest.raises(IntegrityError, match=r"python\.json"):
        load_isolated("moods@3", "python_class", SIGNATURE, lambda: {**files, "python.json": b"{"})


def test_a_process_that_exits_as_it_loads_is_a_failed_model(package: Any) -> None:
    files = package("import os\nos._exit(7)\n")
    with pytest.raises(ModelFailed, match="moods@3 exited with status 7"):
        load_isolated("moods@3", "python_class", SIGNATURE, lambda: files)


def test_it_ends_with_its_server_even_while_it_computes(files: dict[str, bytes]) -> None:
    process = ModelProcess("moods@3")
    head = messages.LoadRequest("moods@3", "python_class", SIGNATURE, list(files))
    message = messages.Message(head, [np.frombuffer(data, np.uint8) for data in files.values()])
    process.ask(message, until=time.monotonic() + PATIENCE_S)
    process._channel.send(messages.rows_message(asked("hang")), 2)
    process._lifeline.close()  # what the kernel does when a server is killed
    process._subreaper.wait(timeout=PATIENCE_S)
    assert not Path(f"/proc/{process.pid}").exists()
    process.end()


@pytest.fixture
def channels() -> Iterator[tuple[messages.Channel, messages.Channel]]:
    """The ends of a process and of the server."""
    left, right = socket.socketpair()
    with left, right:
        yield messages.Channel(left), messages.Channel(right, checks_sender=True)


def test_rows_and_answers_travel_bit_for_bit(
    channels: tuple[messages.Channel, messages.Channel],
) -> None:
    left, right = channels
    texts = np.array([["a", None], [None, "é"]], dtype=object)
    numbers = np.array([[np.nan, -0.0], [1e-300, np.inf]])
    tensors = {"t": np.arange(6, dtype=np.int16).reshape(2, 3).T[:2]}
    left.send(messages.rows_message(Columns(numbers, texts, tensors)), 7)
    number, message = right.receive()
    found = messages.read_columns(message)
    assert number == 7
    assert found.numbers.tobytes() == numbers.tobytes()
    assert found.texts.tolist() == texts.tolist()
    assert found.tensors["t"].tolist() == tensors["t"].tolist()
    answers = Outputs(choices=np.array([1, 0]), probabilities=np.eye(2))
    left.send(messages.outputs_message(answers), 8)
    back = messages.read_outputs(right.receive()[1])
    assert back.choices is not None
    assert back.choices.tolist() == [1, 0]
    assert back.values is None
    assert right.sender == os.getpid()
    left.close()
    with pytest.raises(messages.ProcessGone):
        right.receive()


def test_a_message_larger_than_any_buffer_arrives_whole(
    channels: tuple[messages.Channel, messages.Channel],
) -> None:
    left, right = channels
    values = np.random.default_rng(0).normal(size=(1_000_003, 3))
    answers = messages.outputs_message(Outputs(values=values))
    thread = threading.Thread(target=left.send, args=(answers, 1))
    thread.start()
    found = messages.read_outputs(right.receive()[1])
    thread.join()
    assert found.values is not None
    assert found.values.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\xff" * 32, id="too long"),
        pytest.param(struct.pack("<QQQQ2s", 2, 2, 1, 0, b"no"), id="no head"),
        pytest.param(struct.pack("<QQQQ2s", 1, 1, 1, 0, b"no"), id="bytes behind it"),
        pytest.param(struct.pack("<QQQQ2s", 1, 2, 1, 0, b"no"), id="a head longer than the whole"),
    ],
)
def test_bytes_that_are_no_message_are_refused(
    said: bytes, channels: tuple[messages.Channel, messages.Channel]
) -> None:
    left, right = channels
    left._end.sendall(said)
    with pytest.raises(messages.WrongMessage):
        right.receive()
