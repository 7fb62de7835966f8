"""What newly collected rows say of a program in use, as a record. Knows no screen."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from optimize.climb.holding import ALARM, Watch
from optimize.report.record import InUseRecord
from optimize.scoring.calibration import RangeRecord
from optimize.stats.records import Record, ScoreRecord

Kind = Literal["inputs", "unknown words", "answers", "confidence"]


class DriftTest(Record):
    """One test of whether new rows are of the kind that the record's are. before, after: what it
    compares, where that is a number.
    """

    kind: Kind
    n: int = Field(description="new rows it stands on")
    before: float | None = None
    after: float | None = None
    p: float
    p_all: float = Field(description="allowing for all tests made (Holm)")

    @property
    def drifted(self) -> bool:
        return self.p_all <= ALARM


class LabelChange(Record):
    """The score on the rows of one gold label. change: its interval allows for all labels."""

    label: str
    n_before: int
    n: int
    before: float
    after: float
    change: RangeRecord


class MonitorRecord(InUseRecord):
    """What `optimize monitor` has found: what its `--json` prints and `monitor.json` holds."""

    task: str
    run: str = Field(description="that made the program")
    lm: str
    target: float
    reached: bool = Field(description="the program was at the target on record")
    tuned: bool
    verdict: Watch
    rows: int = Field(description="new ones, labelled or not")
    labelled: int
    known: int = Field(0, description="left out: the devset has them already")
    asked: int = Field(0, description="new rows that the LM was asked")
    failed: int = Field(0, description="of these, those whose call failed")
    before: ScoreRecord = Field(description="on record, on the test rows")
    score: ScoreRecord | None = Field(None, description="on new labelled rows; null: too few")
    change: RangeRecord | None = Field(None, description="score less the record: other rows")
    chance: float | None = Field(None, description="that it is at the target on such rows")
    worse: bool = Field(False, description="surely, than the record")
    missed: bool = Field(False, description="the target that was reached surely is no more")
    drop_shown: float | None = Field(None, description="that so many rows show in 4 of 5 cases")
    by_label: list[LabelChange] = []  # noqa: RUF012 (frozen)
    tests: list[DriftTest]
    auc_shown: float | None = Field(
        None,
        description="AUC of inputs that so many rows show in 4 of 5 cases; null: not tested, since "
        "the devset's rows came again",
    )
    words: list[str] = Field([], description="commonest words of new rows that no known row has")
    shares: dict[str, tuple[float, float]] = Field(
        {}, description="share of each label among the answers, on record and now"
    )
    to_label: list[str] = Field([], description="places of the rows to label: a random sample")
    retires: date | None = None
    climb: str = Field("", description="command that climbs again")
    lm_calls: int
    cost_usd: float | None
    seconds: float

    @property
    def outcome(self) -> str:
        return self.verdict

    @property
    def drifted(self) -> list[DriftTest]:
        return [test for test in self.tests if test.drifted]
