"""What MLflow's lists show of a run: its parameters, its metrics, its name. Knows no store.

MLflow draws the first metric that two runs share, in the order they came in, against the first
three parameters in which they differ, by name, and a chart of each metric, by name. So the metric
that matters is called `score`, comes in first, and has no other before it in the alphabet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optimize.climb.observer import Attempt
from optimize.lm.usage import Usage
from optimize.program.program import Program
from optimize.program.template import instructions_hash
from optimize.report.monitor import MonitorRecord
from optimize.report.recheck import RecheckedLm, RecheckRecord
from optimize.report.record import Report
from optimize.stats.intervals import Interval
from optimize.stats.records import ScoreRecord

Numbers = dict[str, float | None]  # null: not known, and not logged
OF_THE_RUN = ("lm", "seed", "target", "teacher")  # the knobs that a nested run shows as well
LONGEST_NAME = 20  # letters of a run's name, so that lists show it whole


def attempt_params(attempt: Attempt, config: Mapping[str, Any]) -> dict[str, str]:
    """What tells this attempt from others. config: the run's knobs."""
    found: dict[str, Any] = {"rung": attempt.rung, "rung_family": attempt.family}
    found |= {knob: config.get(knob) for knob in OF_THE_RUN}
    found["teacher"] = found["teacher"] or "the task LM itself"
    if attempt.program:
        found |= program_params(attempt.program)
    return {name: str(value) for name, value in found.items()}


def program_params(program: Program) -> dict[str, Any]:
    """The levers as they stand in a program. instructions: a hash of them."""
    near, passages, guide = program.neighbours, program.passages, program.guide
    return {
        "demos": max(len(p.demos) for p in program.predictors()),
        "demos_nearest": near.k if near else 0,
        "format": program.format,
        "guide": "none" if not guide else f"{guide.k} rules" if guide.k else "whole",
        "instructions": instructions_hash(program),
        "passages": passages.k if passages else 0,
        "reasoning": program.reasons,
        "tuned": bool(program.tuned),
        "votes": program.votes or 1,
    }


def attempt_metrics(attempt: Attempt) -> Numbers:
    """Its score on val, its gain over the incumbent, and what it took, if it took anything."""
    found: Numbers = {}
    if attempt.program and attempt.evaluation:
        found |= _around("score", attempt.evaluation.score)
        found["scored_share"] = attempt.evaluation.coverage
    if attempt.change:
        found |= _around("score_gain", attempt.change)
    if attempt.usage.asked:
        found |= _used(attempt.usage) | {"used_seconds": attempt.seconds}
    return found


def report_metrics(report: Report) -> Numbers:
    """The score on test of the program that was kept, what to hold it against, what it took."""
    test, final = report.test, report.final
    found: Numbers = {"score": final.score, "score_low": final.low, "score_high": final.high}
    found["score_zero_shot"] = test.zero_shot.score
    if test.baselines:
        found["score_without_lm"] = max(s.score for s in test.baselines.values())
    if test.tuned:
        found |= {"score_prompt": test.prompt.score, "score_tuned": test.tuned.score}
    for tested in report.forgetting:
        found |= {
            f"score_{tested.name}_before": tested.base,
            f"score_{tested.name}_after": tested.tuned,
        }
    return found | {
        "target_chance": report.numbers.chance,
        "used_calls": report.lm_calls,
        "used_usd": report.cost_usd,
        "used_seconds": report.seconds,
    }


def recheck_metrics(found: RecheckRecord) -> Numbers:
    """Of one LM its score and what it was held against; of several these stand in nested runs."""
    used: Numbers = {"used_calls": found.lm_calls, "used_usd": found.cost_usd}
    first = rechecked_metrics(found.lms[0]) if len(found.lms) == 1 else {}
    return first | {"score_on_record": found.before.score} | used


def rechecked_metrics(found: RecheckedLm) -> Numbers:
    return {
        **_scored(found.score),
        "score_gain": found.gain.mean,
        "score_gain_low": found.gain.low,
        "score_gain_high": found.gain.high,
        "target_chance": found.chance,
        "used_calls": found.calls,
    }


def monitor_metrics(found: MonitorRecord) -> Numbers:
    metrics: Numbers = _scored(found.score) if found.score else {}
    for test in found.tests:
        name = test.kind.replace(" ", "_")
        metrics |= {f"shift_{name}": test.after, f"shift_{name}_p": test.p_all}
    if found.change:
        metrics["score_change"] = found.change.mean
    used: Numbers = {"used_calls": found.lm_calls, "used_usd": found.cost_usd}
    return metrics | {"score_on_record": found.before.score} | used


def _scored(score: ScoreRecord) -> Numbers:
    return {
        "score": score.score,
        "score_low": score.low,
        "score_high": score.high,
        "score_rows": score.n,
    }


def result_name(report: Report) -> str:
    """A finished run's name: its verdict, or that tuned weights were kept, and its score."""
    kept = "tuned" if report.final is report.test.tuned else report.verdict
    name = f"{kept} {report.final.score:.2f} of {report.target:.2f}"
    return name if len(name) <= LONGEST_NAME else f"{kept} {report.final.score:.2f}"


def rounded(value: float) -> float:
    """As lists show it whole: MLflow cuts 0.5833333333333334 off. Small sums keep their digits."""
    return round(value, 4) if abs(value) >= 0.01 else float(f"{value:.3g}")


def version_tags(report: Report, test_rows: int) -> dict[str, str]:
    """What a registered version says of itself, which MLflow shows by name: the score before the
    long hash. `champion.judged_by` reads some of it. test_rows: that it was asked.
    """
    final: ScoreRecord = report.final
    tags: dict[str, Any] = {"verdict": report.verdict, "lm": report.lm, "target": report.target}
    scores = {"score": final.score, "score_low": final.low, "score_high": final.high}
    tags |= {name: rounded(score) for name, score in scores.items()}
    tags |= {"test_rows": test_rows, "version_of_rows": report.data_hash}
    return {name: str(value) for name, value in tags.items()}


def _used(usage: Usage) -> Numbers:
    return {
        "used_calls": usage.calls,
        "used_cached": usage.cached,
        "used_tokens_in": usage.tokens_in,
        "used_tokens_out": usage.tokens_out,
        "used_usd": usage.cost_usd,
        "used_ms_a_call": usage.latency_p50_ms,
    }


def _around(name: str, interval: Interval) -> Numbers:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
