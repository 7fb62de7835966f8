"""The end of a run as a person sees it: one screen, tables that align, no markup from rows."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console, RenderableType

from optimize.climb.findings import Finding
from optimize.climb.plan import Plan
from optimize.climb.preflight import CostRecord, Preflight
from optimize.finetune.accept import DecisionRecord
from optimize.finetune.criteria.case import Criterion
from optimize.finetune.effects import EffectsRecord, PriceRecord
from optimize.finetune.epoch import Epoch
from optimize.finetune.forgetting import ForgettingRecord
from optimize.finetune.gate import GateRecord
from optimize.finetune.lora.recipe import GridPoint, GridRecord
from optimize.report.chart import _climb, draw, names
from optimize.report.html.render import html
from optimize.report.page import Material, assemble
from optimize.report.record import AttemptRecord, Comparison, Report, TestRecord, VerdictRecord
from optimize.report.sections import sections
from optimize.report.sections import test_scores as scores_on_test
from optimize.report.sentences import comparison_sentences
from optimize.report.text import decision, duration, headline, markdown, terminal, verdict_line
from optimize.report.verdicts import verdict_sentences
from optimize.scoring.failures import Diagnosis, Failures
from optimize.stats.records import GainRecord, ScoreRecord

MARKUP = "gold '[/INST] [bold]x', answered '[/x]'"


def score(mean: float, n: int = 120) -> ScoreRecord:
    return ScoreRecord(score=mean, low=max(0, mean - 0.1), high=min(1, mean + 0.1), n=n)


def gained(mean: float, n: int = 120) -> GainRecord:
    return GainRecord(mean=mean, low=mean - 0.1, high=mean + 0.1, n=n, better=30, worse=10, p=0.01)


def attempt(rung: str, family: str, mean: float, **more: Any) -> AttemptRecord:
    found = AttemptRecord(rung=rung, family=family, val=score(mean, 48), gain=gained(0.05, 48))
    return found.model_copy(update={"promoted": True, "lm_calls": 96, "seconds": 71.0} | more)


def plateau(**changes: Any) -> Report:
    """A run of eight levers that ends in a plateau, as `optimize run` records it."""
    numbers = VerdictRecord(
        rung="nearest_demos",
        best=score(0.1, 48),
        correction=-0.043,
        chosen_from=6,
        reached=0.0,
        chance=0.0004,
        same=0.2,
        constant=0.05,
        on_test=0.001,
        close=["mipro"],
        rungs_left=0,
        rung_calls=120,
        rows_needed=None,
        smallest_gain=0.18,
    )
    skipped = {"val": None, "gain": None, "promoted": False, "skipped": "no corpus.jsonl [/x]"}
    tried = [
        attempt("zero_shot", "baseline", 0.08, gain=None),
        attempt("output_format", "format", 0.1),
        attempt("demo_search", "demos", 0.08, promoted=False),
        attempt("nearest_demos", "demos", 0.15),
        attempt("passages", "retrieval", 0, **skipped),
    ]
    report = Report(
        task="notes",
        verdict="plateau",
        reason=verdict_sentences("plateau", 0.9, numbers),
        target=0.9,
        target_met=False,
        numbers=numbers,
        preflight=Preflight(
            rows={"train": 300, "val": 48, "test": 120},
            label_rows={},
            findings=[Finding(what="rows written twice", count=2, examples=[], problem=True)],
            random_labels=None,
            agreement=None,
            smallest_gain=0.18,
            rows_to_see={},
            baselines={},
            cost=CostRecord(
                calls=9, tokens_in=9, tokens_out=9, usd=None, plan=Plan(rungs=[], enough=9)
            ),
        ),
        diagnosis=Diagnosis(
            scored=48,
            wrong=41,
            confusions={},
            kinds=[
                Failures(
                    kind="style",
                    count=41,
                    lost=40.0,
                    meaning="parsed, but not the row's",
                    lever="prompts, then weights",
                    examples=[MARKUP],
                )
            ],
        ),
        levers=["output_format", "nearest_demos"],
        test=TestRecord(
            zero_shot=score(0.06),
            prompt=score(0.36),
            prompt_gain=gained(0.3),
            baselines={"nearest neighbour": score(0.3)},
        ),
        attempts=tried,
        gate=GateRecord(
            open=True,
            criteria=[
                Criterion(
                    name="verdict",
                    passed=True,
                    value="plateau",
                    threshold="plateau",
                    source="docs/verdict.md",
                )
            ],
        ),
        lm="embedded",
        teacher="the task LM itself",
        seed=0,
        rows={"train": 300, "val": 48, "test": 120},
        data_hash="0",
        lm_calls=1662,
        cost_usd=0.0,
        seconds=2295.0,
        program="program.json",
        next="optimize finetune notes --backend lora",
    )
    return report.model_copy(update=changes)


def tuned() -> Report:
    """The same, with a tuned LM that was accepted."""
    price = PriceRecord(
        tokens_in=467, tokens_out=9, seconds=6.95, usd=0.0, seconds_right=19.4, usd_right=0.0
    )
    forgotten = ForgettingRecord(
        name="general",
        named=False,
        base=0.57,
        tuned=0.03,
        n=72,
        drop=gained(-0.54, 72),
        regressed=True,
        held=False,
        examples=[MARKUP],
    )
    accepted = DecisionRecord(
        accepted=True,
        tuned="lora",
        val=gained(0.5, 48),
        test=gained(0.21),
        tunings=2,
        least_gain=0.02,
        wrong_if=["the rules change"],
        decided="2026-01-01",
    )
    base = plateau()
    weights = {"tuned": score(0.57), "tuned_other": score(0.6), "tuned_gain": gained(0.21)}
    return base.model_copy(
        update={
            "decision": accepted,
            "test": base.test.model_copy(update=weights),
            "attempts": [
                *base.attempts,
                attempt("lora", "weights", 0.65),
                attempt("lora, best prompt", "weights", 0.58),
            ],
            "forgetting": [forgotten],
            "training": [Epoch(train_loss=1.0, val_loss=0.5, val_right=0.4)],
            "effects": EffectsRecord(
                slices=[],
                price_before=price,
                price_after=price,
                train_seconds=372,
                in_flight=4,
                pays_after=272,
            ),
        }
    )


def shown(found: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_picture_shows_what_the_next_lever_was_built_on() -> None:
    """A cheaper lever may be kept that scores less."""
    tried = [attempt("zero_shot", "baseline", 0.08), attempt("guide", "instructions", 0.3)]
    tried += [
        attempt("output_format", "format", 0.28),
        attempt("copro", "instructions", 0.1, promoted=False),
    ]
    axes = Figure().subplots()
    _climb(axes, plateau(attempts=tried))
    (line,) = (found for found in axes.lines if found.get_label() == "built on, val")
    assert list(line.get_ydata()) == [0.08, 0.3, 0.28, 0.28]


@pytest.mark.parametrize("make", [plateau, tuned])
def test_the_end_of_a_run_fits_one_screen(make: Any) -> None:
    report = make()
    lines = shown(terminal(report)).splitlines()
    assert len(lines) <= 24, "\n".join(lines)
    assert lines[0].strip() == "PLATEAU" and lines[-1] == f"Next: {report.next}"
    text = "\n".join(lines)
    assert all(str(s) in text for s in (report.test.zero_shot, report.test.prompt, report.final))


def test_the_details_hold_every_attempt_criterion_and_doubt() -> None:
    report = tuned()
    text = shown(terminal(report, details=True), 120)
    assert all(a.rung in text for a in report.attempts)
    assert all(c.name in text for c in report.gate.criteria)
    assert "2 rows written twice" in text and "no corpus.jsonl [/x]" in text
    assert len(text.splitlines()) > 40


def test_a_command_and_what_is_said_of_it_are_two_parts() -> None:
    said = {"next_first": "add 40 rows", "next_note": "val rows are few"}
    report = plateau(**said)
    command = report.next
    lines = shown(terminal(report), 200).splitlines()
    assert lines[-3:] == ["Next: add 40 rows, then", command, "(val rows are few)"]
    assert f"- Next: add 40 rows, then `{command}` (val rows are few)" in markdown(report)
    kept = Material(run="f", made="", versions={}, val=None, test=None, prompts={}, prices={})
    page = html(assemble(report, kept))
    assert f"Next: add 40 rows, then <code>{command}</code> (val rows are few)</li>" in page


def test_one_row_is_one_and_no_line_is_left_empty_for_what_there_is_not() -> None:
    kind = plateau().diagnosis.kinds[0].model_copy(update={"count": 1})
    diagnosis = plateau().diagnosis.model_copy(update={"kinds": [kind]})
    report = plateau(diagnosis=diagnosis)
    text = shown(terminal(report, details=True), 200)
    assert "(1 val row)" in text and "1 row: " in text and "1 rows" not in text
    assert "\n\n\n" not in re.sub(" +\n", "\n", shown(terminal(report), 200))


def test_another_lm_is_told_before_scores_that_hang_on_it() -> None:
    found = Comparison(task="t", before="a", after="b", lms=("x", "x"), val=None, test=None)
    assert not [line for line in comparison_sentences(found) if "LM" in line]
    other = found.model_copy(update={"lms": ("x", "y")})
    assert comparison_sentences(other)[0].startswith("The LM differs: x before, y after")


def test_rows_and_answers_are_never_markup() -> None:
    text = shown(terminal(tuned(), details=True), 200)
    assert MARKUP in text


def test_numbers_that_compare_stand_side_by_side() -> None:
    costs = next(s for s in sections(tuned()) if s.title == "The tuned LM")
    assert list(costs.columns) == ["", "best prompt", "tuned"]
    assert ["seconds, an answer", "6.95", "6.95"] in list(costs.rows)
    assert all(len(row) == len(costs.columns) for row in costs.rows)


def test_a_reached_verdict_that_test_does_not_confirm_is_said_so() -> None:
    numbers = plateau().numbers.model_copy(update={"reached": 0.95, "on_test": 0.4})
    said = verdict_sentences("unconfirmed", 0.9, numbers)
    assert (
        said.startswith("Reached on val, not confirmed") and "95.0 %" in said and "40.0 %" in said
    )
    assert shown(terminal(plateau(verdict="unconfirmed"))).startswith("UNCONFIRMED")
    for rows, on_test, says in (
        (700, 0.7, "70.0 %, where 80% is asked; some 700 test rows would tell."),
        (0, 0.6, "60.0 %, where 80% is asked; 20 times as many would not tell"),
        (0, 0.01, "1.0 %, where 80% is asked; that says that it is below."),
    ):
        now = numbers.model_copy(update={"on_test": on_test, "test_rows_needed": rows})
        assert says in verdict_sentences("unconfirmed", 0.9, now)


def test_levers_that_failed_or_were_skipped_are_named() -> None:
    numbers = plateau().numbers
    for verdict in ("plateau", "indecisive", "exhausted"):
        assert re.search("very lever was tried[,.;]", verdict_sentences(verdict, 0.9, numbers))
    numbers = numbers.model_copy(update={"untried": ["guide (skipped)", "mipro (failed)"]})
    for verdict in ("plateau", "indecisive", "exhausted"):
        said = verdict_sentences(verdict, 0.9, numbers)
        assert "very lever was tried but guide (skipped), mipro (failed)" in said
    numbers = numbers.model_copy(update={"left_out": ["votes"]})
    said = verdict_sentences("plateau", 0.9, numbers)
    assert "tried but guide (skipped), mipro (failed), votes (left out), and" in said
    numbers = numbers.model_copy(update={"left": ["simba", "gepa"], "rungs_left": 2})
    said = verdict_sentences("budget", 0.9, numbers)
    assert "2 levers had too few calls, or none: simba, gepa (left out: votes)." in said


def test_a_tuned_lm_that_a_baseline_matches_is_told_in_the_first_line() -> None:
    report = tuned()
    assert "No LM needed" not in shown(terminal(report)).splitlines()[0]
    level = {"baseline": "nearest neighbour", "over_baseline": gained(0.05)}
    decision_ = report.decision and report.decision.model_copy(update=level)
    report = report.model_copy(update={"decision": decision_})
    for text in (shown(terminal(report)), markdown(report)):
        first = text.splitlines()[0]
        assert "No LM needed?" in first and "rows do not show that the tuned LM beats" in first
    level |= {"over_baseline": gained(-0.01)}
    decision_ = report.decision and report.decision.model_copy(update=level)
    assert "nearest neighbour does as well" in headline(
        report.model_copy(update={"decision": decision_})
    )


def test_a_score_at_the_target_is_not_called_below_it_where_val_says_less() -> None:
    high = plateau().test.model_copy(update={"prompt": score(0.95)})
    report = plateau(verdict="indecisive", target_met=False, test=high)
    assert "not shown to be met; on test: 0.95" in verdict_line(report)
    assert "not met; on test" in verdict_line(plateau(target_met=False))


def test_a_baseline_as_good_as_the_program_is_said() -> None:
    good = plateau().test.model_copy(update={"baselines": {"nearest neighbour": score(0.5)}})
    assert "No LM needed? nearest neighbour" in shown(terminal(plateau(test=good)), 200)
    assert "No LM needed?" not in shown(terminal(plateau()), 200)
    none = {"baselines": {"nearest neighbour": score(0.0)}, "prompt": score(0.0)}
    assert "No LM needed?" not in shown(terminal(plateau(test=good.model_copy(update=none))), 200)


def test_what_helped_on_val_alone_is_not_said_to_have_helped() -> None:
    assert "What helped: output_format, nearest_demos (" in shown(terminal(plateau()), 200)
    chance = plateau().test.model_copy(update={"prompt_gain": gained(0.01)})
    told = shown(terminal(plateau(test=chance)), 200)
    assert "What helped on val: output_format, nearest_demos. Test rows do not show" in told


def test_markdown_and_decision_record_hold_the_same_numbers() -> None:
    report = tuned()
    for text in (markdown(report), decision(report)):
        assert str(report.test.tuned) in text and "| seconds, an answer | 6.95 | 6.95 |" in text
    assert "the tuned LM is accepted" in decision(report) and "- the rules change" in decision(
        report
    )


def test_a_grid_is_a_table_that_says_what_was_chosen_and_why() -> None:
    def point(rank: int, value: float, size: int, **more: Any) -> GridPoint:
        made = {"rank": rank, "share": 0.5, "learning_rate": 1e-3, "seconds": 61.0}
        return GridPoint(**made, val=score(value), size=size, **more)

    left = GridPoint(rank=16, share=1.0, learning_rate=1e-3, skipped="It takes about 9 min.")
    points = [point(16, 0.8, 9_000_000), point(4, 0.79, 2_000_000, chosen=True), left]
    report = tuned().model_copy(update={"grid": GridRecord(points=points, optimism=0.03)})
    (found,) = [s for s in sections(report) if s.title == "Trainings, on val"]
    assert [row[0].strip() for row in found.rows] == ["16", "▲ 4", "16"]
    assert found.rows[1][1:] == ["50%", "0.001", str(score(0.79)), "120", "2.0", "61"]
    assert found.rows[2][3] == "not trained" and "It takes about 9 min." in found.lines[-1]
    assert "no more than a standard error" in found.lines[0] and "some 0.03" in found.lines[1]
    best = [point(16, 0.8, 9, chosen=True), point(4, 0.5, 2)]
    sure = tuned().model_copy(update={"grid": GridRecord(points=best)})
    assert "▲ of 2 trainings is the best on val." in markdown(sure)
    assert "Trainings, on val" not in [s.title for s in sections(tuned())]


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (700, "12 min"), (3900, "1 h 05 min")]
)
def test_a_duration_as_a_person_says_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("make", [plateau, tuned])
def test_pictures_are_drawn_from_the_report_alone(make: Any, tmp_path: Path) -> None:
    report = make()
    for name in names(tuned=report.decision is not None):
        draw(report, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_lever_that_gained_nothing_is_not_said_to_have_helped() -> None:
    report = plateau()
    level = [
        a.model_copy(update={"gain": gained(0.0)}) if a.rung == "output_format" else a
        for a in report.attempts
    ]
    told = shown(terminal(report.model_copy(update={"attempts": level})), 200)
    assert "What helped: nearest_demos (" in told
    assert "Kept for fewer calls an answer: output_format." in told
    alone = report.model_copy(update={"attempts": level, "levers": ["output_format"]})
    assert "What helped: nothing. Kept for fewer calls" in shown(terminal(alone), 200)


def test_a_score_on_other_rows_than_the_rest_says_on_how_many() -> None:
    """A climb that ended among the test rows of its last program has fewer answers of that one."""
    whole = plateau()
    fewer = whole.test.prompt.model_copy(update={"n": 30})
    cut = whole.model_copy(update={"test": whole.test.model_copy(update={"prompt": fewer})})
    assert " n=" not in str(scores_on_test(whole).rows)
    found = scores_on_test(cut)
    assert found.title == "Scores on 30 test rows"
    n = whole.test.zero_shot.n
    assert [row[0] for row in found.rows if row[1].endswith(f"n={n}")] == [
        "no LM: nearest neighbour",
        "zero-shot",
    ]
