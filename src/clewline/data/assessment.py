"""The result of `cl.assess`."""

from __future__ import annotations

from typing import Literal

import msgspec

from clewline.data.associations import Associations
from clewline.data.discriminator import Discrimination
from clewline.data.duplicates import Duplicates, TableOverlap
from clewline.data.field_power import FieldPower
from clewline.data.findings import DataFinding
from clewline.data.table_summary import FieldHistogram, FieldSummary, LevelRows, MissingPattern


class TargetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be predicted."""

    name: str
    task: Literal["classification", "regression"]
    nulls: int
    distinct: int
    labels: list[LevelRows] = []  # of a classification, the most frequent first, up to 50
    histogram: FieldHistogram | None = None  # of a regression
    row_order: FieldPower | None = None  # how well the place in the table tells the target


class GroupRate(msgspec.Struct, frozen=True, kw_only=True):
    """A group of a protected field, and how often its rows have the positive label."""

    group: str
    rows: int
    rate: float | None = None  # or of a regression the mean of the target
    low: float | None = None  # 95 % interval
    high: float | None = None


class ProtectedGroups(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of a protected field, and how well the other fields tell them."""

    field: str
    positive: str | None  # the label that the rates are of; None: means, or no target
    groups: list[GroupRate]
    from_others: Discrimination | None  # without the target; None: too few rows


class FieldShift(msgspec.Struct, frozen=True, kw_only=True):
    """How much one field differs between two tables."""

    field: str
    distance: float  # 0 to 1: largest difference of the distributions, or of levels half the sum
    before: str  # what changed the most: "mean 38.6", "Private 70 %"
    after: str
    unseen_rows: int = 0  # rows of the second table with a level that the first does not have
    unseen: list[str] = []


class TableComparison(msgspec.Struct, frozen=True, kw_only=True):
    """How a second table differs from the assessed one."""

    rows: int
    missing_fields: list[str] = []  # that the second table lacks
    new_fields: list[str] = []
    apart: Discrimination | None  # how well rows of the two can be told apart
    shifts: list[FieldShift]  # the largest first


class TimeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Whether test rows are later than training rows, by one date-time field."""

    field: str
    earlier_share: float  # of the test rows, those before the newest training row


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """What a table holds, and what in it may harm a model that is trained on it."""

    rows: int
    fields: list[FieldSummary]
    target: TargetSummary | None = None
    missing: list[MissingPattern] = []
    duplicates: Duplicates
    overlap: TableOverlap | None = None  # with the test table
    times: list[TimeOrder] = []
    associations: Associations | None = None
    protected: list[ProtectedGroups] = []
    against: TableComparison | None = None
    findings: list[DataFinding]
    sampled_rows: int  # rows that powers, associations and models use
    seed: int

    def __str__(self) -> str:
        from clewline.data.finding_text import describe_finding

        found = [describe_finding(each) for each in self.findings]
        lines = [f"{self.rows:,} rows, {len(self.fields):,} fields, {len(found)} findings"]
        lines += [f"- {text.what} {text.advice}" for text in found]
        return "\n".join(lines)
