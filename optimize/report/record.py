"""The record of one run. Knows no LM, no MLflow and no screen."""

from __future__ import annotations

from datetime import date
from statistics import variance
from typing import Any, Literal

from pydantic import Field

from optimize.climb.observer import Attempt
from optimize.climb.preflight import DIFFER, Preflight
from optimize.climb.verdict import WEIGHTS, Decision, Family, History, Verdict, contenders
from optimize.finetune.accept import DecisionRecord
from optimize.finetune.effects import EffectsRecord
from optimize.finetune.epoch import Epoch
from optimize.finetune.forgetting import ForgettingRecord
from optimize.finetune.gate import GateRecord
from optimize.finetune.lora.recipe import GridRecord
from optimize.finetune.steps import TraceCount
from optimize.lm.usage import Usage
from optimize.scoring.evaluation import Evaluation
from optimize.scoring.failures import Diagnosis
from optimize.stats.intervals import Interval, differences, smallest_gain
from optimize.stats.judge import Confusion, errors, of_people
from optimize.stats.records import GainRecord, Record, ScoreRecord


def score_record(evaluation: Evaluation) -> ScoreRecord:
    told = evaluation.coverage, evaluation.noise, evaluation.unread
    return ScoreRecord.of(evaluation.score, *told)


class UsageRecord(Record):
    """What LMs were asked in one role."""

    calls: int = Field(description="sent, retries too")
    cached: int = Field(description="answered from the answer cache")
    failed: int = Field(description="of the calls sent, those that brought no answer")
    too_long: int = Field(0, description="of these, those that held more than the LM reads")
    tokens_in: int
    tokens_cached: int = Field(description="of tokens_in, read before by the provider")
    tokens_written: int = Field(description="of tokens_in, noted by the provider to read again")
    tokens_out: int
    cost_usd: float | None = Field(description="null: some price is not known")

    @classmethod
    def of(cls, usage: Usage) -> UsageRecord:
        found = {name: getattr(usage, name) for name in cls.model_fields}
        return cls(**found)


class AttemptRecord(Record):
    rung: str
    family: Family
    val: ScoreRecord | None = None
    gain: GainRecord | None = Field(None, description="over the incumbent of its time, on val")
    promoted: bool = False
    beyond: int = Field(0, description="judging rows beyond val that it was asked on as well")
    missing: int = Field(0, description="val rows whose call failed; they are not zeros")
    format: str | None = None
    nearest: int = Field(0, description="demos that are looked up for each input")
    lm_calls: int = Field(
        0, description="calls sent; those answered from the cache are not among them"
    )
    cached_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = Field(None, description="null: the LM's price is not known")
    seconds: float = 0.0
    skipped: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptRecord:
        usage, found = attempt.usage, attempt.evaluation
        near = attempt.program.neighbours if attempt.program else None
        return cls(
            rung=attempt.rung,
            family=attempt.family,
            val=score_record(attempt.evaluation) if attempt.evaluation else None,
            gain=GainRecord.of(attempt.change) if attempt.change else None,
            promoted=attempt.promoted,
            beyond=len(attempt.beyond.outcomes),
            missing=found.missing - found.unread if found else 0,
            format=attempt.program.format if attempt.program else None,
            nearest=near.k if near else 0,
            lm_calls=usage.calls,
            cached_calls=usage.cached,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost_usd=usage.cost_usd,
            seconds=round(attempt.seconds, 2),
            skipped=attempt.skipped or None,
            error=attempt.error or None,
        )


class VerdictRecord(Record):
    """The numbers the verdict hangs on; docs/verdict.md says how."""

    rung: str = Field(description="the rung that made the best prompt program")
    best: ScoreRecord = Field(
        description="the best prompt program on the judging rows (val, and train rows that no "
        "program of the climb has seen), corrected for having been chosen"
    )
    correction: float = Field(description="for selection, already in `best`; never above 0")
    chosen_from: int
    reached: float = Field(description="probability that the best program is at the target")
    chance: float = Field(
        description="the highest such probability of any program that may as well be the best"
    )
    close: list[str] = Field(
        default=[], description="rungs of the other programs that may as well be the best one"
    )
    same: float = Field(description="share of the best program's answers equal to the commonest")
    constant: float = Field(description="val score of the best constant answer; -1: not known")
    climbs: int = Field(
        default=1, description="climbs that these val rows have judged, this one included"
    )
    on_test: float | None = Field(
        default=None,
        description="probability, by the test rows alone, that the best program is at target",
    )
    test_reads: int = Field(
        default=1, description="programs that these test rows have judged, this one included"
    )
    rungs_left: int = Field(description="rungs that could still be tried")
    untried: list[str] = Field(
        default=[],
        description="levers that failed or were skipped, though they might have done something",
    )
    left: list[str] = Field(default=[], description="those that had too few calls, or none")
    left_out: list[str] = Field(default=[], description="levers that were not to be tried")
    lacking: str = Field("", description="levers that could not be tried, if that is what is wrong")
    rung_calls: int = Field(description="LM calls that one more rung would likely take")
    rows_needed: int | None = Field(
        description="judging rows that would tell, where rows are what is lacking"
    )
    test_rows_needed: int | None = Field(
        default=None,
        description="test rows that would tell, where they do not bear out what val says; 0: no "
        "number is likely to; null: not known",
    )
    smallest_gain: float = Field(
        description="over the baseline, that these val rows show with 80 % probability"
    )

    @classmethod
    def of(cls, decision: Decision, history: History, **said: Any) -> VerdictRecord:
        """said: untried, left, left_out, climbs, and what test rows say, where they are known."""
        first, *others = contenders(history.tried, history.val)
        best = history.tried[first]
        found = differences(history.tried[0].scores, best.scores)
        moved = variance(found) if len(found) > 1 and best is not history.tried[0] else DIFFER
        return cls(
            best=ScoreRecord.of(decision.best.interval, best.coverage, unread=best.unread),
            rung=best.rung,
            rungs_left=history.rungs_left,
            lacking=decision.lacking,
            correction=-decision.best.optimism,
            chosen_from=decision.best.k,
            reached=decision.reached,
            chance=decision.chance,
            # one that scores the same on every row is the same program, found once more
            close=[
                tried.rung
                for tried in (history.tried[n] for n in others)
                if tried.scores[: history.val] != best.scores[: history.val]
            ],
            same=best.same,
            constant=history.constant,
            rung_calls=history.rung_calls,
            rows_needed=decision.rows,
            smallest_gain=of_people(
                smallest_gain(len(found), max(moved, 1 / len(found))), history.judge
            ),
            **said,
        )


class HeadroomRecord(Record):
    """Scores on val that prompting may bring out at best: the best of several answers, the teacher
    with the same prompt.
    """

    answers: int
    best: ScoreRecord
    teacher: ScoreRecord | None

    @property
    def ceilings(self) -> list[float]:
        """The upper ends of their intervals."""
        return [score.high for score in (self.best, self.teacher) if score]


class JudgeRecord(Record):
    """An LM judge in place of a metric: how far people agree with it, on answers that its program
    has not learnt from. Scores and gains of the report are corrected for its errors, but
    for those of slices and of unusual rows, calibration and prices, which are as it gave them.
    """

    judge: str = Field(description="its task, which program of it, and its LM")
    confusion: Confusion = Field(description="answers, by people's verdict and the judge's")
    agreement: ScoreRecord = Field(description="share of equal verdicts")
    kappa: ScoreRecord = Field(description="Cohen's: 1 perfect, 0 chance")
    sensitivity: ScoreRecord = Field(description="of answers that people pass, those it passes")
    specificity: ScoreRecord = Field(description="of answers that people fail, those it fails")
    youden: ScoreRecord = Field(description="sensitivity + specificity - 1")
    error: float = Field(
        description="the part of the best program's standard error that is the judge's: only more "
        "answers judged by people lessen it"
    )
    raw: dict[str, ScoreRecord] = Field(
        {}, description="scores on test as the judge gave them, named as in `test`"
    )

    @classmethod
    def of(cls, judge: str, found: Confusion, best: Interval) -> JudgeRecord:
        """best: the best program's score as the judge gave it."""
        names = ("agreement", "kappa", "sensitivity", "specificity", "youden")
        scores: dict[str, Any] = {name: ScoreRecord.of(getattr(found, name)) for name in names}
        return cls(judge=judge, confusion=found, error=errors(best, found)[1], **scores)


class TrainingRowsRecord(Record):
    """How many rows an LM was tuned on: of the task, and general ones against forgetting."""

    task: int
    replayed: int


class TestRecord(Record):
    """Scores on the held-out test rows, read once.

    The tuned ones are null unless an LM was fine-tuned.
    """

    __test__ = False  # not a pytest class

    zero_shot: ScoreRecord
    prompt: ScoreRecord
    over_baseline: GainRecord | None = Field(
        None, description="the best prompt program over the best of `baselines`; null: not known"
    )
    tuned: ScoreRecord | None = Field(
        None,
        description="the tuned LM with the prompt that was the best one on val: short, best, or "
        "what levers made of the better of these",
    )
    tuned_other: ScoreRecord | None = Field(
        None, description="the tuned LM with the prompt that was the second best on val"
    )
    prompt_gain: GainRecord = Field(description="best prompt program over the baseline")
    tuned_gain: GainRecord | None = Field(None, description="tuned over the best prompt program")
    levers_gain: GainRecord | None = Field(
        None,
        description="levers on the tuned LM over its program before; null where they made none",
    )
    baselines: dict[str, ScoreRecord] = Field(
        description="scores without an LM, where the output is a label"
    )


class ClimbRecord(Record):
    """A climb: all that is known before the gate."""

    task: str
    verdict: Verdict
    reason: str
    target: float
    numbers: VerdictRecord
    preflight: Preflight
    diagnosis: Diagnosis = Field(description="of the best prompt program's failures on val")
    headroom: HeadroomRecord | None = Field(None, description="null unless --headroom")
    judge: JudgeRecord | None = Field(None, description="null where a metric scores answers")
    levers: list[str] = Field(description="rungs that made the best prompt program, in order")
    attempts: list[AttemptRecord]
    traces: TraceCount | None = Field(
        default=None,
        description="rows that teach the steps which the rows do not label; null where there are "
        "none or the gate was closed before they were counted",
    )
    lm: str
    teacher: str
    seed: int
    rows: dict[str, int]
    data_hash: str
    knobs: dict[str, Any] = Field(
        {}, description="of the run, as far as they differ from their defaults; never the key"
    )
    cap: str = Field(
        "", description="the knob of the cap that allowed the fewest calls more in the end"
    )


class Report(ClimbRecord):
    """One run, complete: what `--json` prints and `report.json` holds."""

    version: Literal[7] = 7
    target_met: bool
    test: TestRecord
    gate: GateRecord
    decision: DecisionRecord | None = Field(
        None, description="on the tuned LM; null if none was trained"
    )
    effects: EffectsRecord | None = Field(None, description="of the tuning, beside the score")
    training: list[Epoch] = Field([], description="of the tuned LM")
    training_rows: TrainingRowsRecord | None = None
    grid: GridRecord | None = Field(
        None, description="trainings that the tuned LM was chosen from; null: there was one"
    )
    levers_on_tuned: list[AttemptRecord] = Field(
        [],
        description="levers of the climb on the tuned LM, each over the best one so far, on val",
    )
    forgetting: list[ForgettingRecord] = Field(
        [], description="general questions, and each task that must not get worse"
    )
    lm_calls: int
    cost_usd: float | None
    roles: dict[str, UsageRecord] = Field(
        {}, description="calls by what the LM was asked for: task, teacher, judge (by the metric)"
    )
    seconds: float
    lm_retires: date | None = Field(None, description="when it is switched off; null: not known")
    program: str
    charts: list[str] = Field([], description="pictures, below the project's root")
    page: str | None = Field(None, description="all of it as one HTML file, below the same root")
    failed: list[str] = Field(
        default=[], description="what went wrong after the climb, which stands"
    )
    next: str = Field(description="the command that makes most sense now")
    next_first: str = Field("", description="what a person does before it")
    next_note: str = Field("", description="why this one")

    @property
    def climb(self) -> ClimbRecord:
        """What the climb alone found, without the tuned LM."""
        found = {name: getattr(self, name) for name in ClimbRecord.model_fields}
        prompts = [a for a in self.attempts if a.family != WEIGHTS]
        return ClimbRecord(**found | {"attempts": prompts})

    @property
    def final(self) -> ScoreRecord:
        """The test score of the program that was kept."""
        return (
            self.test.tuned
            if self.test.tuned and self.decision and self.decision.accepted
            else self.test.prompt
        )


class InUseRecord(Record):
    """What a command has found that looks at a program in use, and makes none."""

    @property
    def outcome(self) -> str:
        """In a word or two, for a list of runs."""
        raise NotImplementedError


class Side(Record):
    """Scores of the two runs' final programs on the rows of one side that both scored."""

    before: ScoreRecord
    after: ScoreRecord
    gain: GainRecord


class Comparison(Record):
    """One task, two runs. A side is null where they share no scored row."""

    task: str
    before: str
    after: str
    lms: tuple[str, str] = Field(description="the LM of each")
    val: Side | None
    test: Side | None
