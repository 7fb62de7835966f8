"""What records mean, a sentence a line, in words that need no glossary. Knows no screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optimize.climb.findings import Finding
from optimize.climb.preflight import NOISY, Preflight
from optimize.climb.rungs import SYNTHETIC
from optimize.climb.verdict import COVERAGE
from optimize.finetune.accept import DecisionRecord
from optimize.finetune.forgetting import GENERAL, ForgettingRecord
from optimize.finetune.lora.recipe import GridRecord
from optimize.report.planned import cost_sentences
from optimize.report.record import (
    AttemptRecord,
    Comparison,
    Report,
    Side,
    TrainingRowsRecord,
    UsageRecord,
)
from optimize.scoring.failures import Diagnosis, cut_sentence
from optimize.stats.records import rows

SHOWN = 2  # examples of a finding; --details shows all


def change_sentences(report: Report) -> list[str]:
    """What would make the verdict another one."""
    n, final = report.numbers, report.final
    out = [
        f"By the test rows the true score lies between {final.low:.2f} and {final.high:.2f} (95 %)."
    ]
    if (gap := report.target - n.best.score) > 0:
        out.append(
            f"The best prompt program is {gap:.2f} below the target; a real gain of "
            f"{n.smallest_gain:.2f} or more would show on these rows in 4 of 5 cases."
        )
    if report.decision:
        return out + [
            f"The decision on the tuned LM is wrong as soon as {why}."
            for why in report.decision.wrong_if
        ]
    return [
        *out,
        "It holds for this LM, these rows and the rules they were labelled by; where one of them "
        "changes, run again.",
    ]


def attempt_sentence(found: AttemptRecord) -> str:
    """What came of one rung, for its run in MLflow's UI."""
    if not found.val:
        return found.skipped or found.error or ""
    told = f"{found.val.with_n} on val"
    if found.gain:
        told += f", {found.gain} over the best program before it"
    return f"{told}. " + ("Later rungs build on it." if found.promoted else "Not built on.")


def synthetic_sentences(attempts: Sequence[AttemptRecord]) -> list[str]:
    """Whether rows that an LM wrote helped; nothing where a climb had none."""
    found = next((a for a in attempts if a.rung == SYNTHETIC.name), None)
    if not found:
        return []
    if not (found.val and found.gain):
        return [f"Synthetic rows: nothing is known, {found.skipped or found.error}."]
    shown = (
        "helped"
        if found.gain.low > 0
        else "surely did not help"
        if found.gain.high < 0
        else "not shown to help"
    )
    kept = "later levers build on it" if found.promoted else "its program was not built on"
    return [
        f"Synthetic rows among the demos: {found.gain} on {found.gain.n} val rows over the best "
        f"program without them: {shown}; {kept}."
    ]


def decision_sentences(
    found: DecisionRecord, forgetting: Sequence[ForgettingRecord], changed: str
) -> list[str]:
    """Why the tuned LM was accepted or not, the decisive thing first. changed: rows, each way."""
    outcome = "accepted" if found.accepted else "not accepted; the best prompt program stays"
    sure = ", which may be chance" if found.test.low <= 0 <= found.test.high else ""
    out = [
        f"The tuned LM ({found.tuned}) is {outcome}: {found.test} over the best prompt program on "
        f"test{sure}; {changed}."
    ]
    if found.answered < COVERAGE:
        out.append(
            f"Only {found.answered:.0%} of the test rows that were asked have an answer of both, "
            "since calls failed: such rows cannot accept it. The same command asks them again."
        )
    if found.accepted:
        out.append(
            "A gain that had to be this clear to be accepted is on average a little too high: "
            "expect somewhat less on new rows."
        )
    if found.val.mean <= 0:
        out.append(f"On val, which chooses, it is no better: {found.val}.")
    if found.tunings > 1:
        out.append(
            f"These test rows have judged {found.tunings} tuned LMs by now, so that interval is "
            "wider than the usual 95 %."
        )
    if found.test.mean < found.least_gain:
        out.append(
            f"That is less than the {found.least_gain:+.2f} below which the task says that weights "
            "are not worth their upkeep."
        )
    return out + [regression_sentence(f) for f in forgetting if f.regressed or f.named]


def levers_sentences(report: Report) -> list[str]:
    """Whether prompts on the tuned LM helped."""
    if not (gain := report.test.levers_gain):
        return ["Prompts on the tuned LM did not help: no lever was promoted on val."]
    made = ", ".join(a.rung for a in report.levers_on_tuned if a.promoted)
    return [
        f"Prompts on the tuned LM helped on val ({made}); on test {gain} over the tuned LM without "
        f"them, {gain.changed}."
    ]


def rows_sentence(found: TrainingRowsRecord) -> str:
    """What a tuned LM was trained on."""
    general = (
        f"{found.replayed} general instructions with the base LM's own answers, against forgetting"
        if found.replayed
        else "no general instructions (--replay)"
    )
    return f"Trained on {found.task} rows of the task and {general}."


def grid_sentences(found: GridRecord) -> list[str]:
    """How a tuned LM was chosen among several trainings, and what that does to its val score."""
    tried = [p for p in found.points if p.val]
    (chosen,) = (p for p in tried if p.chosen)
    best = max(p.val.score for p in tried if p.val)
    assert chosen.val
    out = [
        f"▲ of {len(tried)} trainings is the smallest adapter that the best one beats by no more "
        "than a standard error of their difference on val."
        if chosen.val.score < best
        else f"▲ of {len(tried)} trainings is the best on val."
    ]
    if len(tried) > 1:
        out.append(
            f"A best of {len(tried)} on the same rows is too high, here by some "
            f"{found.optimism:.2f}: the test rows, asked of ▲ alone, have the last word."
        )
    skipped = [p for p in found.points if p.skipped]
    return out + [
        f"Not trained: rank {p.rank}, {p.share:.0%} of the blocks, learning rate "
        f"{p.learning_rate:g}. {p.skipped}"
        for p in skipped
    ]


def regression_sentence(found: ForgettingRecord) -> str:
    """How the tuned LM does on something else than its task."""
    how = "fell" if found.regressed else "held" if found.held else "is not shown to hold"
    what = "general questions" if found.name == GENERAL else found.name
    named = ", which you said must not get worse" if found.named else ""
    return (
        f"Score on {what}{named}: {how}, from {found.base:.2f} to {found.tuned:.2f} "
        f"({found.n} questions)."
    )


def preflight_sentences(found: Preflight, target: float) -> list[str]:
    """What a person should know, a sentence a line, the most important first."""
    out = []
    for name, score in found.baselines.items():
        if score.score >= target:
            out.append(f"No LM needed? {name} alone scores {score.with_n}, at the target {target}.")
    out += [
        finding_sentence(finding) for finding in sorted(found.findings, key=lambda f: not f.problem)
    ]
    out += found.notes
    if (share := found.random_labels) and share.low > NOISY:
        out.append(
            f"Fix: some {share.score:.0%} [{share.low:.0%}, {share.high:.0%}] of the labels "
            "look drawn at random; "
            "no prompt and no training mends that."
        )
    if found.agreement:
        a = found.agreement
        above = (
            " The target is above what a person scores: it asks for agreement with noise."
            if target > a.person
            else ""
        )
        out.append(
            f"Annotators agree with alpha {a.alpha:.2f}; a person scores {a.person:.2f} "
            f"against the others ({a.n} rows).{above}"
        )
    needed = ", ".join(f"{points} needs {n}" for points, n in found.rows_to_see.items())
    out.append(
        f"{found.rows['val']} val rows show a gain of {found.smallest_gain:.2f} or more with "
        "80 % probability "
        f"(if two programs differ on a quarter of the rows); one of {needed} rows."
    )
    if found.baselines:
        out.append(
            "Without an LM, cross-validated over all rows: "
            + "; ".join(f"{name} {s.score:.2f}" for name, s in found.baselines.items())
            + "."
        )
    return out + cost_sentences(found.cost)


def finding_sentence(found: Finding) -> str:
    """How often, and the first of them."""
    more = len(found.examples) - SHOWN
    shown = " | ".join(found.examples[:SHOWN])
    rest = f" | … and {more} more, which check lists with --details" if more > 0 else ""
    return f"{'Fix' if found.problem else 'Look at'}: {found.count} {found.what}: {shown}{rest}"


def failure_sentences(found: Diagnosis) -> list[str]:
    """What goes wrong on the val rows, a line a kind, the costliest first."""
    out = [f"{found.wrong} of {found.scored} val rows are not wholly right."] if found.wrong else []
    if found.cut:
        out.append(cut_sentence(found.cut, found.scored, found.cut_at))
    for failures in found.kinds:
        out.append(
            f"{rows(failures.count)}: {failures.meaning}. For example {failures.examples[0]}. "
            f"What fits: {failures.lever}."
        )
    if found.confusions:
        out.append(f"Labels confused most: {confused(found.confusions)}.")
    if found.retrieval_recall is not None:
        out.append(
            "The passage that holds the answer was retrieved for "
            f"{found.retrieval_recall:.0%} of the rows for which it is known."
        )
    return out


def too_long_sentence(roles: Mapping[str, UsageRecord]) -> str:
    """How many requests an LM refused since they held more than it reads; empty where none was."""
    refused = sum(used.too_long for used in roles.values())
    if not refused:
        return ""
    sent = sum(used.calls for used in roles.values())
    return (
        f"{refused} of {sent} requests were refused as too long for the LM, so that the rows they "
        "asked have no answer. --context N, with the tokens that it reads and writes in one call, "
        "keeps prompts within that."
    )


def confused(found: dict[str, int]) -> str:
    return ", ".join(f"{pair} ({count})" for pair, count in found.items()) or "none"


def other_lm(lms: tuple[str, str]) -> list[str]:
    """That two runs asked different LMs; nothing where they did not."""
    before, after = lms
    different = f"The LM differs: {before} before, {after} after; a gain is that of both changes."
    return [different] if before != after else []


def comparison_sentences(found: Comparison) -> list[str]:
    """What the comparison says, a sentence a line."""
    out = other_lm(found.lms)
    for name in ("val", "test"):
        side: Side | None = getattr(found, name)
        if side is None:
            out.append(
                f"On {name}: no row was scored by both runs; the rows have changed between them."
            )
            continue
        pair = f"{found.before} {side.before}, {found.after} {side.after}"
        out.append(
            f"On {side.gain.n} {name} rows that both scored: {pair}; {side.gain}; "
            f"{side.gain.changed}."
        )
    if found.test:
        gain = found.test.gain
        surely = (
            "surely better"
            if gain.low > 0
            else "surely worse"
            if gain.high < 0
            else "neither surely better nor worse"
        )
        out.append(f"{found.after} is {surely} than {found.before} on test.")
    return out
