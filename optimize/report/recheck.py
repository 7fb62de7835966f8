"""A program asked again on its test rows: record, table and sentences. Knows no screen."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from optimize.climb.holding import Recheck
from optimize.climb.verdict import COVERAGE, ERROR, asked_of_test
from optimize.finetune.effects import PriceRecord
from optimize.report.record import InUseRecord
from optimize.report.retired import retirement_sentence
from optimize.report.sections import NONE, Section
from optimize.report.text import duration
from optimize.stats.records import GainRecord, Record, ScoreRecord, percent


class RecheckedLm(Record):
    """One LM on the test rows."""

    lm: str
    api_base: str | None = Field(None, description="null: the provider's own")
    score: ScoreRecord
    verdict: Recheck
    gain: GainRecord = Field(
        description="over the record, row by row; its interval allows for all LMs asked"
    )
    chance: float = Field(description="probability, by these rows alone, that it is at the target")
    at_target: bool = Field(description="surely enough, however often these rows were read")
    other_answers: int | None = Field(
        None, description="rows answered otherwise than on record; null: no answers are on record"
    )
    price: PriceRecord | None = Field(None, description="of an answer; null: the cache gave all")
    calls: int
    retires: date | None = Field(None, description="when the LM is switched off; null: not known")

    @property
    def flags(self) -> str:
        """By which a command asks it."""
        return f"--lm {self.lm}" + (f" --api-base {self.api_base}" if self.api_base else "")


class RecheckRecord(InUseRecord):
    """What `optimize recheck` has found: what its `--json` prints and `recheck.json` holds."""

    task: str
    run: str = Field(description="that made the program")
    lm: str = Field(description="the program was optimized on")
    target: float
    before: ScoreRecord = Field(description="on record, on the rows asked again")
    gone: int = Field(0, description="rows on record that are in the devset no more")
    test_reads: int = Field(description="programs and LMs these rows have judged, these included")
    anew: int = Field(description="the how many-th recheck of this task it is")
    prompt_only: bool = Field(
        False, description="another LM was asked with the best prompt, without the tuned weights"
    )
    lms: list[RecheckedLm]
    lm_calls: int
    cost_usd: float | None
    seconds: float

    def name(self, lm: RecheckedLm) -> str:
        """With its address where another one asked has the same name."""
        alone = [one.lm for one in self.lms].count(lm.lm) == 1
        return lm.lm if alone or not lm.api_base else f"{lm.lm} at {lm.api_base}"

    @property
    def at_target(self) -> bool:
        """Whether all LMs asked are."""
        return all(lm.at_target for lm in self.lms)

    @property
    def cheapest(self) -> RecheckedLm | None:
        """Of the LMs at the target the one whose answers cost least; None where no price of such a
        one is known. What costs the same is told apart by the seconds an answer takes.
        """
        priced = [lm for lm in self.lms if lm.at_target and lm.price and lm.price.usd is not None]
        return min(priced, key=_cost, default=None)

    @property
    def outcome(self) -> str:
        """For a list of runs."""
        if len(self.lms) == 1:
            return self.lms[0].verdict
        return f"{sum(lm.at_target for lm in self.lms)} of {len(self.lms)} at target"


def _cost(lm: RecheckedLm) -> tuple[float, float]:
    assert lm.price
    return lm.price.usd or 0.0, lm.price.seconds


def recheck_section(found: RecheckRecord) -> Section:
    """The record, and under it a line an LM."""
    rows = [["on record", str(found.before), "", "", "", "", "", ""]]
    rows += [[found.name(lm), *_line(lm)] for lm in found.lms]
    columns = "LM", "score [95 %]", "gain", "verdict", "calls", "tokens in, out", "$/1000", "s"
    return Section(f"{found.task}: {found.before.n} test rows asked again", (), columns, rows)


def _line(lm: RecheckedLm) -> list[str]:
    price = lm.price
    return [
        str(lm.score),
        str(lm.gain),
        lm.verdict,
        str(lm.calls),
        f"{price.tokens_in:.0f}, {price.tokens_out:.0f}" if price else NONE,
        NONE if price is None or price.usd is None else f"{1000 * price.usd:.2f}",
        f"{price.seconds:.2f}" if price else NONE,
    ]


def recheck_sentences(found: RecheckRecord, today: date) -> list[str]:
    """What the rows say of each LM, then which one to take, then what blurs it."""
    out = [_told(found, lm) for lm in found.lms]
    if len(found.lms) > 1:
        out += [_cheapest(found)]
    if found.prompt_only:
        out += [
            "The program's tuned weights fit one LM alone: the others were asked with its best "
            "prompt, without them."
        ]
    if found.gone:
        out += [
            f"{found.gone} rows on record are in the devset no more, or were labelled anew: they "
            "were not asked."
        ]
    if found.test_reads > 1:
        out += [
            f"These test rows have judged {found.test_reads} programs and LMs by now, so more is "
            f"asked of them each time: a probability of {asked_of_test(found.test_reads):.1%} "
            "now. Newly labelled rows, drawn at random, would tell more."
        ]
    return out + [
        retirement_sentence(lm.lm, lm.retires, today, found.task) for lm in found.lms if lm.retires
    ]


def _told(found: RecheckRecord, lm: RecheckedLm) -> str:
    chance = f"it is at the target {found.target:g} with a probability of {percent(lm.chance)}"
    what = {
        "still at target": f"still at the target: {chance}",
        "better": f"surely better than on record; {chance}",
        "worse": f"surely worse than on record; {chance}",
        "cannot tell": f"these rows cannot tell whether it has changed; {chance}",
    }[lm.verdict]
    if lm.verdict == "still at target" and lm.gain.high < 0:
        what += ", though it is surely worse than on record"
    if lm.verdict == "cannot tell" and lm.other_answers == 0:
        what = f"every row is answered as before; {chance}"
    other = ""
    if lm.other_answers:
        other = f" {lm.other_answers} rows are answered differently than before."
    if lm.score.coverage < COVERAGE:
        what = f"only {lm.score.coverage:.0%} of the rows have an answer, since calls failed"
    return f"{found.name(lm)}: {what}. {lm.gain} on {lm.gain.n} rows, {lm.gain.changed}.{other}"


def _cheapest(found: RecheckRecord) -> str:
    fitting = [lm for lm in found.lms if lm.at_target]
    if not fitting:
        return "None of them is surely at the target."
    unpriced = [found.name(lm) for lm in fitting if lm.price is None or lm.price.usd is None]
    rest = f" The price of {', '.join(unpriced)} is not known." if unpriced else ""
    if (best := found.cheapest) is None or best.price is None:
        return f"At the target: {', '.join(map(found.name, fitting))}.{rest}"
    return (
        f"The cheapest that is at the target is {found.name(best)}, at "
        f"${1000 * (best.price.usd or 0):.2f} "
        f"for 1,000 answers.{rest}"
    )


def recheck_end(found: RecheckRecord) -> str:
    """The last line: what it took, and what to do."""
    cost = "unknown price" if found.cost_usd is None else f"${found.cost_usd:.2f}"
    spent = f"{found.lm_calls} LM calls ({cost}), {duration(found.seconds)}."
    if found.at_target:
        return f"{spent} Nothing to do."
    worse = [lm for lm in found.lms if lm.verdict == "worse"]
    if len(found.lms) == 1 and worse:
        return f"{spent} Next: optimize run {found.task} {worse[0].flags}"
    if len(found.lms) == 1:
        return f"{spent} {_undecided(found, found.lms[0])}"
    return f"{spent} Next: optimize run {found.task} --lm LM climbs anew on one of them."


def _undecided(found: RecheckRecord, lm: RecheckedLm) -> str:
    if lm.score.coverage < COVERAGE:
        return f"Next: once it answers again, optimize recheck {found.task} {lm.flags}"
    if lm.chance <= ERROR:
        return "It is below its target, and not shown to be worse than on record."
    return f"Next: label more rows, drawn at random, for devsets/{found.task}."


def recheck_plan(rows: int, lms: int, calls: int, usd: float | None, reads: int) -> str:
    """What is about to be asked. reads: how often these rows were read before."""
    cost = "unknown price" if usd is None else f"some ${usd:.2f}"
    times = "once" if reads == 1 else f"{reads} times"
    before = f" These rows have been read {times} before; each time asks more of them."
    return (
        f"Asks {rows} test rows of {lms} LM{'s' * (lms > 1)}: at least {calls} calls ({cost})."
        f"{before if reads else ''}"
    )
