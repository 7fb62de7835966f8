"""What an LM judge's agreement with people means for the scores, in sentences and rows of a table.
Knows no screen.
"""

from __future__ import annotations

from optimize.report.record import JudgeRecord, Report
from optimize.stats.judge import Confusion
from optimize.stats.records import ScoreRecord

PROGRAMS = {
    "zero_shot": "zero-shot",
    "prompt": "best prompt program",
    "tuned": "tuned LM",
    "tuned_other": "tuned LM, other prompt",
}


def judge_sentence(told: str, found: Confusion) -> str:
    """How far the judge agrees with people. told: which judge it is."""
    agreement, kappa = ScoreRecord.of(found.agreement), ScoreRecord.of(found.kappa)
    return (
        f"Answers are judged by {told}: it agrees with people on {agreement} of {found.n} answers, "
        f"kappa {kappa}. Scores are corrected for its errors."
    )


def judge_sentences(report: Report) -> list[str]:
    """Nothing where a metric scores the answers."""
    if not (judge := report.judge):
        return []
    return [
        judge_sentence(judge.judge, judge.confusion),
        f"With any number of rows {2 * judge.error:.2f} would be left to either side of the best "
        "program's score, as far as 0 and 1 allow: only more answers judged by people lessen that.",
        "The correction takes the judge to err on these programs' answers as it does on those that "
        "people judged, and on one program as on another.",
    ]


def people_rows(judge: JudgeRecord) -> list[list[str]]:
    """A line for each measure of agreement: name, value with its interval, answers."""
    shown = {
        "agreement": judge.agreement,
        "Cohen's kappa": judge.kappa,
        "passed, of those that people pass (sensitivity)": judge.sensitivity,
        "failed, of those that people fail (specificity)": judge.specificity,
        "sensitivity + specificity − 1 (Youden)": judge.youden,
    }
    return [[name, str(score), str(score.n)] for name, score in shown.items()]


def raw_rows(report: Report) -> list[list[str]]:
    """A line for each program on test: as the judge gave it, corrected, rows, answers judged."""
    if not (judge := report.judge):
        return []
    both = {name: (score, getattr(report.test, name)) for name, score in judge.raw.items()}
    return [
        [PROGRAMS[name], str(raw), str(true), str(raw.n), str(judge.confusion.n)]
        for name, (raw, true) in both.items()
        if true
    ]
