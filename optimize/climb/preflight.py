"""What the data can and cannot tell, and what a run may cost, before an LM call is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import dspy
from pydantic import Field

from optimize import lm as lms
from optimize import usercode
from optimize.climb.allowed import judges, longest_prompt
from optimize.climb.findings import Finding, labels_of, row_findings
from optimize.climb.gold import gold_findings
from optimize.climb.plan import Plan, planned
from optimize.climb.verdict import SAME
from optimize.config import RunConfig, caps, is_local
from optimize.data.baselines import CONSTANT, cross_validated
from optimize.data.inputs import input_text
from optimize.data.labels import agreement, judge, random_share
from optimize.data.rows import Splits, near_groups, row_hash
from optimize.files import to_json
from optimize.lm.embedder import Embedder
from optimize.lm.room import HOSTED_THOUGHT, THOUGHT
from optimize.stats.intervals import commonest, known, mean_interval, rows_to_see, smallest_gain
from optimize.stats.records import Record, ScoreRecord
from optimize.task import DRAFTED, GUIDE, Task, choices

# share of rows on which two programs' right-or-wrong scores are taken to differ before any is
# measured
DIFFER = 0.25
MARGINS = (0.05, 0.1)
PROPOSED = 6  # calls of which one proposes at most: GEPA asks six rows for each, the others more
NOISY = 0.15  # share of labels that look drawn at random from which they are told


class AgreementRecord(Record):
    """How far the annotators of this task agree, on n rows that several of them labelled."""

    alpha: float = Field(description="Krippendorff's alpha, nominal: 1 perfect, 0 chance")
    person: float = Field(
        description="how often one annotator gives the label that most others gave: a person's "
        "score"
    )
    n: int


class CostRecord(Record):
    """The most a run may take by its cap on calls. usd: null where the LM's price is not known.
    others: caps that may end it earlier, as they are given. thinking: tokens of an answer with its
    thoughts; 0 where no LM thinks.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    usd: float | None
    others: list[str] = []  # noqa: RUF012 (frozen)
    thinking: int = 0
    plan: Plan


class Preflight(Record):
    """What is known before the first call."""

    rows: dict[str, int]
    label_rows: dict[str, int] = Field(
        description="train rows of each label that the signature names; empty where the output is "
        "no label"
    )
    synthetic: int = Field(0, description="rows that an LM wrote; not among the rows above")
    notes: list[str] = Field([], description="what was made of the files, where it may surprise")
    findings: list[Finding]
    random_labels: ScoreRecord | None = Field(
        description="share of labels that look drawn at random; null where that cannot be told"
    )
    agreement: AgreementRecord | None
    smallest_gain: float = Field(description="that the val rows show with 80 % probability")
    rows_to_see: dict[str, int] = Field(
        description="val rows that show a gain of so many points with 80 % probability"
    )
    baselines: dict[str, ScoreRecord] = Field(
        description="scores without an LM, cross-validated; of rows that were drawn, not chosen"
    )
    constant: float = Field(
        -1.0, description="val score of the best constant answer; -1: not known"
    )
    varied: bool = Field(
        default=True, description="the right answers to val rows are not nearly all the same"
    )
    cost: CostRecord

    def count(self, what: str) -> int:
        """How often this was found."""
        return sum(finding.count for finding in self.findings if finding.what == what)


def preflight(
    task: Task,
    splits: Splits,
    config: RunConfig,
    after: int = 0,
    embedder: Embedder | None = None,
    per_minute: float | None = None,
) -> Preflight:
    """All checks that need no LM call. Row errors were told when the rows were loaded.

    after: LM calls that the run keeps for what follows its climb, beside the test rows. per_minute:
    LM calls, where that is known.
    """
    gold = gold_findings(task, splits)
    everything = [e for rows in splits.sides().values() for e in rows]
    found = _baselines(task, splits, embedder)
    judged = (
        judge([input_text(task, e) for e in everything], labels_of(task, everything))
        if task.label
        else None
    )
    share = random_share(judged) if judged else None
    return Preflight(
        rows={name: len(rows) for name, rows in splits.sides().items()},
        label_rows=_label_rows(task, splits),
        synthetic=len(splits.synthetic),
        notes=[*splits.notes, *_unused(task, config)],
        findings=[*gold, *row_findings(task, splits, judged)],
        random_labels=ScoreRecord.of(share) if share else None,
        agreement=_agreement(task, splits),
        smallest_gain=smallest_gain(len(splits.val), DIFFER),
        rows_to_see={f"{margin:.2f}": rows_to_see(margin, DIFFER) for margin in MARGINS},
        baselines={name: ScoreRecord.of(mean_interval(known(row))) for name, row in found.items()},
        constant=_constant(found, len(splits.val)),
        varied=_varied(task, splits),
        cost=_cost(task, splits, config, after, per_minute),
    )


def _unused(task: Task, config: RunConfig) -> list[str]:
    """Cheap levers that the task or the command leaves lying."""
    notes = []
    if task.judge:
        notes.append(
            f"Answers are judged by {task.judge!r}, which is first asked about those that people "
            "have judged; every score is corrected for how it errs."
        )
    if not task.guide:
        notes.append(
            f"No {GUIDE}: the rules that people label by are not written down. In the prompt they "
            f"are the cheapest lever; `optimize guide {task.name}` drafts them."
        )
    if task.guide.startswith(DRAFTED):
        notes.append(
            f"{GUIDE} begins with the line that says that nobody has checked it: check its rules, "
            "then remove that line."
        )
    if not config.embedder:
        notes.append(
            "Similar rows are found by shared words; `--embedder minilm` (after `optimize lm pull "
            "minilm`) or `--embedder openai/MODEL` finds them by meaning too."
        )
    return notes


def _baselines(
    task: Task, splits: Splits, embedder: Embedder | None
) -> dict[str, list[float | None]]:
    groups, sides = near_groups(task, splits), splits.sides()
    order = ("val", "train", "test")  # val first: it is among those that a large set is cut to
    rows = [e for side in order for e in sides[side]]
    vectors = embedder.vectors if embedder else None
    found = cross_validated(task, rows, [g for side in order for g in groups[side]], vectors)
    # rows that were chosen teach, but a score on them would be one on hard rows
    drawn = [row_hash(task, e) not in splits.chosen for e in rows]
    return {
        name: [s if d else None for s, d in zip(scores, drawn, strict=True)]
        for name, scores in found.items()
    }


def _constant(found: Mapping[str, Sequence[float | None]], val: int) -> float:
    scores = known(found.get(CONSTANT, ())[:val])
    return sum(scores) / len(scores) if scores else -1.0


def _varied(task: Task, splits: Splits) -> bool:
    names = list(task.signature.output_fields)
    return commonest(to_json({n: e[n] for n in names}) for e in splits.val) < SAME


def _label_rows(task: Task, splits: Splits) -> dict[str, int]:
    if not task.label:
        return {}
    given = [e[task.label] for e in splits.train]
    # as `choices` writes them
    shown = Counter(str(getattr(label, "value", label)) for label in given)
    return {
        label: shown[label]
        for label in choices(task.signature.output_fields[task.label].annotation)
    }


def _agreement(task: Task, splits: Splits) -> AgreementRecord | None:
    if not task.raters:
        return None
    rows = [e for side in splits.sides().values() for e in side]
    found = agreement([_ratings(task, e, row_hash(task, e) in splits.chosen) for e in rows])
    return AgreementRecord(alpha=found.alpha, person=found.person, n=found.rows) if found else None


def _ratings(task: Task, row: dspy.Example, chosen: bool) -> tuple[Hashable, ...]:
    """A row's labels, a rater each; an empty one is none. chosen: it is of `labelled.jsonl`, where
    one person's label may be all that there is.
    """
    assert task.raters
    raters = task.raters

    def given() -> tuple[Hashable, ...]:
        try:
            found = raters(row)
            return () if found is None else tuple(found)
        except (AttributeError, KeyError):
            if chosen:
                return ()
            raise

    with usercode.on_row(lambda: task.row_name(row)):
        found = usercode.run(given, raters, task.root)
    return tuple(rating for rating in found if rating not in (None, ""))


def _cost(
    task: Task, splits: Splits, config: RunConfig, after: int, per_minute: float | None
) -> CostRecord:
    """The cap on calls, each with the longest prompt a rung may build and the longest answer, or
    proposal for those that may be one, at the dearer LM's price.
    """
    calls = config.max_calls
    tokens_in = calls * longest_prompt(task, splits, config)
    asked = (*config.lms, *judges(task, config))
    hosted = any(not is_local(name) for name, _ in asked)
    longest = task.max_tokens + (HOSTED_THOUGHT if hosted else THOUGHT)
    answer = max(lms.answer_tokens(*lm, longest) for lm in asked)
    proposal = max(answer, lms.proposal_tokens(*config.lms[-1]))
    tokens_out = calls * answer + calls // PROPOSED * (proposal - answer)
    prices = [lms.price(*lm) for lm in asked]
    known = [price for price in prices if price]
    return CostRecord(
        calls=calls,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        usd=max(tokens_in * into + tokens_out * out for into, out in known)
        if len(known) == len(prices)
        else None,
        others=caps(config)[1:],  # the first is the one on calls
        thinking=answer if answer > longest else 0,
        plan=planned(task, splits, config, after, per_minute),
    )
