"""A model in a process of its own: its crash or hang is an error of one batch, never ours."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clewline.errors import IntegrityError, ModelFailed
from clewline.model.families.python_class.family import PythonClassFamily
from clewline.model.isolation import isolated_predictor as module
from clewline.model.isolation import messages
from clewline.model.isolation.isolated_predictor import IsolatedPredictor, load_isolated
from clewline.model.isolation.process import ModelProcess
from clewline.model.runtime.outputs import Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

SIGNATURE = Signature(
    fields=(Field(name="do", kind="text", nullable=True),),
    output=Output(name="y", task="regression"),
)

SOURCE = """
import ctypes, os, sys, time

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
"""


def asked(*words: str | None) -> Columns:
    texts = np.array([[word] for word in words], dtype=object)
    return Columns(np.empty((len(words), 0)), texts)


@pytest.fixture
def files(package: Any) -> dict[str, bytes]:
    made: dict[str, bytes] = package(SOURCE, vocabulary=[1])
    return made


@pytest.fixture
def model(files: dict[str, bytes]) -> Iterator[IsolatedPredictor]:
    loaded = load_isolated("moods@3", "python_class", SIGNATURE, lambda: files)
    assert isinstance(loaded, IsolatedPredictor)
    yield loaded
    loaded.close()


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


def test_a_hang_is_ended_when_its_time_is_over(model: IsolatedPredictor) -> None:
    before = model.pid
    with pytest.raises(ModelFailed, match=r"gave no answer within 0\.2 s"):
        model.predict(asked("hang"), timeout_s=0.2)
    assert not Path(f"/proc/{before}").exists()
    assert values(model.predict(asked("one"))) == [1]


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
    process.ask(message, until=time.monotonic() + 60)
    messages.send(process._channel, messages.rows_message(asked("hang")))
    os.close(process._lifeline)  # what the kernel does when a server is killed
    process._lifeline = os.open(os.devnull, os.O_RDONLY)
    assert process._popen.wait(timeout=20) != 0
    process.end()


def test_rows_and_answers_travel_bit_for_bit() -> None:
    left, right = socket.socketpair()
    texts = np.array([["a", None], [None, "é"]], dtype=object)
    numbers = np.array([[np.nan, -0.0], [1e-300, np.inf]])
    tensors = {"t": np.arange(6, dtype=np.int16).reshape(2, 3).T[:2]}
    messages.send(left, messages.rows_message(Columns(numbers, texts, tensors)))
    found = messages.read_columns(messages.receive(right))
    assert found.numbers.tobytes() == numbers.tobytes()
    assert found.texts.tolist() == texts.tolist()
    assert found.tensors["t"].tolist() == tensors["t"].tolist()
    answers = Outputs(choices=np.array([1, 0]), probabilities=np.eye(2))
    messages.send(left, messages.outputs_message(answers))
    back = messages.read_outputs(messages.receive(right))
    assert back.choices is not None
    assert back.choices.tolist() == [1, 0]
    assert back.values is None
    left.close()
    with pytest.raises(messages.ProcessGone):
        messages.receive(right)
    right.close()


@pytest.mark.parametrize("said", [b"\xff" * 8, b"\x02" + b"\0" * 7 + b"no"])
def test_what_is_no_message_is_told_apart_from_an_answer(said: bytes) -> None:
    left, right = socket.socketpair()
    left.sendall(said)
    with pytest.raises(messages.ProcessGone):
        messages.receive(right)
    left.close()
    right.close()
