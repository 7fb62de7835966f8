"""A report as titled sections of sentences and small tables, for any face. Knows no screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optimize.climb.verdict import WEIGHTS
from optimize.finetune.effects import EffectsRecord
from optimize.finetune.epoch import kept
from optimize.report.judged import judge_sentences, people_rows, raw_rows
from optimize.report.record import AttemptRecord, Report
from optimize.report.sentences import (
    confused,
    decision_sentences,
    failure_sentences,
    grid_sentences,
    levers_sentences,
    regression_sentence,
    rows_sentence,
    synthetic_sentences,
)
from optimize.scoring.failures import unread_sentence
from optimize.stats.records import GainRecord, ScoreRecord

NONE = "–"
SLICES = 5  # of which the worst are shown


@dataclass(frozen=True)
class Section:
    """lines: sentences. columns, rows: a table, every cell as text; the first column is a name."""

    title: str
    lines: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def sections(report: Report) -> list[Section]:
    """Everything the report knows, in the order in which a reader asks; empty ones left out."""
    found = [
        test_scores(report),
        *_judge(report),
        attempts(report.attempts),
        Section("What goes wrong", failure_sentences(report.diagnosis)),
        _gate(report),
        *_tuning(report),
        _asked(report),
        Section("How far to trust this", _doubts(report)),
    ]
    return [section for section in found if section.lines or section.rows]


def test_scores(report: Report) -> Section:
    """Every program's score on test, with its rows where they are others than the title says: a
    climb may have ended among them, and some calls fail. A gain is over the best prompt program or,
    its own, over zero-shot.
    """
    test, kept_ = report.test, report.decision and report.decision.accepted

    def told(score: ScoreRecord) -> str:
        return str(score) if score.n == test.prompt.n else score.with_n

    rows = [[f"no LM: {name}", told(score), ""] for name, score in test.baselines.items()]
    rows += [["zero-shot", told(test.zero_shot), ""]]
    mark = "" if kept_ else " ◀"
    rows += [[f"best prompt program{mark}", str(test.prompt), f"{test.prompt_gain} over zero-shot"]]
    if test.tuned and report.decision:
        gain = f"{report.decision.test} over that"
        rows += [[f"{report.decision.tuned}{' ◀' if kept_ else ''}", told(test.tuned), gain]]
    if test.tuned_other:
        rows += [[other_tuned(report), told(test.tuned_other), "not chosen on val"]]
    judged = ", corrected for the judge's errors" if report.judge else ""
    title = f"Scores on {test.prompt.n} test rows{judged}"
    return Section(title, columns=("program", "score [95 %]", "gain"), rows=rows)


def _judge(report: Report) -> list[Section]:
    if not report.judge:
        return []
    columns = ("against people", "value [95 %]", "answers")
    people = Section("The judge", judge_sentences(report), columns, people_rows(report.judge))
    shown = ("program, on test", "as judged", "corrected", "rows", "answers judged by people")
    return [people, Section("Scores before the correction", (), shown, raw_rows(report))]


def other_tuned(report: Report) -> str:
    """The tuned program that was second on val."""
    judged = report.decision.tuned if report.decision else ""
    others = [a for a in report.attempts if a.family == WEIGHTS and a.rung != judged and a.val]
    return max(others, key=lambda a: a.val.score if a.val else 0.0).rung


def attempts(found: Sequence[AttemptRecord], title: str = "The climb, on val") -> Section:
    """A line a rung; ▲ marks what the next ones were built on."""
    rows = []
    for a in found:
        score = str(a.val) if a.val else "skipped" if a.skipped else "failed"
        name = f"{'▲' if a.promoted and a.gain else ' '} {a.rung}"
        n = str(a.val.n) if a.val else ""
        rows.append([name, score, n, _gain(a.gain), str(a.lm_calls), f"{a.seconds:.0f}"])
    why = [
        "▲: what the levers after it were built on. Calls: of the search, of the val rows, and of "
        "more rows where it may be the best one."
    ]
    why += [f"{a.rung}: {a.skipped or a.error}" for a in found if a.skipped or a.error]
    why += synthetic_sentences(found)
    columns = ("  lever", "val score", "n", "gain over the best so far", "calls", "s")
    return Section(title, why, columns, rows)


def _asked(report: Report) -> Section:
    """Calls by role; what providers read from a cache of their own costs a part of its price."""
    rows = [
        [
            role,
            str(used.calls),
            str(used.failed),
            str(used.cached),
            f"{used.tokens_in:,}",
            f"{used.tokens_cached:,}",
            f"{used.tokens_out:,}",
            NONE if used.cost_usd is None else f"${used.cost_usd:.2f}",
        ]
        for role, used in report.roles.items()
    ]
    columns = (
        *("LM as", "calls", "failed", "from our cache"),
        *("tokens in", "cached by the provider", "tokens out", "cost"),
    )
    return Section("What LMs were asked", (), columns, rows)


def _gain(found: GainRecord | None) -> str:
    return str(found) if found else ""


def _gate(report: Report) -> Section:
    marks = {True: "met", None: "warning", False: "not met"}
    rows = [[c.name, c.value, c.threshold, marks[c.passed]] for c in report.gate.criteria]
    waived = [f"Waived: {report.gate.waived}."] if report.gate.waived else []
    title = f"Fine-tuning: the gate is {'open' if report.gate.open else 'closed'}"
    return Section(title, waived, ("criterion", "found", "required", ""), rows)


def _tuning(report: Report) -> list[Section]:
    if not report.decision:
        return []
    changed = report.test.tuned_gain.changed if report.test.tuned_gain else ""
    lines = decision_sentences(report.decision, report.forgetting, changed)
    out = [Section("The tuned LM", lines, *_costs(report.effects))]
    if report.effects:
        out += [_slices(report.effects)]
    rows = [
        [str(n), f"{e.train_loss:.2f}", f"{e.val_loss:.2f}", f"{e.val_right:.0%}"]
        for n, e in enumerate(report.training, 1)
    ]
    told = [rows_sentence(report.training_rows)] if report.training_rows else []
    told += [f"Epoch {kept(report.training) + 1} was kept."] if rows else []
    columns = ("epoch", "loss on train", "loss on val", "val answers right")
    out += [Section("Training", told, columns, rows), _grid(report), _levers(report)]
    lost = [
        line
        for f in report.forgetting
        for line in (regression_sentence(f), *(f"Lost: {e}." for e in f.examples))
    ]
    return [*out, Section("What was forgotten", lost)]


def _grid(report: Report) -> Section:
    """The trainings that the tuned LM was chosen from."""
    if not (found := report.grid):
        return Section("Trainings, on val")
    rows = [
        [
            f"{'▲' if p.chosen else ' '} {p.rank}",
            f"{p.share:.0%}",
            f"{p.learning_rate:g}",
            str(p.val) if p.val else "not trained",
            str(p.val.n) if p.val else "",
            f"{p.size / 1e6:.1f}" if p.size else "",
            f"{p.seconds:.0f}" if p.val else "",
        ]
        for p in found.points
    ]
    columns = ("  rank", "blocks", "learning rate", "val score", "n", "adapter, MB", "s")
    return Section("Trainings, on val", grid_sentences(found), columns, rows)


def _levers(report: Report) -> Section:
    """Whether prompts on the tuned LM helped."""
    tried = attempts(report.levers_on_tuned, "Levers on the tuned LM, on val")
    return replace(tried, lines=[*levers_sentences(report), *tried.lines]) if tried.rows else tried


def _costs(found: EffectsRecord | None) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Best prompt program against tuned LM, where both sides of a number are known."""
    if not found:
        return (), ()
    rows: list[list[str]] = []

    def add(name: str, form: str, before: float | None, after: float | None) -> None:
        if before is not None and after is not None:
            rows.append([name, format(before, form), format(after, form)])

    if (b := found.price_before) and (a := found.price_after):
        add("tokens in, an answer", ".0f", b.tokens_in, a.tokens_in)
        add("tokens out, an answer", ".0f", b.tokens_out, a.tokens_out)
        add("seconds, an answer", ".2f", b.seconds, a.seconds)
        add("seconds, a right answer", ".2f", b.seconds_right, a.seconds_right)
        add("US dollars, a right answer", ".5f", b.usd_right, a.usd_right)
    if (c := found.confidence_before) and (d := found.confidence_after):
        add("calibration error", ".2f", c.ece, d.ece)
        add("of it by chance, on so few rows", ".2f", c.floor, d.floor)
        add("Brier score", ".2f", c.brier, d.brier)
        if found.brier_change:
            rows.append(["change of the Brier score", "", str(found.brier_change)])
        add("score of the surer half", ".2f", c.surest_half, d.surest_half)
    if (e := found.classes_before) and (f := found.classes_after):
        add("macro F1", ".2f", e.f1, f.f1)
    add("ids that do not exist", ".0%", found.invented_before, found.invented_after)
    if ood := found.ood:
        add(f"score on {ood.n} unusual rows", ".2f", ood.score_before, ood.score_after)
        add("confidence on them", ".2f", ood.sure_before, ood.sure_after)
        if (g := ood.told_apart_before) and (h := ood.told_apart_after):
            rows.append(["told apart by it (AUROC)", str(g), str(h)])
    if found.train_seconds is None:
        rows.append(["training, seconds", "", "unknown: trained elsewhere"])
        return ("", "best prompt", "tuned"), rows
    rows.append(["training, seconds", "", f"{found.train_seconds:.0f}"])
    pays = str(found.pays_after) if found.pays_after else "never: an answer takes no less time"
    if found.price_before and found.price_after:
        rows.append(["answers until the training has paid for itself", "", pays])
    return ("", "best prompt", "tuned"), rows


def _slices(found: EffectsRecord) -> Section:
    worst = found.slices[:SLICES]
    rows = [
        [s.name, f"{s.before:.2f}", f"{s.after:.2f}", str(s.gain), str(s.gain.n)] for s in worst
    ]
    many = f"The worst {len(rows)} of {len(found.slices)}; of many, some look bad by chance."
    lines = [many] if rows else []
    if found.classes_before and found.classes_after:
        lines += [
            f"Labels confused most before: {confused(found.classes_before.confusions)}.",
            f"After: {confused(found.classes_after.confusions)}.",
        ]
    columns = ("kind of test row", "best prompt", "tuned", "gain", "n")
    return Section("Where it helps least", lines, columns, rows)


def _doubts(report: Report) -> list[str]:
    """What blurs the scores: small samples, failed calls, the LM's own noise, faulty rows."""
    n, test = report.numbers, report.test
    out = [
        f"The rows show a true gain over zero-shot of {n.smallest_gain:.2f} or more in 4 of 5 "
        "cases; a smaller one may be missed."
    ]
    if n.climbs > 1:
        out += [
            f"These val rows have judged {n.climbs} climbs by now; the score is corrected for "
            "having been chosen among all their programs."
        ]
    if n.test_reads > 1:
        out += [
            f"These test rows have judged {n.test_reads} programs by now, so more is asked of "
            "them. Newly labelled rows, drawn at random, would tell more."
        ]
    if (coverage := min(s.coverage for s in (n.best, test.zero_shot, test.prompt))) < 1:
        out += [
            f"Some calls failed for good, or a cap left rows unasked: only {coverage:.0%} of the "
            "rows have a score where it is worst."
        ]
    val = report.attempts[0].val
    sides = ("val", val.unread if val else 0), ("test", test.zero_shot.unread)
    out += [unread_sentence(unread, side) for side, unread in sides if unread]
    if test.prompt.lm_noise is not None:
        out += [
            f"The LM's own noise makes {test.prompt.lm_noise:.3f} of the test score's standard "
            "error."
        ]
    if found := report.headroom:
        teacher = f"; the teacher with the same prompt {found.teacher}" if found.teacher else ""
        out += [f"The best of {found.answers} answers a row scores {found.best} on val{teacher}."]
    faults = [f for f in report.preflight.findings if f.problem]
    return out + [f"Not mended in the rows: {f.count} {f.what}." for f in faults]
