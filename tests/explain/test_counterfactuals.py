"""Counterfactuals: the model answers each as wanted, and no limit is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from explained import ROWS, classified, find_changes, fitted, people, row_of, serve_two_rows
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression

from clewline.cli.explain import show
from clewline.cli.main import status
from clewline.errors import ClewlineError, InvalidInput
from clewline.explain.counterfactual_search import ChangeLimits, CounterfactualSearch
from clewline.explain.counterfactuals import (
    CounterfactualExplainer,
    CounterfactualExplanation,
    CounterfactualOptions,
    FieldChange,
)
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
from clewline.model.families.sample_file import TrainingSample
from clewline.model.runtime.outputs import FunctionPredictor, Outputs
from clewline.model_families import family_named
from clewline.project import Project
from clewline.serve.json_reader import JsonReader
from clewline.signature.accepted_limits import AcceptedFieldLimits, AcceptedLimits
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.signature.field_rules import value_in_kind

Served = tuple[Project, list[str]]


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Served:
    train = classified()
    model = fitted(RandomForestClassifier(9, random_state=0), train)
    return serve_two_rows(tmp_path_factory.mktemp("forest"), model, train)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Served:
    train = classified()
    model = fitted(LogisticRegression(max_iter=1000), train)
    return serve_two_rows(tmp_path_factory.mktemp("linear"), model, train)


def rows_of(project: Project, found: CounterfactualExplanation) -> list[dict[str, Any]]:
    assert found.prediction is not None
    original = row_of(project, found.prediction).values
    return [
        original | {change.field: change.changed for change in each.changes}
        for each in found.counterfactuals
    ]


def labels_of(project: Project, prediction: str, rows: list[dict[str, Any]]) -> list[Any]:
    """What the served model answers to rows as a caller would send them."""
    package = row_of(project, prediction).model.package
    assert package is not None
    reader = JsonReader(Checker(package.signature))
    read = reader.read(msgspec.json.encode({"rows": rows})).rows
    predictor = family_named(package.manifest.runtime).load(package.files, package.signature)
    answers = predictor.predict(reader.checker.columns(read).columns)
    predictor.close()
    assert answers.choices is not None
    assert package.signature.output.labels is not None
    return [package.signature.output.labels[place] for place in answers.choices.tolist()]


@pytest.mark.parametrize("kind", ["forest", "linear"])
def test_the_model_answers_each_as_wanted(kind: str, request: pytest.FixtureRequest) -> None:
    project, ids = request.getfixturevalue(kind)
    for identifier, wanted in zip(ids, ("yes", "no"), strict=True):
        found = find_changes(project, identifier, to=wanted)
        assert found.status == "found"
        assert [each.label for each in found.counterfactuals] == [wanted] * len(
            found.counterfactuals
        )
        rows = rows_of(project, found)
        assert labels_of(project, identifier, rows) == [wanted] * len(rows)
        distances = [each.distance for each in found.counterfactuals]
        assert distances == sorted(distances)
        sets = [tuple(change.field for change in each.changes) for each in found.counterfactuals]
        assert len(set(sets)) == len(sets)


def test_only_what_is_needed_changes(forest: Served) -> None:
    """The label depends on age alone, so one change is enough."""
    project, ids = forest
    nearest = find_changes(project, ids[0]).counterfactuals[0]
    assert [change.field for change in nearest.changes] == ["age"]
    assert nearest.changes[0].value == 25
    assert 43 < nearest.changes[0].changed < 55


def test_no_change_can_be_left_out(linear: Served) -> None:
    project, ids = linear
    found = find_changes(project, ids[0], to="yes")
    for each, row in zip(found.counterfactuals, rows_of(project, found), strict=True):
        for change in each.changes:
            without = row | {change.field: change.value}
            assert labels_of(project, ids[0], [without]) == ["no"], change


def test_the_answer_stays_within_the_stated_ends(forest: Served) -> None:
    project, ids = forest
    found = find_changes(project, ids[0], to="yes")
    for each, row in zip(found.counterfactuals, rows_of(project, found), strict=True):
        for change in each.changes:
            ends = [end for end in (change.above, change.at_most) if end is not None]
            assert ends, change
            inside = [row | {change.field: change.changed}]
            if change.at_most is not None:
                inside.append(row | {change.field: int(np.floor(change.at_most))})
            if change.above is not None:
                inside.append(row | {change.field: int(np.floor(change.above)) + 1})
            assert set(labels_of(project, ids[0], inside)) == {"yes"}


def test_kept_fields_never_change(forest: Served) -> None:
    project, ids = forest
    found = find_changes(project, ids[0], to="yes", keep=["age"])
    changed = {change.field for each in found.counterfactuals for change in each.changes}
    assert "age" not in changed


def test_one_way_fields_move_only_that_way(forest: Served) -> None:
    project, ids = forest
    up = find_changes(project, ids[0], to="yes", up=["age"])
    assert up.status == "found"
    down = find_changes(project, ids[0], to="yes", down=["age"])
    for found, sign in ((up, 1), (down, -1)):
        for each in found.counterfactuals:
            for change in each.changes:
                if change.field == "age":
                    assert sign * (change.changed - change.value) > 0


def test_ranges_hold(linear: Served) -> None:
    project, ids = linear
    ranges = {"age": (17.0, 60.0), "hours": (None, 50)}
    found = find_changes(project, ids[0], to="yes", ranges=ranges)
    for row in rows_of(project, found):
        assert row["age"] <= 60
        assert row["hours"] <= 50


def test_if_nothing_may_change_none_is_found(forest: Served) -> None:
    project, ids = forest
    found = find_changes(project, ids[0], to="yes", keep="age,hours,work")
    assert (found.status, found.counterfactuals) == ("none", [])


def test_no_more_than_the_count_are_given(forest: Served) -> None:
    project, ids = forest
    assert len(find_changes(project, ids[0], count=1).counterfactuals) == 1


def test_a_spent_budget_is_said(forest: Served) -> None:
    project, ids = forest
    found = find_changes(project, ids[0], to="yes", budget=10)
    assert found.status in ("found", "budget spent")
    assert found.model_rows <= 200 + 10 + len(found.counterfactuals)


def test_asked_again_it_gives_the_same_bytes(linear: Served) -> None:
    project, ids = linear
    found = [msgspec.json.encode(find_changes(project, ids[0])) for _ in range(2)]
    assert found[0] == found[1]


def test_a_value_is_moved_into_a_range(tmp_path: Path) -> None:
    train = people().with_columns(y=pl.col("age") * 3.0)
    model = fitted(RandomForestRegressor(5, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train)
    found = find_changes(project, ids[1], to="..150")
    assert found.status == "found"
    assert all(each.value is not None and each.value <= 150 for each in found.counterfactuals)
    with pytest.raises(InvalidInput, match="already"):
        find_changes(project, ids[1], to="150..")


def test_any_other_label_is_looked_for_by_default(tmp_path: Path) -> None:
    grade = pl.when(pl.col("age") > 60).then(pl.lit("old"))
    grade = grade.when(pl.col("age") > 40).then(pl.lit("mid")).otherwise(pl.lit("young"))
    train = people().with_columns(y=grade)
    model = fitted(GradientBoostingClassifier(n_estimators=10, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train)
    found = find_changes(project, ids[1])
    assert found.answer == "old"
    assert found.counterfactuals[0].label == "mid"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "maybe"}, "no label 'maybe'"),
        ({"to": "no"}, "already"),
        ({"keep": ["agee"]}, "no field 'agee'"),
        ({"up": ["work"]}, "'work' is no number"),
        ({"up": ["age"], "down": ["age"]}, "age is to grow only"),
        ({"budget": 0}, "budget"),
        ({"count": 0}, "count"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    forest: Served, options: dict[str, Any], message: str
) -> None:
    project, ids = forest
    with pytest.raises(InvalidInput, match=message):
        find_changes(project, ids[0], **options)


def test_the_command_prints_changes_and_refuses_misplaced_options(
    forest: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, ids = forest
    monkeypatch.chdir(project.root)
    call = ["explain", ids[0]]
    assert status([*call, "--kind", "counterfactuals", "--to", "yes", "--keep", "work,hours"]) == 0
    printed = capsys.readouterr().out
    assert "age  25 → " in printed
    assert "answered    no by m@1" in printed
    assert status([*call, "--kind", "counterfactuals", "--keep", "age,work,hours"]) == 0
    assert "None found" in capsys.readouterr().out
    assert status([*call, "--keep", "age"]) == 2
    assert "option of the kind counterfactuals" in capsys.readouterr().err


def test_null_may_become_a_value_and_back(tmp_path: Path) -> None:
    train = people().with_columns(
        age=pl.when(pl.col("age") % 5 == 0).then(None).otherwise(pl.col("age"))
    )
    train = train.with_columns(
        y=pl.when(pl.col("age").is_null()).then(pl.lit("none")).otherwise(pl.lit("some"))
    )
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = fitted(HistGradientBoostingClassifier(max_iter=20, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train)
    found = find_changes(project, ids[0], to="none")
    assert found.counterfactuals[0].changes[0].changed is None


def test_a_text_becomes_another_level(tmp_path: Path) -> None:
    train = people().with_columns(y=pl.col("work"))
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train)
    change = find_changes(project, ids[0], to="state").counterfactuals[0].changes[0]
    assert (change.field, change.value, change.changed) == ("work", "own", "state")


def test_a_boolean_stays_a_boolean(tmp_path: Path) -> None:
    train = people().with_columns(member=pl.col("age") % 2 == 0)
    train = train.with_columns(
        y=pl.when(pl.col("member")).then(pl.lit("in")).otherwise(pl.lit("out"))
    )
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train, extra={"member": False})
    change = find_changes(project, ids[0], to="in").counterfactuals[0].changes[0]
    assert (change.field, change.changed) == ("member", True)
    row, search = search_of(project, ids[0])
    found = search.find(row, lambda found: np.equal(found.choices, 0), limits=ChangeLimits())
    place = [field.name for field in row_of(project, ids[0]).signature.numeric]
    assert found.rows.numbers[:, place.index("member")].tolist() == [1.0] * len(found.rows)


def value_of(rows: Columns, signature: Signature, name: str, row: int) -> Any:
    numeric = [field.name for field in signature.numeric]
    if name in numeric:
        field = signature.numeric[numeric.index(name)]
        return value_in_kind(field, float(rows.numbers[row, numeric.index(name)]))
    return rows.texts[row, [field.name for field in signature.textual].index(name)]


def search_of(project: Project, prediction: str) -> tuple[Columns, CounterfactualSearch]:
    model = row_of(project, prediction).model
    assert model.boxes is not None
    search = CounterfactualSearch(model.predict, model.background, model.signature, model.boxes)
    return row_of(project, prediction).columns, search


def test_constraints_hold_over_many_random_limits(forest: Served) -> None:

    project, ids = forest
    row = row_of(project, ids[0])
    _, search = search_of(project, ids[0])
    random = np.random.default_rng(3)

    def wanted(answers: Outputs) -> Any:
        return np.equal(answers.choices, 1)

    fields = [field.name for field in row.signature.fields]
    for _ in range(200):
        keep = frozenset(name for name in fields if random.random() < 0.3)
        low, span = random.uniform(17, 60), random.uniform(1, 40)
        limits = ChangeLimits(keep, {"hours": "up"}, {"age": (low, low + span)})
        found = search.find(row.columns, wanted, limits=limits)
        for at, changed in enumerate(found.changed):
            names = {name for name, moved in zip(fields, changed, strict=True) if moved}
            age, hours = found.rows.numbers[at]
            assert not names & keep
            assert "age" not in names or low <= age <= low + span
            assert "hours" not in names or hours > ROWS[0]["hours"]
            assert (found.rows.texts[at, 0] != row.columns.texts[0, 0]) == ("work" in names)
        sent = [
            {name: value_of(found.rows, row.signature, name, at) for name in fields}
            for at in range(len(found.rows))
        ]
        assert not sent or set(labels_of(project, ids[0], sent)) == {"yes"}


def changes_of(found: CounterfactualExplanation) -> list[dict[str, Any]]:
    return [{each.field: each.changed for each in one.changes} for one in found.counterfactuals]


def test_what_a_person_cannot_change_stands_in_the_signatures_and_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The label is age's and work's; a revision pins what may change, whatever is asked for."""
    train = classified()
    label = pl.when((pl.col("age") > 45) | (pl.col("work") == "state"))
    train = train.with_columns(y=label.then(pl.lit("yes")).otherwise(pl.lit("no")))
    model = fitted(RandomForestClassifier(15, random_state=0), train)
    kept = "fields: {work: {mutable: false}, age: {mutable: up, bounds: [0, 80]}}"
    project, ids = serve_two_rows(tmp_path, model, train, accepted=kept)
    found = find_changes(project, ids[0], to="yes", count=9)
    assert found.accepted["work"] == AcceptedFieldLimits(mutable=False)
    assert found.counterfactuals
    for changed in changes_of(found):
        assert "work" not in changed
        assert 25 < changed["age"] <= 80
    assert find_changes(project, ids[0], to="yes", down=["age"]).status == "none"
    call = ["--project", str(project.root), "explain", ids[0], "--kind", "counterfactuals"]
    assert status(call) == 0
    assert "Not to change, by the endpoint's signatures: work." in capsys.readouterr().out


def test_a_field_that_depends_on_others_occurs_with_them_in_a_training_row(tmp_path: Path) -> None:
    train = classified().with_columns(y=pl.when(pl.col("hours") > 30).then(1).otherwise(0))
    model = fitted(RandomForestClassifier(15, random_state=0), train)
    accepted = "fields: {hours: {depends_on: [work]}}"
    project, ids = serve_two_rows(tmp_path, model, train, accepted=accepted)
    free = find_changes(project, ids[0], to="0", count=9)
    assert free.counterfactuals
    known = set(train.select("hours", "work").iter_rows())
    for row in rows_of(project, free):
        assert (row["hours"], row["work"]) in known


SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer"),
        Field(name="hours", kind="number"),
        Field(name="work", kind="category", nullable=True),
    ),
    output=Output(name="rich", task="binary", labels=("no", "yes")),
)
PEOPLE = Columns(
    np.stack([np.arange(300) % 63 + 17.0, np.random.default_rng(1).uniform(1, 80, 300)], axis=1),
    np.array([["own"], ["state"], [None], ["self"]] * 75, dtype=object),
)


def explained(wanted: Callable[[Columns], Any], **accepted: AcceptedFieldLimits) -> Any:
    """Ask for counterfactuals of one row of a model that answers by a formula."""

    def answer(rows: Columns) -> Outputs:
        return Outputs(choices=np.asarray(wanted(rows)).astype(np.int64))

    def sample() -> TrainingSample:
        return TrainingSample(PEOPLE, truth=None, answers=None, of_rows=len(PEOPLE))

    row = ExplainedRow(
        model=ExplainedModel("m@1", SIGNATURE, lambda: FunctionPredictor(answer), sample),
        columns=Columns(np.array([[30.0, 40.0]]), np.array([["state"]], dtype=object)),
        values={"age": 30, "hours": 40.0, "work": "state"},
        answer={"label": "no"},
        seed=7,
        accepted=AcceptedLimits(accepted),
    )
    return CounterfactualExplainer().explain(row, CounterfactualOptions(count=9))


def test_accepted_levels_and_bounds_hold_for_changed_values() -> None:
    for level in ("own", "self"):
        levels = AcceptedFieldLimits(levels=(level, "state"))
        found = explained(lambda rows: rows.texts[:, 0] != "state", work=levels)
        assert {each["work"] for each in changes_of(found)} == {level}
        assert found.accepted == {"work": levels}
    bounds = AcceptedFieldLimits(bounds=(18, 50))
    found = explained(lambda rows: rows.numbers[:, 0] > 45, age=bounds)
    assert found.counterfactuals
    assert all(45 < each["age"] <= 50 for each in changes_of(found))


def test_dependent_numbers_are_those_of_one_training_row_to_the_last_digit() -> None:
    known = set(map(tuple, PEOPLE.numbers.tolist()))
    depends = AcceptedFieldLimits(depends_on=("age",))
    free = explained(lambda rows: rows.numbers[:, 1] > 60)
    found = explained(lambda rows: rows.numbers[:, 1] > 60, hours=depends)
    for each, is_known in ((free, False), (found, True)):
        pairs = [({"age": 30.0, "hours": 40.0} | changed) for changed in changes_of(each)]
        assert pairs
        assert all(((pair["age"], pair["hours"]) in known) is is_known for pair in pairs)


def test_what_was_accepted_for_fields_of_other_arms_is_left_out() -> None:
    work = AcceptedFieldLimits(depends_on=("visits", "age"))
    other = AcceptedFieldLimits(mutable=False, depends_on=("work",))
    found = explained(lambda rows: rows.texts[:, 0] != "state", work=work, visits=other)
    assert found.accepted == {"work": AcceptedFieldLimits(depends_on=("age",))}


def test_options_add_to_what_was_accepted_and_take_nothing_away() -> None:
    accepted = AcceptedLimits(
        {
            "age": AcceptedFieldLimits(mutable="up", bounds=(18, 65)),
            "hours": AcceptedFieldLimits(mutable="up"),
            "work": AcceptedFieldLimits(levels=("own",), depends_on=("age",)),
        }
    )
    options = CounterfactualOptions(down=frozenset({"hours"}), ranges={"age": (20, None)})
    assert options.limits(SIGNATURE, accepted) == ChangeLimits(
        keep=frozenset({"hours"}),  # it may only grow and only shrink
        one_way={"age": "up", "hours": "down"},
        ranges={"age": (20.0, 65.0)},
        levels={"work": frozenset({"own"})},
        together=(frozenset({"age", "work"}),),
    )


def test_the_ends_of_an_integer_are_printed_as_integers(capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(lambda rows: rows.numbers[:, 0] > 45)
    for ends, said in (
        ((45.5, 60.25), "(the same answer from 46 up to 60)"),
        ((45.5, 46.5), "(the same answer at 46 only)"),
        ((45.5, None), "(the same answer from 46)"),
        ((None, 60.0), "(the same answer up to 60)"),
    ):
        change = FieldChange(field="age", value=30, changed=46, above=ends[0], at_most=ends[1])
        one = msgspec.structs.replace(found.counterfactuals[0], changes=[change])
        show(msgspec.structs.replace(found, counterfactuals=[one]))
        assert f"30 → 46  {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{work: {mutable: up}}", "'work' is a category, so it cannot go up"),
        ("{work: {depends_on: [agee]}}", "'work' cannot depend on 'agee'.*age"),
        ("{work: {depends_on: [work]}}", "'work' cannot depend on 'work'"),
        ("{work: {mutable: sideways}}", "mutable"),
    ],
)
def test_what_cannot_be_accepted_is_refused_when_it_is_applied(
    text: str, said: str, tmp_path: Path
) -> None:
    train = classified()
    model = fitted(LogisticRegression(max_iter=1000), train)
    with pytest.raises(ClewlineError, match=said):
        serve_two_rows(tmp_path, model, train, accepted=f"fields: {text}")
