"""What records mean, a sentence a line, in words that need no glossary. Knows no screen."""

from __future__ import annotations

from optimize.climb.preflight import NOISY, Preflight
from optimize.finetune.effects import EffectsRecord, OodRecord, PriceRecord
from optimize.report.record import Comparison, Side
from optimize.scoring.calibration import ConfidenceRecord
from optimize.scoring.failures import Diagnosis


def preflight_sentences(found: Preflight, target: float) -> list[str]:
    """What a person should know, a sentence a line, the most important first."""
    out = []
    for name, score in found.baselines.items():
        if score.score >= target:
            out.append(f"No LM needed? {name} alone scores {score} on val, at the target {target}.")
    for finding in sorted(found.findings, key=lambda f: not f.problem):
        out.append(
            f"{'Fix' if finding.problem else 'Look at'}: {finding.count} {finding.what}, "
            f"such as {' | '.join(finding.examples[:2])}"
        )
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
        f"(if two programs differ on a quarter of the rows); a gain of {needed} rows."
    )
    if found.baselines:
        out.append(
            "Without an LM, on val: "
            + "; ".join(f"{name} {s.score:.2f}" for name, s in found.baselines.items())
            + "."
        )
    c = found.cost
    usd = "unknown price" if c.usd is None else f"${c.usd:.2f}"
    out.append(
        f"A run takes at most {c.calls} LM calls, {c.tokens_in / 1e6:.1f} M tokens in, "
        f"{c.tokens_out / 1e6:.1f} M out ({usd})."
    )
    if c.calls < c.enough_calls:
        out.append(
            f"With fewer than {c.enough_calls} calls some rungs may be skipped or cut short "
            f"(--max-calls is {c.calls})."
        )
    return out


def failure_sentences(found: Diagnosis) -> list[str]:
    """What a person should know of the failures, a line a kind."""
    out = [f"{found.wrong} of {found.scored} val rows are not wholly right."] if found.wrong else []
    for failures in found.kinds:
        out.append(
            f"{failures.count}: {failures.meaning}, such as {failures.examples[0]}. What "
            f"fits: {failures.lever}."
        )
    if found.confusions:
        out.append(f"Confused most: {confused(found.confusions)}.")
    if found.retrieval_recall is not None:
        out.append(
            "The passage that holds the answer was retrieved for "
            f"{found.retrieval_recall:.0%} of the rows for which it is known."
        )
    return out


def confused(found: dict[str, int]) -> str:
    return ", ".join(f"{pair} ({count})" for pair, count in found.items()) or "none"


def effect_sentences(found: EffectsRecord) -> list[str]:
    """The worst slice, the classes, and what an answer takes."""
    out = []
    if found.slices:
        worst = found.slices[0]
        changed = f"{worst.before:.2f} to {worst.after:.2f}, {worst.gain}, n={worst.gain.n}"
        out += [f"Worst of {len(found.slices)} slices of the test rows, {worst.name}: {changed}."]
    if found.classes_before and found.classes_after:
        out += [
            f"Macro F1 on test: {found.classes_before.f1:.2f} before, "
            f"{found.classes_after.f1:.2f} after the tuning."
        ]
        was, now = (
            confused(found.classes_before.confusions),
            confused(found.classes_after.confusions),
        )
        out += [f"Confused most on test before: {was}; after: {now}."]
    if found.confidence_before and found.confidence_after:
        out += [_confidence_told(found.confidence_before, found.confidence_after)]
    if found.invented_after is not None:
        earlier = "none named" if found.invented_before is None else f"{found.invented_before:.0%}"
        out += [
            f"Of the ids that answers name, {earlier} before and {found.invented_after:.0%} "
            "after do not exist."
        ]
    if found.ood:
        out += [_ood_told(found.ood)]
    if found.price_before and found.price_after:
        pays = (
            f"made up for after some {found.pays_after} answers"
            if found.pays_after
            else "and no time is saved an answer"
        )
        out += [
            f"{_price_told(found.price_before, found.price_after)}; the training took "
            f"{found.train_seconds:.0f} s, {pays}."
        ]
    return out


def _price_told(before: PriceRecord, after: PriceRecord) -> str:
    told = (
        f"An answer took {before.tokens_in:.0f} tokens in and {before.seconds:.2f} s with "
        "the best prompt, "
        f"{after.tokens_in:.0f} and {after.seconds:.2f} s tuned"
    )
    if before.seconds_right and after.seconds_right:
        told += f" (a right one {before.seconds_right:.2f} and {after.seconds_right:.2f} s)"
    if before.usd_right and after.usd_right:
        told += f"; a right one ${before.usd_right:.5f} and ${after.usd_right:.5f}"
    return told


def _confidence_told(before: ConfidenceRecord, after: ConfidenceRecord) -> str:
    return (
        f"How sure the LM is and how right it is lie {before.ece:.2f} apart before, "
        f"{after.ece:.2f} after (expected calibration error; "
        f"Brier score {before.brier:.2f}, {after.brier:.2f}); the surer half of the answers scores "
        f"{before.surest_half:.2f}, {after.surest_half:.2f}."
    )


def _ood_told(found: OodRecord) -> str:
    """What the tuning did to rows out of the distribution."""
    told = (
        f"Out of distribution ({found.n} rows): score {found.score_before:.2f} before, "
        f"{found.score_after:.2f} after"
    )
    if None in (
        found.sure_before,
        found.sure_after,
        found.told_apart_before,
        found.told_apart_after,
    ):
        return told + "."
    sure = f"mean confidence {found.sure_before:.2f}, {found.sure_after:.2f}"
    return (
        f"{told}; {sure}; told apart from test rows by it (AUROC) {found.told_apart_before:.2f}, "
        f"{found.told_apart_after:.2f}."
    )


def comparison_sentences(found: Comparison) -> list[str]:
    """What the comparison says, a sentence a line."""
    out = []
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
