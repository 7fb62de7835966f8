"""Several LoRAs on the same rows: which, at what price, and which one val chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.climb import climb
from optimize.climb.observer import Observer
from optimize.climb.preflight import preflight
from optimize.climb.rungs import LADDER
from optimize.commands.finish import Findings, on_test, settle
from optimize.commands.run import climb_record
from optimize.commands.session import Session, open_session, tracked_run
from optimize.commands.tune import Trained, train, tune, tuning_calls
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import TrainingLog
from optimize.finetune.gate import GateRecord
from optimize.finetune.handoff.recipes.trl_lora import rate_of
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.recipe import Recipe, choose, grid
from optimize.lm import embedded
from optimize.program.program import student
from optimize.report.sentences import grid_sentences
from optimize.report.text import markdown
from tests import tiny_lm
from tests.pairs import pairs_program
from tests.test_lora import chat, lora
from tests.test_training_run import runs

trainings = pytest.importorskip("optimize.finetune.lora.trainings")
memory = pytest.importorskip("optimize.finetune.lora.room")

RATE = 1e-3
WORDS = {"apple": "violin", "river": "cactus", "mountain": "teapot", "window": "rocket"}
PLACES = (
    *("kitchen", "letter", "winter", "singer", "harbour", "station", "village", "doctor"),
    *("summer", "bridge", "market", "teacher", "garden", "sister", "office", "painter"),
)
PROGRAM = pairs_program(WORDS.values())
ROWS = [
    {"text": f"{word} of the {place}", "word": answer}
    for place in PLACES
    for word, answer in WORDS.items()
]


def test_a_grid_begins_with_the_default_and_changes_one_thing_before_two() -> None:
    assert grid(1, RATE) == [Recipe(RATE)]
    rates, ranks, shares = (
        {getattr(r, n) for r in grid(7, RATE)} for n in ("rate", "rank", "share")
    )
    assert len(rates) == len(ranks) == len(shares) == 3
    apart = [
        sum((r.rank != 16, r.share != 0.5, r.rate != RATE))
        for r in (*grid(7, RATE), *grid(19, RATE), *grid(27, RATE))
    ]
    assert max(apart[:7]) == 1 and max(apart[7:26]) == 2
    assert len(set(grid(27, RATE))) == 27
    assert [r.rate for r in grid(3, RATE)] == [1e-3, 3.3e-4, 3e-3], "rates first"
    for many in (7, 13, 27):
        found = [r.share for r in grid(many, RATE)]
        assert len(set(found)) == sum(a != b for a, b in pairwise(found)) + 1


def test_a_rate_goes_by_the_width_of_the_base_and_the_steps() -> None:
    """By hand, for two widths: ten times full tuning's rate of 0.00005 at width 2000."""
    wide, narrow = 4000, 2000
    assert rate_of(narrow, rows=200, epochs=4) == 5e-4, "100 steps of eight"
    assert rate_of(narrow, rows=192, epochs=4) == rate_of(narrow, 8, 1) == 7.5e-4
    assert rate_of(wide, rows=200, epochs=4) == 2.9e-4


def test_what_is_no_worse_for_sure_goes_to_the_smaller_adapter() -> None:
    best = [1.0] * 16 + [0.0] * 4
    near = [1.0] * 15 + [0.0] * 5
    far = [1.0] * 8 + [0.0] * 12
    assert choose([best, near, far], [9, 4, 1]) == 1
    assert choose([best, far], [9, 1]) == 0, "twelve points are no chance"
    assert choose([near, best], [4, 4]) == 1, "of one size the better one"
    assert choose([best, best], [4, 4]) == 0, "of equals the first"
    missing: list[float | None] = [None, *near[1:]]
    assert choose([best, missing], [9, 4]) == 1, "a failed call is no zero"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("weights") / "tiny.gguf", tiny_lm.tiny_model("llama")
    model.config.max_position_embeddings = 2048  # it reads letters, and a prompt has many
    return tiny_lm.write_gguf("llama", model, path)


def test_a_training_of_a_grid_is_the_one_it_is_alone(weights: Path, tmp_path: Path) -> None:
    """What several share, and what was trained before, leaves no trace in an adapter."""
    chats = [chat(word, answer) for word, answer in WORDS.items()] * 3
    read: list[str] = []

    def made(out: str) -> Any:
        config = RunConfig(lm=f"gguf:{weights}", epochs=1)
        told = lambda done, total, note: read.append(note)  # noqa: E731
        job = TrainingJob(chats, chats[:3], str(weights), tmp_path / out, config, told)
        return trainings.Trainings(job)

    together = made("together")
    own = together.own
    others = {"rank": 4}, {}, {"rate": 3e-4}, {"share": 0.25}, {"share": 1.0}
    recipes = [replace(own, **other) for other in others]
    files = [Path(together.train(one, TrainingLog())) for one in recipes]
    assert len({file.read_bytes() for file in files}) == 5
    assert files[0].stat().st_size < files[1].stat().st_size > files[3].stat().st_size
    begun = sum(a != "reading rows" == b for a, b in zip(["", *read], read, strict=False))
    assert begun == 2, "once for a half, once for a quarter, and all blocks have none below"
    for recipe, file in zip(recipes[1:], files[1:], strict=True):
        alone = Path(made(f"alone {recipe}").train(recipe, TrainingLog()))
        assert alone.name == file.name and alone.read_bytes() == file.read_bytes(), recipe
    config = RunConfig(lm=f"gguf:{weights}", epochs=1)
    job = TrainingJob(chats, chats[:3], str(weights), tmp_path / "together", config, print)
    assert lora.train(job) == str(files[1]), "the default is what is trained without a grid"


class Notes(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[str] = []

    def noted(self, line: str) -> None:
        self.lines.append(line)

    def started(self, rung: str) -> None:
        self.stages.append(rung)


Opened = Callable[..., Session]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "words.py").write_text(PROGRAM)
    (tmp_path / "devsets" / "words").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "devsets" / "words" / "rows.jsonl").write_text(text)

    def make(**knobs: Any) -> Session:
        given = {"finetune": "lora", "max_calls": 400, **knobs}
        return open_session(tmp_path, "words", RunConfig(**given), Notes())

    return make


def tuned(session: Session) -> tuple[Trained, list[Any]]:
    """What came of it, and the runs of its trainings, the first one first."""
    best = student(session.task)
    best.format = "compact"
    with tracked_run(session, "finetune") as tracked, dspy.context(lm=session.lm):
        found = train(session, tracked, best, None)
        return found, runs(tracked)[::-1]


def adapters_served() -> set[Path]:
    return {key[1] for key in embedded._servers if key[1]}


def test_a_grid_is_said_recorded_and_gone_on_with(
    opened: Opened, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = adapters_served()  # by tests of other files
    session = opened(lm=f"gguf:{weights}", grid=3, epochs=1)
    many = len(session.splits.val)
    assert tuning_calls(session) - tuning_calls(opened(lm=f"gguf:{weights}")) == 2 * many
    found, on_record = tuned(session)
    watch = session.watch
    assert isinstance(watch, Notes)
    (plan,) = [line for line in watch.lines if line.startswith("A grid of 3 LoRA trainings")]
    assert "of memory" in plan and "at most" in plan and f"{3 * many} LM calls on val" in plan
    own, less, more = (float(run.data.params["learning_rate"]) for run in on_record)
    assert (less, more) == pytest.approx((own / 3, own * 3), rel=0.02)
    assert {run.data.params["rank"] for run in on_record} == {"16"}
    assert found.grid
    for run, point in zip(on_record, found.grid.points, strict=True):
        assert point.val and point.val.n == many and point.size and point.seconds > 0
        told = [run.data.metrics[f"val_score{end}"] for end in ("", "_low", "_high")]
        assert told == pytest.approx([point.val.score, point.val.low, point.val.high], abs=1e-3)
    assert found.seconds and found.seconds >= sum(p.seconds for p in found.grid.points)
    (chosen,) = [p for p in found.grid.points if p.chosen]
    (place,) = [n for n, p in enumerate(found.grid.points) if p.chosen]
    assert Path(found.tuned).name == on_record[place].data.params["tuned"]
    assert chosen.val and grid_sentences(found.grid)[0].startswith("▲ of 3 trainings is the")
    assert adapters_served() == before, "an LM at a time is served"

    # killed after two of three: what is done is not done again
    (missing,) = {run.data.params["tuned"] for run in on_record[2:]}
    (Path(found.tuned).parent / missing).unlink()
    again = opened(lm=f"gguf:{weights}", grid=3, epochs=1)
    once_more, anew = tuned(again)
    assert [run.data.params["steps_now"] != "0" for run in anew] == [False, False, True]
    assert again.meter.usage().calls <= many and once_more.tuned == found.tuned
    assert isinstance(again.watch, Notes)
    assert any(", 2 are trained already: " in line for line in again.watch.lines)


def test_a_grid_ends_where_calls_or_minutes_do(opened: Opened, weights: Path) -> None:
    many = len(opened(lm=f"gguf:{weights}").splits.val)
    then = tuning_calls(opened(lm=f"gguf:{weights}"))
    few = opened(lm=f"gguf:{weights}", grid=7, epochs=1, max_calls=then + many)
    found, on_record = tuned(few)
    assert found.grid and len(on_record) == 2, "as many as were planned for"
    skipped = [point.skipped for point in found.grid.points if point.skipped]
    assert len(skipped) == 5 and all("LM calls, " in why for why in skipped)
    assert any("Not trained: rank 16" in line for line in grid_sentences(found.grid))
    begun = opened(lm=f"gguf:{weights}", grid=3, epochs=2, max_minutes=1)
    hasty = replace(begun, start=begun.start - 59)
    plain, once = tuned(hasty)
    assert plain.grid and len(once) == 1, "the default is trained in any case"
    assert all("--max-minutes" in p.skipped for p in plain.grid.points[1:])


def test_what_would_not_fit_into_memory_is_left_out(
    opened: Opened, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def free() -> int:
        seen.append("looked")
        return room

    session = opened(lm=f"gguf:{weights}", grid=7, epochs=1)
    rows = [chat(row["text"], row["word"]) for row in ROWS]
    given = TrainingJob(rows, rows, str(weights), Path(), session.config, lambda *_: None)
    sizes = {
        share: trainings.Trainings(given).needs(Recipe(RATE, share=share)).memory
        for share in (0.5, 1.0)
    }
    room = (sizes[0.5] + sizes[1.0]) // 2
    assert sizes[0.5] < room < sizes[1.0]
    monkeypatch.setattr(memory, "free_memory", free)
    found, on_record = tuned(session)
    assert found.grid and len(on_record) == 6 and seen == ["looked"]
    (left,) = [p for p in found.grid.points if p.skipped]
    assert left.share == 1.0 and "of memory" in left.skipped
    again = opened(lm=f"gguf:{weights}", grid=7, epochs=1)
    assert tuned(again)[0].tuned == found.tuned, "what is left out does not end what is there"
    assert isinstance(session.watch, Notes)
    told = ", 1 would not fit into the memory that is free: "
    assert any(told in line for line in session.watch.lines)


def test_the_chosen_one_alone_is_judged(opened: Opened, weights: Path, tmp_path: Path) -> None:
    before = adapters_served()
    (tmp_path / "devsets" / "general").mkdir()
    asked = {"question": "What is 1 + 1?", "check": "number", "expected": [2], "skill": "sums"}
    (tmp_path / "devsets" / "general" / "rows.jsonl").write_text(json.dumps(asked) + "\n")
    session = opened(lm=f"gguf:{weights}", grid=2, epochs=1)
    with tracked_run(session, "finetune") as tracked, dspy.context(lm=session.lm):
        setup = session.setup(0)
        (compact,) = [rung for rung in LADDER if rung.name == "output_format"]
        climbed = climb(setup, [compact], Observer())
        best, evaluation = climbed.best.program, climbed.best.evaluation
        assert best and evaluation
        record = climb_record(
            session, climbed, preflight(session.task, session.splits, session.config)
        )
        tested = on_test(session, {"zero_shot": student(session.task), "prompt": best})
        made = tune(session, tracked, best, evaluation)
        gate = GateRecord(open=True, criteria=[])
        report = settle(session, tracked, Findings(record, gate, best, evaluation, tested, made))
        (_, *others) = runs(tracked)
    assert report.grid and len(report.grid.points) == 2 and len(others) == 1 and not report.failed
    (chosen,) = [p for p in report.grid.points if p.chosen]
    short = made.attempts[0]
    assert short.evaluation and chosen.val and chosen.val.score == short.evaluation.score.mean
    assert report.test.tuned and report.test.tuned.n == len(session.splits.test)
    served = adapters_served() - before
    assert served == {Path(made.tuned)}, "the others were asked for val rows alone"
    assert "### Trainings, on val" in markdown(report)


def test_nobody_else_trains_a_grid(opened: Opened) -> None:
    with pytest.raises(WorkbenchError, match=r"--grid 3 is for LoRA trainings here"):
        opened(lm="openai/gpt-4.1", finetune="openai", grid=3)


@pytest.mark.lm
@pytest.mark.slow
def test_the_embedded_lm_is_tuned_on_a_grid(opened: Opened, tmp_path: Path) -> None:
    """Few steps at a third of the rate teach less; that little may be all the same to val."""
    folder = tmp_path / "devsets" / "words"
    (folder / "rows.jsonl").unlink()
    for name, rows in (("train", ROWS[:20]), ("val", ROWS[24:32]), ("test", ROWS[32:40])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, on_record = tuned(opened(grid=2, epochs=3))
    assert found.grid and len(on_record) == 2
    losses = [run.data.metrics["epoch_val_loss"] for run in on_record]
    assert losses[0] < 0.8 * losses[1], losses
    scores = [p.val.score for p in found.grid.points if p.val]
    assert max(scores) > 0, "the tuned LMs answer where they are served"
    assert found.grid.points[scores.index(max(scores))].chosen, "of one size the better one"
