"""The gate names each line that a version fails, with what was asked and found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import InvalidConfig
from clewline.evaluation.metrics import Interval
from clewline.model import gate
from clewline.model.gate import GateCandidate, GateLimit

FILE = """\
# What is asked.
other: {size_bytes: {max: 1}}
income:
  metrics:
    accuracy: {min: 0.9}
    log_loss: {max: 0.3}
  size_bytes: {max: 20_000_000}
  latency_ms: {max: 50}
  not_worse_than: champion
  better_than_baseline: true
"""
GOOD = GateCandidate(
    ref="income@2",
    figures={
        "metrics.accuracy": Interval(0.95, 0.93, 0.97),
        "metrics.log_loss": Interval(0.2, 0.1, 0.3),
    },
    headline="accuracy",
    size_bytes=1_000_000,
    latency_ms=3.0,
    beats_baseline=True,
    baseline="the rule always <=50K, accuracy 0.76 [0.75, 0.77]",
    gain=Interval(0.19, 0.17, 0.21),
    test="a" * 64,
)


def candidate(**changes: object) -> GateCandidate:
    import msgspec

    return msgspec.structs.replace(GOOD, **changes)


@pytest.fixture
def asked(tmp_path: Path) -> gate.Gate:
    return read(tmp_path, FILE)


def read(folder: Path, text: str) -> gate.Gate:
    (folder / "gate.yaml").write_text(text)
    found = gate.read_gate(folder / "gate.yaml", "income")
    assert found is not None
    return found


def failures(
    asked: gate.Gate, mine: GateCandidate, holder: GateCandidate | None = None
) -> list[str]:
    return [
        str(verdict) for verdict in gate.judge_version(asked, mine, holder) if not verdict.passed
    ]


def test_every_line_is_judged_with_its_number(asked: gate.Gate) -> None:
    verdicts = gate.judge_version(asked, GOOD, None)
    assert [(verdict.rule, verdict.line, verdict.passed) for verdict in verdicts] == [
        ("metrics.accuracy", 5, True),
        ("metrics.log_loss", 6, True),
        ("size_bytes", 7, True),
        ("latency_ms", 8, True),
        ("not_worse_than", 9, True),
        ("better_than_baseline", 10, True),
    ]


def test_a_refusal_names_the_line_with_value_and_bound(asked: gate.Gate) -> None:
    weak = candidate(
        figures={
            "metrics.accuracy": Interval(0.871, 0.85, 0.89),
            "metrics.log_loss": Interval(0.31, 0.3, 0.33),
        },
        size_bytes=30_000_000,
        latency_ms=60.25,
        beats_baseline=False,
        gain=Interval(-0.01, -0.02, 0.01),
    )
    assert failures(asked, weak, candidate(ref="income@1")) == [
        "gate.yaml:5: metrics.accuracy: at least 0.9; found 0.871 [0.85, 0.89]",
        "gate.yaml:6: metrics.log_loss: at most 0.3; found 0.31 [0.3, 0.33]",
        "gate.yaml:7: size_bytes: at most 20,000,000 bytes; found 30,000,000 bytes",
        "gate.yaml:8: latency_ms: at most 50 ms; found 60.25 ms (median of one row at a time)",
        "gate.yaml:9: not_worse_than: champion income@1, accuracy 0.95 [0.93, 0.97]; "
        "found 0.871 [0.85, 0.89]",
        "gate.yaml:10: better_than_baseline: the rule always <=50K, accuracy 0.76 [0.75, 0.77]; "
        "found accuracy 0.871 [0.85, 0.89], better by -0.01 [-0.02, 0.01]",
    ]


def test_a_metric_that_was_not_measured_does_not_pass(asked: gate.Gate) -> None:
    bare = candidate(figures={}, headline=None, beats_baseline=None, latency_ms=None)
    failed = failures(asked, bare, candidate(ref="income@1"))
    assert len(failed) == 5  # all but the size
    assert "not measured (nothing was)" in failed[0]


def test_nan_passes_no_line(asked: gate.Gate) -> None:
    nan = Interval(float("nan"), float("nan"), float("nan"))
    mine = candidate(figures={"metrics.accuracy": nan, "metrics.log_loss": nan})
    assert len(failures(asked, mine, candidate(ref="income@1"))) == 3


def test_a_difference_inside_the_champions_interval_may_be_chance(asked: gate.Gate) -> None:
    champion = candidate(ref="income@1")  # 0.95 [0.93, 0.97]
    inside = candidate(figures={**GOOD.figures, "metrics.accuracy": Interval(0.931, 0.91, 0.95)})
    below = candidate(figures={**GOOD.figures, "metrics.accuracy": Interval(0.929, 0.91, 0.95)})
    assert failures(asked, inside, champion) == []
    assert len(failures(asked, below, champion)) == 1


def test_a_verdict_names_other_test_rows(asked: gate.Gate) -> None:
    champion = candidate(ref="income@1", test="b" * 64)
    verdict = next(
        v for v in gate.judge_version(asked, GOOD, champion) if v.rule == "not_worse_than"
    )
    assert "measured on other rows" in verdict.found


@given(value=st.floats(0, 1), middle=st.floats(0, 1), wide=st.floats(0, 0.2))
def test_a_metric_that_is_better_when_smaller_is_compared_the_other_way(
    value: float, middle: float, wide: float
) -> None:
    """Turning the sign of all figures, and the direction with it, turns no answer."""
    mine, theirs = Interval(value, value, value), Interval(middle, middle - wide, middle + wide)
    turned = Interval(-theirs.value, -theirs.high, -theirs.low)
    assert gate.is_worse("accuracy", mine, theirs) == gate.is_worse(
        "rmse", Interval(-value, -value, -value), turned
    )


@given(value=st.floats(allow_nan=True), low=st.floats(-1, 0), high=st.floats(0, 1))
def test_a_bound_includes_its_ends(value: float, low: float, high: float) -> None:
    assert GateLimit(low, high).allows(low)
    assert GateLimit(low, high).allows(high)
    assert GateLimit(low, high).allows(value) == (low <= value <= high)


def test_a_model_that_the_file_does_not_name_is_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(FILE)
    assert gate.read_gate(tmp_path / "gate.yaml", "unnamed") is None
    assert gate.read_gate(tmp_path / "none.yaml", "income") is None
    (tmp_path / "gate.yaml").write_text("")
    assert gate.read_gate(tmp_path / "gate.yaml", "income") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("income:\n  latency: {max: 5}", "Did you mean 'latency_ms'"),
        ("income:\n  size_bytes: {most: 5}", "unknown field `most`"),
        ("income:\n  metrics: {accuracy: {min: high}}", "Expected `float"),
        ("income:\n  metrics:\n    accuracy: {}", "line 3: metrics.accuracy states no limit"),
        ("income: [", "not YAML"),
        ("just text", "names no model"),
        ("income: 5", "line 1"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)


SECTIONS = """\
income:
  value:
    gain: {min: 0}
  slices:
    women: {accuracy: {min: 0.8}}
    over 3.5 hours:
      recall: {min: 0.5}
  calibration:
    ece: {max: 0.05}
  fairness:
    sex: {selection_rate_ratio: {min: 0.8}}
"""
MEASURED = candidate(
    figures={
        **GOOD.figures,
        "value.gain": Interval(2.0, 1.0, 3.0),
        "slices.women.accuracy": Interval(0.81, 0.7, 0.9),
        "slices.over 3.5 hours.recall": Interval(0.6, 0.5, 0.7),
        "calibration.ece": Interval(0.04, 0.04, 0.04),
        "fairness.sex.selection_rate_ratio": Interval(0.85, 0.8, 0.9),
    }
)


def test_figures_of_every_section_are_judged(tmp_path: Path) -> None:
    asked = read(tmp_path, SECTIONS)
    verdicts = gate.judge_version(asked, MEASURED, None)
    assert [(verdict.rule, verdict.line, verdict.passed) for verdict in verdicts] == [
        ("value.gain", 3, True),
        ("calibration.ece", 9, True),
        ("slices.women.accuracy", 5, True),
        ("slices.over 3.5 hours.recall", 7, True),
        ("fairness.sex.selection_rate_ratio", 11, True),
    ]
    unfair = Interval(0.31, 0.28, 0.35)
    worse = candidate(figures={**MEASURED.figures, "fairness.sex.selection_rate_ratio": unfair})
    assert failures(asked, worse) == [
        "gate.yaml:11: fairness.sex.selection_rate_ratio: at least 0.8; found 0.31 [0.28, 0.35]"
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("slices: {wimen: {accuracy: {min: 0}}}", "women was). Did you mean 'women'"),
        ("slices: {women: {acuracy: {min: 0}}}", "(accuracy was). Did you mean 'accuracy'"),
        ("fairness: {sex: {precision_ratio: {min: 0}}}", "(selection_rate_ratio was)"),
        ("calibration: {ecee: {max: 1}}", "(ece was). Did you mean 'ece'"),
        ("metrics: {accurracy: {min: 0}}", "Did you mean 'accuracy'"),
    ],
)  # fmt: skip
def test_a_figure_that_was_not_measured_fails_and_the_nearest_is_named(
    tmp_path: Path, text: str, found: str
) -> None:
    [failure] = failures(read(tmp_path, f"income:\n  {text}\n"), MEASURED)
    assert "not measured" in failure
    assert found in failure


def test_a_section_that_the_evaluation_lacks_is_said(tmp_path: Path) -> None:
    [failure] = failures(read(tmp_path, "income:\n  value: {gain: {min: 0}}\n"), GOOD)
    assert failure.endswith("found not measured (the evaluation has no value)")


def test_a_limit_inside_a_section_that_states_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"line 3: slices.women.accuracy states no limit"):
        read(tmp_path, "income:\n  slices:\n    women: {accuracy: {}}\n")


def test_rules_for_a_name_that_no_model_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("other: {size_bytes: {max: 1}}\nincme: {size_bytes: {max: 1}}\n")
    with pytest.raises(InvalidConfig, match="line 2: no model has the name 'incme'") as raised:
        gate.read_gate(path, "income", ["income", "other"])
    assert raised.value.fix == "Did you mean 'income'?"
    assert gate.read_gate(path, "income", ["income", "other", "incme"]) is None
    with pytest.raises(InvalidConfig, match="no model has the name 'incme'"):
        gate.read_gate(path, "other", ["other"])
