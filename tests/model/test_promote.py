"""An alias moves past the gate alone, or with a reason that the chain keeps."""

from __future__ import annotations

import os
from typing import Any

import pytest

from clewline.errors import GateRefused, IntegrityError, UsageError
from clewline.model.package import PackageMetadata
from clewline.model.promote import promote
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.model.verify import verify
from clewline.store.records import ChainEntry
from clewline.store.store import Store

from .conftest import add, fork, report

GATE = """\
income:
  metrics:
    accuracy: {min: 0.8}
  not_worse_than: champion
"""
GOOD = report(accuracy=(0.90, 0.88, 0.92))
WORSE = report(accuracy=(0.85, 0.83, 0.87))
BAD = report(accuracy=(0.70, 0.68, 0.72))


@pytest.fixture
def gated(registry: Registry) -> Registry:
    registry.project.gate.write_text(GATE)
    for content, told in ((b"good", GOOD), (b"worse", WORSE), (b"bad", BAD)):
        add(registry, content, report=told)
    return registry


def links(registry: Registry) -> list[dict[str, Any]]:
    found = registry.store.catalog.find(ChainEntry, order="seq")
    return [link.body for link in found if link.kind == "promoted"]


def test_a_version_that_passes_takes_the_alias(gated: Registry) -> None:
    done = promote(gated, "income@1", "champion")
    assert (done.model, done.before, done.moved, done.forced) == ("income@1", None, True, None)
    assert gated.get("income@champion").number == 1
    assert [verdict["rule"] for verdict in links(gated)[0]["verdicts"]] == [
        "metrics.accuracy",
        "not_worse_than",
    ]


def test_a_name_without_a_number_moves_no_alias(gated: Registry) -> None:
    with pytest.raises(UsageError, match="names a model and no version") as raised:
        promote(gated, "income", "champion")
    assert "income@3" in str(raised.value.fix)
    assert not gated.aliases()


def test_a_refused_version_changes_nothing(gated: Registry) -> None:
    promote(gated, "income@1", "champion")
    with pytest.raises(GateRefused) as caught:
        promote(gated, "income@2", "champion")
    assert str(caught.value).startswith(
        "income@2 may not be champion: gate.yaml:4: not_worse_than: champion income@1, accuracy "
        "0.9 [0.88, 0.92]; found 0.85 [0.83, 0.87]"
    )
    assert [verdict.passed for verdict in caught.value.verdicts] == [True, False]
    assert gated.get("income@champion").number == 1
    assert len(links(gated)) == 1


def test_a_reason_overrules_the_gate_and_is_in_the_chain(gated: Registry) -> None:
    done = promote(gated, "income@3", "champion", force="the others leak the target")
    assert done.forced == "the others leak the target"
    (body,) = links(gated)
    assert body["forced"] == "the others leak the target"
    assert body["by"]
    assert [verdict["passed"] for verdict in body["verdicts"]] == [False, True]
    assert verify(gated).sound


def test_a_damaged_champion_is_replaced_with_a_reason(gated: Registry) -> None:
    promote(gated, "income@1", "champion")
    path = gated.folder(gated.get("income@1")) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"worn")
    with pytest.raises(GateRefused, match=r"not compared: .*model\.onnx changed"):
        promote(gated, "income@2", "champion")
    assert promote(gated, "income@2", "champion", force="income@1 is damaged").moved


def test_a_reason_that_was_not_needed_is_not_recorded(gated: Registry) -> None:
    assert promote(gated, "income@1", "champion", force="to be sure").forced is None


def test_an_empty_reason_is_none(gated: Registry) -> None:
    with pytest.raises(UsageError, match="empty"):
        promote(gated, "income@3", "champion", force=" ")


def test_promoting_the_holder_again_moves_nothing(gated: Registry) -> None:
    promote(gated, "income@1", "champion")
    assert not promote(gated, "income@1", "champion").moved
    assert len(links(gated)) == 1


def test_promotions_at_the_same_time_each_leave_their_link(registry: Registry) -> None:
    project = registry.project
    for number in range(1, 4):
        add(registry, b"%d" % number)

    def promote_some(own: int) -> None:
        with Store.open(project.store_root) as store:
            for round_ in range(4):
                number = (own + round_) % 3 + 1
                promote(Registry(project, store), f"income@{number}", "champion")

    pids = [fork(lambda own=own: promote_some(own)) for own in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    told = links(registry)
    assert verify(registry).sound
    # Each began where the one before it ended.
    assert [body["before"] for body in told] == [None, *(body["model"] for body in told[:-1])]


def test_without_a_gate_nothing_is_asked_but_the_seal(registry: Registry) -> None:
    version = add(registry, b"a")
    assert promote(registry, "income@1", "candidate").verdicts is None
    path = registry.folder(version) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"b")
    with pytest.raises(IntegrityError):
        promote(registry, "income@1", "champion")


@pytest.mark.parametrize("alias", ["", "3", "3rd", "a@b", "a/b", "a b"])
def test_an_alias_that_is_no_name_is_refused(registry: Registry, alias: str) -> None:
    add(registry, b"a")
    with pytest.raises(UsageError, match="cannot be an alias"):
        promote(registry, "income@1", alias)


def test_the_latency_is_measured_on_background_rows(registry: Registry) -> None:
    import polars as pl
    from sklearn.tree import DecisionTreeClassifier

    table = pl.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "y": ["no", "no", "yes", "yes"]})
    model = DecisionTreeClassifier().fit(table.drop("y"), table["y"])
    made = convert_model(model, train=table, test=None, target="y")
    about = PackageMetadata(
        name="income", number=0, runtime=made.compiled.runtime, task="binary", target="y", created=0
    )
    registry.add(made.files, about)
    registry.project.gate.write_text("income: {latency_ms: {max: 10_000}}")
    (verdict,) = promote(registry, "income@1", "champion").verdicts or ()
    assert verdict.passed
    assert verdict.found.endswith("(median of one row at a time)")
    registry.project.gate.write_text("income: {latency_ms: {max: 0}}")
    with pytest.raises(GateRefused, match=r"gate\.yaml:1: latency_ms: at most 0 ms; found"):
        promote(registry, "income@1", "other")
