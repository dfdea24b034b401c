"""How long commands take: --help, and why and list with a million predictions in the log."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from shared import demo
from shared.keep import keep

from clewline.project import Project
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.reader import find_prediction
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.revision import require_live
from clewline.store.ids import id_text, prediction_ids
from clewline.store.reader import FILE, CatalogReader

GOALS_MS = {"--help": 200.0, "why PREDICTION": 200.0, "find": 5.0}
BATCH = 8


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = demo.make(Path(folder) / "tumours")
        ids = fill(project, options.predictions)
        figures = measure(project, ids, options.repeats)
    for name, ms in figures.items():
        goal = f"  (goal {GOALS_MS[name]:g} ms)" if name in GOALS_MS else ""
        print(f"{name:<34}{ms['median']:9.2f} ms, at most {ms['most']:.2f} ms{goal}")
    if not options.no_save:
        kept = {"predictions": options.predictions, "goals_ms": GOALS_MS, "ms": figures}
        keep("cli", kept, versions=("cyclopts", "msgspec", "rich"))


def fill(project: Project, count: int) -> list[str]:
    """Log real answers of the live revision over and over; give a thousand of their ids."""
    frame = answered(project)
    sample = []
    wanted = set(random.Random(0).sample(range(count), min(count, 1000)))
    with LogWriter(project.log) as log:
        for first in range(0, count, BATCH):
            ids = prediction_ids(BATCH)
            batch = under(frame, ids)
            if not log.write_now(batch):
                log.append(batch, "process", no_failure)
            sample += [id_text(id_) for place, id_ in enumerate(ids, first) if place in wanted]
    return sample


def answered(project: Project) -> LoggedBatch:
    """A batch of background rows, answered as the server answers."""
    live = require_live(CatalogReader(project.store_root / FILE), "tumours")
    loaded = LoadedRevision.load(live, SharedModels(project))
    bodies = [b'{"rows": [%b]}' % bytes(row) for row in demo.background(project)[:BATCH]]
    rows = [loaded.json_reader.read(body).rows[0] for body in bodies]
    predictions = loaded.answer(rows, [None] * BATCH)
    loaded.close()
    return loaded.frame(predictions, [LoggedRequest("json", body, 1) for body in bodies])


def under(frame: LoggedBatch, ids: list[bytes]) -> LoggedBatch:
    """The same batch under other ids."""
    old = [frame.ids[at : at + 16] for at in range(0, len(frame.ids), 16)]
    answers = [
        answer.replace(id_text(was).encode(), id_text(now).encode())
        for answer, was, now in zip(frame.answers, old, ids, strict=True)
    ]
    return msgspec.structs.replace(frame, ids=b"".join(ids), answers=answers, time=time.time())


def no_failure(failure: BaseException | None) -> None:
    """A log that cannot be written ends the measurement."""
    if failure is not None:
        raise SystemExit(f"the log could not be written: {failure}")


def measure(project: Project, ids: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Median and worst, in milliseconds, each command as a whole process."""

    def command(*words: str) -> Callable[[int], object]:
        return lambda _: demo.clewline(*words, cwd=project.root)

    return {
        "--help": timed(command("--help"), repeats),
        "why PREDICTION": timed(lambda n: demo.clewline("why", ids[n], cwd=project.root), repeats),
        "why PREDICTION --json": timed(
            lambda n: demo.clewline("why", ids[n], "--json", cwd=project.root), repeats
        ),
        "predictions list": timed(command("predictions", "list"), repeats),
        "find": timed(lambda n: found(project, ids[n]), len(ids)),
    }


def found(project: Project, identifier: str) -> None:
    """One look-up inside a process."""
    if find_prediction(project.log, identifier) is None:
        raise SystemExit(f"{identifier} is not in the log")


def timed(call: Callable[[int], object], repeats: int) -> dict[str, float]:
    """Call once to warm up, then time each call."""
    call(0)
    spent = []
    for n in range(repeats):
        start = time.perf_counter()
        call(n)
        spent.append((time.perf_counter() - start) * 1000)
    return {"median": round(statistics.median(spent), 3), "most": round(max(spent), 3)}


if __name__ == "__main__":
    main()
