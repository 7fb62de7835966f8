"""A task whose answers an LM judges: the judge held against people, scores and verdict corrected
for its errors, a poor one refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from click.testing import Result
from typer.testing import CliRunner

from optimize.cli import app
from optimize.climb.observer import Observer
from optimize.climb.rungs.base import least_calls
from optimize.climb.verdict import SURE, History, Tried, decide
from optimize.commands.init import write_project
from optimize.commands.session import Session, open_session
from optimize.config import RunConfig
from optimize.data.gold import Unscorable, scores_alone
from optimize.data.labelled import put
from optimize.errors import WorkbenchError
from optimize.program.program import student
from optimize.report.record import Report
from optimize.scoring.evaluate import evaluate
from optimize.stats.intervals import Gain, Interval, mean_interval, paired_gain, wilson
from optimize.stats.judge import (
    Confusion,
    chance_at_least,
    corrected,
    corrected_gain,
    errors,
)
from optimize.task import Task, load_task
from tests import judged
from tests.test_lm import served

GOOD = Confusion(45, 5, 10, 40)


# numbers


def test_the_estimate_is_rogan_and_gladens() -> None:
    # of 0.7 true passes the judge passes 0.7 * 0.9 + 0.3 * 0.2
    found = corrected(wilson(0.69, 100), GOOD)
    assert found.mean == pytest.approx(0.7) and found.n == 100
    assert found.low < 0.7 < found.high
    assert found.high - found.low > wilson(0.69, 100).high - wilson(0.69, 100).low
    assert corrected(wilson(0.1, 100), GOOD).mean == 0.0, "the judge alone passes more than that"
    assert corrected(wilson(0.95, 100), GOOD).mean == 1.0


def test_a_nearly_perfect_judge_changes_nearly_nothing() -> None:
    perfect, raw = Confusion(10**6, 0, 0, 10**6), wilson(0.7, 80)
    found = corrected(raw, perfect)
    assert (found.mean, found.low, found.high) == pytest.approx((0.7, raw.low, raw.high), abs=1e-3)
    scores = [1.0] * 56 + [0.0] * 24
    assert chance_at_least(0.65, scores, perfect) == pytest.approx(
        chance_at_least(0.65, scores, None), abs=1e-3
    )
    gain = paired_gain(scores, scores[::-1])
    assert corrected_gain(gain, perfect).low == pytest.approx(gain.low, abs=1e-3)
    assert corrected(raw, None) == raw and corrected_gain(gain, None) == gain


def test_more_human_verdicts_narrow_what_rows_alone_cannot() -> None:
    many = Confusion(450, 50, 100, 400)
    raw = wilson(0.69, 100)
    assert errors(raw, many)[1] < errors(raw, GOOD)[1]
    endless = corrected(wilson(0.69, 10**7), GOOD)
    left = errors(wilson(0.69, 10**7), GOOD)[1]
    assert endless.error == pytest.approx(left, abs=1e-3) and left > 0.02


@pytest.mark.parametrize(
    "low, mean, high", [(0.05, 0.2, 0.35), (-0.1, 0.05, 0.2), (-0.3, -0.2, -0.1)]
)
def test_a_gain_grows_by_youdens_index_and_keeps_its_side_of_0(
    low: float, mean: float, high: float
) -> None:
    found = corrected_gain(Gain(mean, low, high, 90, 20, 5, 0.01), GOOD)
    assert found.mean == pytest.approx(mean / 0.7)
    assert (found.low > 0) == (low > 0) and (found.high < 0) == (high < 0)
    assert found.low < low / 0.7 + 0.02 and found.high > high / 0.7 - 0.02
    assert (found.better, found.worse, found.p) == (20, 5, 0.01)


def test_the_chance_allows_for_how_little_is_known_of_the_judge() -> None:
    scores = [1.0] * 76 + [0.0] * 24  # 0.8 once corrected
    few, many = Confusion(18, 2, 4, 16), Confusion(900, 100, 200, 800)
    assert corrected(mean_interval(scores), few).mean == pytest.approx(0.8)
    unsure, sure = (chance_at_least(0.7, scores, judge) for judge in (few, many))
    assert 0.7 < unsure < sure < 1
    assert chance_at_least(0.8, scores, many) == pytest.approx(0.5, abs=0.05)


def test_kappa_is_cohens() -> None:
    from sklearn.metrics import cohen_kappa_score

    people = [1] * 50 + [0] * 50
    said = [1] * 45 + [0] * 5 + [1] * 10 + [0] * 40
    assert GOOD.kappa.mean == pytest.approx(cohen_kappa_score(people, said))
    assert GOOD.kappa.low < GOOD.kappa.mean < GOOD.kappa.high < 1
    assert Confusion(50, 0, 0, 50).kappa.low < 1, "certainty is not claimed"


def test_the_verdict_hangs_on_corrected_scores() -> None:
    """A lenient judge passes 0.92; people would pass 0.87 of it, and nobody knows that exactly."""
    lenient = Confusion(97, 3, 40, 60)
    scores = (1.0,) * 184 + (0.0,) * 16
    tried = tuple(
        Tried(rung, family, scores)
        for rung, family in (("a", "demos"), ("b", "demos"), ("c", "instructions"))
    )
    history = History(tried, 0.9, 200, 0, True)
    raw, true = decide(history), decide(replace(history, target=0.88, judge=lenient))
    assert (
        decide(replace(history, target=0.88)).verdict == "reached"
        and raw.best.interval.mean == 0.92
    )
    assert true.verdict == "indecisive" and true.best.interval.mean < 0.92


def test_what_is_not_known_of_the_judge_stays_where_the_interval_is_cut() -> None:
    """0.86 of 84 rows, corrected up to 1: more rows alone would not tell that it is at 0.9."""
    few, many = Confusion(36, 4, 4, 31), Confusion(3600, 400, 400, 3100)
    scores = (1.0,) * 72 + (0.0,) * 12
    found = corrected(mean_interval(scores), few)
    assert found.high == 1 and errors(mean_interval(scores), few)[1] > 0.06
    assert chance_at_least(0.9, scores * 1000, few) < SURE
    tried = tuple(
        Tried(rung, family, scores)
        for rung, family in (("a", "demos"), ("b", "demos"), ("c", "instructions"))
    )
    unsure = History(tried, 0.9, 84, 0, True, judge=few)
    assert decide(unsure).verdict == "indecisive" and decide(unsure).rows is None
    assert decide(replace(unsure, judge=many)).rows, "of a judge that is well known"


# the command


@dataclass(frozen=True)
class Done:
    root: Path
    models: list[str]  # of the calls, in their order
    result: Result

    @property
    def report(self) -> Report:
        return Report.model_validate(json.loads(self.result.stdout))


def invoke(root: Path, url: str, *words: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(dspy, "cache", dspy.cache)
        return CliRunner().invoke(app, [*words, *flags(url)])


def flags(url: str) -> list[str]:
    return ["--lm", "openai/writer", "--api-base", f"{url}/v1", "--finetune", "never"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """A judge that was climbed on, and a task that it then judged."""
    root = tmp_path_factory.mktemp("judged")
    judged.write(root)
    server = judged.endpoint(wrong=7)
    with served(server) as url:
        judge = ["run", "verdict", "--max-calls", "140", "--lm", "openai/judge"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setattr(dspy, "cache", dspy.cache)
            climbed = CliRunner().invoke(app, [*judge, *flags(url)[2:]])
            assert climbed.exit_code in (0, 1), climbed.output
        before = len(server.state.asked)
        found = invoke(root, url, "run", "reply", "--max-calls", "300", "--json")
        assert found.exit_code in (0, 1), found.output
        yield Done(root, server.state.asked[before:], found)


def test_every_score_is_corrected_for_the_judges_errors(done: Done) -> None:
    report = done.report
    judge = report.judge
    assert judge and judge.confusion.n >= 30 and judge.agreement.score > 0.8
    assert "its best program so far" in judge.judge and "openai/judge" in judge.judge
    for name, raw in judge.raw.items():
        shown = getattr(report.test, name)
        expected = corrected(Interval(raw.score, raw.low, raw.high, raw.n), judge.confusion)
        assert (shown.score, shown.low, shown.high) == pytest.approx(
            (expected.mean, expected.low, expected.high)
        )
        assert shown.high - shown.low > raw.high - raw.low or shown.high == 1
    gain = judge.raw["prompt"].score - judge.raw["zero_shot"].score
    assert report.test.prompt_gain.mean == pytest.approx(min(1, gain / judge.youden.score))
    assert report.roles["judge"].calls > 0 and report.roles["task"].calls > 0


def test_what_is_known_of_the_judge_from_its_own_climb_is_not_paid_again(done: Done) -> None:
    report = done.report
    assert report.judge and report.roles["judge"].cached >= report.judge.confusion.n
    assert done.models.count("judge") == report.roles["judge"].calls


def test_report_page_and_verdict_say_so(done: Done) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(done.root)
        shown = CliRunner().invoke(app, ["report", "reply", "--details"])
        again = CliRunner().invoke(app, ["verdict", "reply", "--json"])
    for told in ("it agrees with people on", "Cohen's kappa", "as judged", "corrected"):
        assert told in " ".join(shown.stdout.split()), told
    report = done.report
    assert json.loads(again.stdout)["numbers"] == report.numbers.model_dump(mode="json")
    assert "Scores before the correction" in (done.root / str(report.page)).read_text("utf-8")


def test_a_poor_judge_is_refused_before_the_task_is_asked(tmp_path: Path) -> None:
    judged.write(tmp_path)
    server = judged.endpoint(wrong=45)
    with served(server) as url:
        found = invoke(
            tmp_path,
            url,
            "run",
            "reply",
            "--judge-lm",
            "openai/judge",
            "--judge-api-base",
            f"{url}/v1",
        )
    assert found.exit_code == 2 and "too poor to tell" in found.stderr, found.output
    assert "optimize run verdict" in found.stderr
    assert set(server.state.asked) == {"judge"} and len(server.state.asked) == 140
    assert not (tmp_path / "mlruns" / "programs").exists()


def test_too_few_judged_answers_are_told_without_a_call(tmp_path: Path) -> None:
    judged.write(tmp_path, 100, every=12)
    with pytest.raises(WorkbenchError, match="people passed 91 and failed 9 "):
        opened(tmp_path, "http://127.0.0.1:9/v1")


def test_rows_that_were_chosen_for_being_hard_are_not_held_against_the_judge(
    tmp_path: Path,
) -> None:
    judged.write(tmp_path)
    base, own = "http://127.0.0.1:9/v1", load_task("verdict", tmp_path)
    before = opened(tmp_path, base).judge
    for n in range(20):
        asked = judged.question(5000 + n)
        put(own, {"question": asked, "reply": judged.right(asked), "verdict": "pass"})
    after = opened(tmp_path, base).judge
    assert before and after and set(map(str, after.rows)) == set(map(str, before.rows))


@pytest.mark.parametrize(
    "old, new",
    [
        ("Does the reply answer", "Does it nearly answer"),
        ("OutputField()", 'OutputField(desc="x")'),
    ],
)
def test_a_zero_shot_judge_that_is_asked_otherwise_is_another_judge(
    tmp_path: Path, old: str, new: str
) -> None:
    judged.write(tmp_path)
    base, path = "http://127.0.0.1:9/v1", tmp_path / "programs" / "verdict.py"
    before = opened(tmp_path, base).splits.digest
    assert opened(tmp_path, base).splits.digest == before
    path.write_text(path.read_text("utf-8").replace(old, new), encoding="utf-8")
    assert opened(tmp_path, base).splits.digest != before


@pytest.mark.parametrize(
    "old, new, told",
    [
        ('judge="verdict"', 'judge="verdit"', "Did you mean 'verdict'"),
        ('judge="verdict"', 'judge="reply"', "its own judge"),
        ('judge="verdict"', 'judge="verdict", metric=len', "one of the two, and here are both"),
        (', judge="verdict"', "", "one of the two, and here are none"),
        ("question", "query", "asks for 'question'"),
    ],
)
def test_a_judge_that_does_not_fit_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    judged.write(tmp_path)
    path = tmp_path / "programs" / "reply.py"
    path.write_text(path.read_text("utf-8").replace(old, new), encoding="utf-8")
    rows = tmp_path / "devsets" / "reply" / "rows.jsonl"
    rows.write_text(rows.read_text("utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(WorkbenchError, match=told):
        opened(tmp_path, "http://127.0.0.1:9/v1")


def test_a_verdict_that_is_neither_pass_nor_fail_is_named(tmp_path: Path) -> None:
    judged.write(tmp_path)
    path = tmp_path / "programs" / "verdict.py"
    path.write_text(path.read_text("utf-8").replace('["pass", "fail"]', '["good", "bad"]'), "utf-8")
    with pytest.raises(WorkbenchError, match='"pass", "fail"'):
        opened(tmp_path, "http://127.0.0.1:9/v1")


def test_a_judge_that_fails_leaves_the_score_missing(tmp_path: Path) -> None:
    judged.write(tmp_path)
    with served(judged.endpoint(wrong=0)) as url:
        session = opened(tmp_path, f"{url}/v1", judge_lm="openai/moody", judge_api_base=f"{url}/v1")
        rows = session.splits.train[:30]
        with dspy.context(lm=session.lm):
            found = evaluate(student(session.task), rows, session.asking)
    for row, outcome in zip(rows, found.outcomes, strict=True):
        asked = row.question
        right = outcome.answer["reply"] == judged.right(asked)
        expected = None if judged.chance(asked) < 30 else float(right)
        assert outcome.score == expected
        assert len(outcome.said) == 1, "what the judge says is no answer of the task's"
    roles = session.meter.by_role()
    assert 0 < found.missing < len(rows) and roles["task"].calls == len(rows)
    assert sum(o.usage.asked for o in found.outcomes) == len(rows), "nor is its price"


def test_the_walk_through_of_the_documentation(tmp_path: Path) -> None:
    """Its programs and its script of people, up to the first call."""
    write_project(tmp_path, ["order_slip"])
    page = (Path(__file__).parents[1] / "docs" / "judge.md").read_text("utf-8")
    _, judge, task, people = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for name, program in (("slip_judge", judge), ("judged_slip", task)):
        (tmp_path / "programs" / f"{name}.py").write_text(program, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(people, {})
    found = open_session(tmp_path, "judged_slip", RunConfig(), Observer(), asks=False)
    assert found.judge and len(found.judge.rows) == 300 and found.judge.origin.endswith("program")
    (row,) = (e for e in found.splits.val[:1])
    with pytest.raises(Unscorable, match="asks an LM"):
        scores_alone(found.task, [row], [{"slip": row.slip}])


def opened(root: Path, base: str, **knobs: Any) -> Session:
    """A session on the task, its LMs ready."""
    config = RunConfig(lm="openai/writer", api_base=base, **knobs)
    return open_session(root, "reply", config, Observer())


def test_a_judges_calls_are_planned_with_a_tuning(tiny: Callable[..., Task]) -> None:
    judged = replace(tiny(), judge="fair")
    assert least_calls(judged) == 1 + least_calls(tiny()) == 2
