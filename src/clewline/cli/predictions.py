"""`clewline predictions`: lists, shows and compacts predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from clewline.cli.output import emit, print_lines, print_message
from clewline.cli.parameters import Limit
from clewline.formatting import format_count, format_list, format_time_ms, format_values
from clewline.project import find as find_project
from clewline.serve.lineage_text import (
    FIELDS_SHOWN,
    answer_text,
    choice_text,
    path_text,
    shadow_text,
)
from clewline.serve.prediction_lineage import (
    PredictionDetails,
    prediction_details,
    read_prediction,
)
from clewline.serve.prediction_search import (
    ROWS_LOOKED_AT,
    FoundPredictions,
    read_prediction_filter,
    require_endpoint,
    search_predictions,
)

if TYPE_CHECKING:
    from clewline.serve.log.compact import CompactionResult
    from clewline.serve.prediction_replay import PredictionReplay

SHOWN = 40  # characters of a value that came out equal

app = App(name="predictions", help="List, show and compact predictions.")


class PredictionList(msgspec.Struct, frozen=True):
    """A page of predictions as --json prints it."""

    predictions: list[PredictionDetails]
    next: str | None  # goes into --before


@app.command(name="list")
def list_(
    *,
    id: str = "",
    endpoint: str = "",
    limit: Limit = 20,
    before: str | None = None,
    since: str = "",
    until: str = "",
    label: str = "",
    arm: str = "",
    model: str = "",
    entity: str = "",
    where: str = "",
    flagged: bool | None = None,
    tried: bool | None = None,
    look_at: int = ROWS_LOOKED_AT,
) -> None:
    """
    List predictions, newest first.

    Parameters
    ----------
    id
        List only predictions whose id begins so.
    endpoint
        List only the predictions of this endpoint.
    limit
        Maximum number of predictions.
    before
        List only predictions older than this one, for the next page.
    since
        List only predictions since this time, such as 24h or 2026-11-30.
    until
        List only predictions before this time.
    label
        List only predictions with this label.
    arm
        List only predictions of this arm.
    model
        List only predictions by this version, such as income@3.
    entity
        List only predictions about this entity.
    where
        List only predictions for which this holds, such as "age > 60 and probability < 0.7".
    flagged
        List only predictions with flagged values, or leave them out.
    tried
        List only rows that somebody made up to see the answer, or leave them out.
    look_at
        Rows to look at before the command stops and says how far it came.
    """
    project = find_project()
    asked = {
        "id": id,
        "endpoint": endpoint,
        "since": since,
        "until": until,
        "label": label,
        "arm": arm,
        "model": model,
        "entity": entity,
        "where": where,
    }
    if flagged is not None:
        asked["flagged"] = "yes" if flagged else "no"
    if tried is not None:
        asked["tried"] = "yes" if tried else "no"
    wanted = read_prediction_filter(asked)
    page = search_predictions(project.log, wanted, limit=limit, before=before, look_at=look_at)
    found = PredictionList([prediction_details(item) for item in page.items], page.next)
    if endpoint and not page.items and page.next is None:
        require_endpoint(project, endpoint)
    emit(found, lambda found: show_page(found, page))


@app.command
def show(prediction: str, /) -> None:
    """
    Show one prediction: its row, its answer and where it was logged.

    Parameters
    ----------
    prediction
        Id of the prediction.
    """
    emit(read_prediction(find_project(), prediction), show_one)


@app.command
def compact() -> None:
    """Convert closed log segments to Parquet files for analysis."""
    from clewline.model.sealed_records import SealedRecords
    from clewline.serve.log.compact import compact as compact_log
    from clewline.serve.log.compact import parquet_files
    from clewline.serve.log.seals import seal_files
    from clewline.store.store import Store

    project = find_project()
    with Store.open(project.store_root, write=False) as store:
        files = SealedRecords(project, store.catalog).file_digests()
    sealed = {project.store_root / name: digest for name, digest in files.items()}
    done = compact_log(project.log, sealed)
    seal_files(project, done.files, again=True)
    for problem in done.unreadable:
        print_message(f"warning: {problem}")
    emit(done, lambda done: show_compacted(done, len(parquet_files(project.log)), str(project.log)))


def show_page(page: PredictionList, looked: FoundPredictions) -> None:
    """Print a page as a table."""
    if not page.predictions and page.next is None:
        print_message(
            "There are no predictions like that."
            if looked.looked_at
            else "There are no predictions yet."
        )
        return
    answers = [answer_text(msgspec.json.decode(item.answer)) for item in page.predictions]
    print_lines(
        f"{item.id}  {format_time_ms(item.time)}  {item.revision}  {item.model}  {answer}"
        for item, answer in zip(page.predictions, answers, strict=True)
    )
    if page.next is not None:
        print_message(
            f"Looked at {format_count(looked.looked_at, 'prediction')}, back to "
            f"{format_time_ms(looked.reached or 0)}. More: --before {page.next}"
        )


def show_one(item: PredictionDetails) -> None:
    """Print one prediction."""
    lines = [
        ("prediction", item.id),
        ("answered", format_time_ms(item.time)),
        ("revision", item.revision),
        ("model", f"{item.model}, package {_short(item.package)}"),
        ("arm", format_list(map(choice_text, item.choices))),
        ("about", item.entity),
        ("tried", "by a person, so no statistic counts it" if item.tried else ""),
        ("batch", f"row {item.batch_row + 1} of {item.batch_rows}, {path_text(item.path)}"),
        ("logged", f"{item.segment}, byte {item.offset}"),
        ("row", _json(item.input)),
        ("answer", _json(item.answer)),
    ]
    lines += [("shadow", shadow_text(*each)) for each in item.shadows.items()]
    print_lines(f"{name:<12}{value}" for name, value in lines if value)


def show_compacted(done: CompactionResult, files: int, log: str) -> None:
    """Print what a compaction did."""
    if not done.segments:
        print_lines(
            [
                f"No closed segment of {log} is left to compact. A segment closes when the "
                "next hour's predictions begin, when it is full, or when the server stops."
            ]
        )
        return
    segments = format_count(done.segments, "segment")
    predictions = format_count(done.predictions, "prediction")
    parquet = f"{format_count(files, 'file')} under {log}/parquet"
    print_lines([f"Compacted {segments} with {predictions}; {parquet}."])


def show_replay(replay: PredictionReplay) -> None:
    """Print what the replay of a prediction compared, and whether it came out equal."""
    place = f"row {replay.batch_row + 1} of a batch of {replay.batch_rows}"
    row = format_values(msgspec.json.decode(replay.input), FIELDS_SHOWN)
    lines = [
        f"prediction  {replay.id}",
        f"revision    {replay.revision}",
        f"model       {replay.model}, {replay.runtime}, package {_short(replay.package)}",
        f"row         {place}: {row}",
    ]
    width = max(len(one.what) for one in replay.compared)
    for one in replay.compared:
        mark = "equal" if one.equal else "DIFFERS"
        distance = f"  ({one.distance})" if one.distance else ""
        text = one.recorded
        if one.recorded != one.replayed:
            text = f"{one.recorded}  replayed {one.replayed}"
        elif len(text) > SHOWN:
            text = f"{text[:SHOWN]}… (whole with --json)"
        lines.append(f"  {mark:<8}{one.what:<{width}}  {text}{distance}")
    if replay.equal:
        lines.append("Equal, bit for bit.")
    else:
        lines.append("The replay differs from what was answered.")
        differences = replay.differences or ["none in the recorded libraries"]
        lines += [f"  environment: {difference}" for difference in differences]
    print_lines(lines)


def _short(packages: str) -> str:
    return "+".join(package[:12] for package in packages.split("+"))


def _json(raw: msgspec.Raw) -> str:
    return msgspec.json.encode(msgspec.json.decode(raw)).decode()
