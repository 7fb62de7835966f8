"""Tasks, LMs, seeds and knobs against each other: the file, a cell, the budget, the comparison."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import dspy
import pytest
from click.testing import Result
from typer.testing import CliRunner

from bench.crash import answer
from optimize.cli import app
from optimize.commands.budget import SLICE, Ledger, SharedPurse, read_drawn
from optimize.commands.sweeping import plan
from optimize.commands.sweeping.plan import read_sweep
from optimize.errors import BudgetExhausted, WorkbenchError
from optimize.report.html.sweep import sweep_page
from optimize.report.prices import Price, pareto
from optimize.report.sweep import CellFound, CellRecord, SweepRecord, compared
from optimize.report.swept import following, task_sentences
from optimize.stats.intervals import mean_interval
from optimize.stats.records import ScoreRecord
from optimize.store.champion import present
from optimize.store.open import client
from tests import judged
from tests.faulty_server import faulty_app
from tests.test_lm import served

SMALL = """
tasks = ["review"]
lms = ["openai/one", {lm = "openai/two", api_base = "URL", threads = 2}]
seeds = [0, 1]
[grid]
finetune = "never"
target = 0.99
[limits]
max_calls = 45
[budget]
calls = 1000
"""


def written(root: Path, text: str = SMALL, **replaced: str) -> Path:
    for old, new in replaced.items():
        text = text.replace(old, new)
    path = root / "small.toml"
    path.write_text(text)
    return path


def sweep(*words: str) -> Result:
    return CliRunner().invoke(app, ["sweep", "small.toml", *words])


def test_cells_are_the_product_with_seeds_outermost(project: Path) -> None:
    cells = read_sweep(project, written(project)).cells
    told = [(c.number, c.task, c.setting, c.config.seed) for c in cells]
    assert told == [
        (0, "review", "openai/one", 0),
        (1, "review", "openai/two", 0),
        (2, "review", "openai/one", 1),
        (3, "review", "openai/two", 1),
    ]
    assert len({c.id for c in cells}) == 4
    assert all(c.config.max_calls == 45 and c.config.finetune == "never" for c in cells)
    assert cells[1].config.api_base == "URL" and cells[1].config.threads == 2


def test_a_cell_keeps_its_folder_when_the_sweep_grows(project: Path) -> None:
    before = {c.id for c in read_sweep(project, written(project)).cells}
    text = SMALL.replace("[0, 1]", "[7, 0, 1]").replace("[grid]", "[grid]\nrepeats = [1, 2]")
    more = read_sweep(project, written(project, text)).cells
    assert len(more) == 12 and "repeats=2" in more[-1].setting
    wider = written(project, SMALL.replace("[0, 1]", "[7, 0, 1]"))
    assert before < {c.id for c in read_sweep(project, wider).cells}


def test_a_knob_that_is_a_list_has_a_list_for_a_value(project: Path) -> None:
    for given, values in (
        ('["votes", "simba"]', [("votes", "simba")]),
        ('"votes"', None),
        ('[[], ["votes"]]', [(), ("votes",)]),
    ):
        text = SMALL.replace("[grid]", f"[grid]\nwithout = {given}")
        if values is None:
            with pytest.raises(WorkbenchError, match="a list, in brackets"):
                read_sweep(project, written(project, text))
            continue
        cells = read_sweep(project, written(project, text)).cells
        assert {c.config.without for c in cells} == set(values)


def test_cells_of_a_judge_that_was_changed_are_others(project: Path) -> None:
    judged.write(project)
    text = SMALL.replace('["review"]', '["reply"]')
    before = [c.inputs for c in read_sweep(project, written(project, text)).cells]
    with (project / "devsets" / "verdict" / "rows.jsonl").open("a") as rows:
        rows.write(json.dumps({"question": "Q?", "reply": "?", "verdict": "fail"}) + "\n")
    plan._files.cache_clear()  # a command reads them once
    after = [c.inputs for c in read_sweep(project, written(project, text)).cells]
    assert not set(before) & set(after)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[budget]", "[budgett]", "'budgett' is no key of a sweep. Did you mean 'budget'?"),
        ("calls = 1000", "cals = 1000", "'budget.cals' is no key of a sweep. Did you mean 'calls'"),
        ('["review"]', '["reviw"]', "no task 'reviw'"),
        ('finetune = "never"', 'finetun = "never"', "'grid.finetun' is no knob"),
        ('finetune = "never"', 'finetune = "nevr"', "Option 'finetune'"),
        ("threads = 2", "thread = 2", "Did you mean 'threads'?"),
        ("target = 0.99", "seed = [3]", "grid.seed has a place of its own"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "are the same"),
        ("seeds = [0, 1]", "seeds = []", "seeds: Tuple should have at least 1 item"),
        ("target = 0.99", "repeats = []", "grid.repeats is empty"),
        ("calls = 1000", "calls = 0", "budget.calls: Input should be greater than or equal to 1"),
        ("[grid]", "[grid", "is not valid TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(project: Path, old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(WorkbenchError) as error:
        read_sweep(project, written(project, SMALL.replace(old, new, 1)))
    assert said in str(error.value) and "small.toml" in str(error.value)


def test_a_dry_run_lists_the_cells_and_asks_nobody(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    written(project)
    done = sweep("--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [cell["most"] for cell in found["cells"]] == [45] * 4
    assert found["budget_calls"] == 1000 and found["cells"][0]["outcome"] == "not run"
    assert "4 cells, 180 LM calls at most" in done.stderr
    assert not (project / "mlruns").exists()
    written(project, SMALL.replace("max_calls = 45", "max_calls = 9"))
    done = sweep("--dry-run")
    assert done.exit_code == 2 and "cannot pay for its val and test rows" in done.stderr
    done = sweep("--cell", "4")
    assert done.exit_code == 2 and "numbered 0 to 3" in done.stderr


def test_a_cell_is_a_run_of_its_own_and_is_not_run_twice(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    server = faulty_app(answer, lambda asked: "")
    with served(server) as url:
        path = written(project, URL=f"{url}/v1")
        done = sweep("--cell", "1", "--json")
        assert done.exit_code == 1, done.stderr
        found, sent = CellRecord.model_validate_json(done.stdout), len(server.state.log)
        assert found.found and found.calls == sent >= 20
        assert sweep("--cell", "1").exit_code == 1 and len(server.state.log) == sent

    cell = read_sweep(project, path).cells[1]
    home = project / "mlruns" / "sweeps" / "small" / cell.id
    assert read_drawn(home / "spent.log")[:2] == (sent, 0.0)
    ledger = json.loads((home.parent / "budget.json").read_text())
    assert ledger[cell.id] == {
        **{"granted": sent, "spent": sent, "usd": 0.0, "tokens": 9 * sent},
        "open": False,
    }

    store = client(project)  # the project's: no champion, and no run of the task
    assert present(store, "review") is None and store.get_experiment_by_name("review") is None
    where = store.get_experiment_by_name("sweep-small").experiment_id
    parent, nested = sorted(store.search_runs([where]), key=lambda run: len(run.data.params))
    assert nested.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert nested.data.metrics["score"] == round(found.found.test.score, 4)

    monkeypatch.chdir(home)  # commands that look at runs look at its own
    shown = CliRunner().invoke(app, ["verdict", "review"])
    assert shown.exit_code == 1 and found.found.verdict.upper() in shown.stdout, shown.stderr


def test_a_cell_that_fails_says_why_and_one_without_budget_goes_on_with_more(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    server = faulty_app(answer, lambda asked: "")
    with served(server) as url:
        path = written(project, SMALL.replace("calls = 1000", "calls = 40"), URL=f"{url}/v1")
        assert sweep("--cell", "3").exit_code in (1, 2)
        left = 40 - len(server.state.log)
        done = sweep("--cell", "1", "--json")  # it finds answers of the other, and a few calls
        known = json.loads(done.stdout)
        assert len(server.state.log) <= 40 and known["calls"] <= left
        assert known["short"] == (known["calls"] == left) or known["error"]
        path = written(project, URL=f"{url}/v1")
        done = sweep("--cell", "1", "--json")
        assert json.loads(done.stdout)["found"] and not json.loads(done.stdout)["short"]
    done = sweep("--cell", "0", "--json")  # a hosted LM without its key
    found = json.loads(done.stdout)
    assert done.exit_code == 2 and "needs a key" in found["error"] and found["found"] is None
    assert read_sweep(project, path).cells[0].id == found["id"]


def test_a_ledger_grants_no_call_too_many_under_threads(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "budget.json", 500, None)
    sent = []

    def spend(name: str) -> None:
        with SharedPurse(ledger, name, tmp_path / name, "test") as purse:
            try:
                while True:
                    purse.take(1)
            except BudgetExhausted:
                sent.append(purse.drawn.calls)

    threads = [threading.Thread(target=spend, args=(f"cell{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 490 <= sum(sent) <= 500  # what one was granted when another gave up may lie idle
    assert sum(read_drawn(tmp_path / f"cell{n}").calls for n in range(5)) == sum(sent)
    with SharedPurse(ledger, "late", tmp_path / "late", "test") as late:  # it went back
        for _ in range(500 - sum(sent)):
            late.take(1)
        with pytest.raises(BudgetExhausted, match="test"):
            late.take(1)


def test_a_lost_cells_slice_returns_when_it_is_resumed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "budget.json", 2 * SLICE + 8, None)
    lost = SharedPurse(ledger, "a", tmp_path / "a", "test")
    lost.__enter__()  # and no end: its process is killed
    for _ in range(3):
        lost.take(1)
    cells = json.loads((tmp_path / "budget.json").read_text())
    assert cells["a"]["granted"] > 3
    with SharedPurse(ledger, "a", tmp_path / "a", "test") as again:
        assert again.drawn.calls == 3
        for _ in range(2 * SLICE + 5):
            again.take(1)
        with pytest.raises(BudgetExhausted):
            again.take(1)


def test_a_budget_in_dollars_ends_the_slices(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "budget.json", None, 1.0)
    with SharedPurse(ledger, "a", tmp_path / "a", "test") as purse:
        for _ in range(200):
            try:
                purse.take(1)
            except BudgetExhausted:
                break
            purse.paid(0.05, 7)
    assert 1.0 <= read_drawn(tmp_path / "a").usd <= 1.0 + SLICE * 0.05


def cell(number: int, lm: str, seed: int, right: range, tokens: float, **given: Any) -> CellRecord:
    """A cell that was right on these of 40 test rows."""
    rows = {f"row{n}": float(n in right) for n in range(40)}
    score = ScoreRecord.of(mean_interval(list(rows.values())))
    found = CellFound(
        run="r",
        verdict="plateau",
        target=0.9,
        target_met=score.score >= 0.9,
        val=score,
        test=score,
        zero_shot=score,
        levers=[],
        gate_open=number == 1,
        rows=rows,
        price=Price(tokens=tokens, usd=None),
    )
    return CellRecord(
        number=number, id=f"c{number}", task="t", lm=lm, setting=lm, seed=seed,
        command=f"optimize run t --lm {lm} --seed {seed}", inputs="", found=found, **given,
    )  # fmt: skip


def test_lms_are_compared_on_the_rows_that_both_answered() -> None:
    cells = [
        cell(0, "big", 0, range(36), 900, calls=10),
        cell(1, "big", 1, range(38), 900),
        cell(2, "small", 0, range(35), 100),
        cell(3, "small", 1, range(34), 100),
        cell(4, "poor", 0, range(10), 500),
        CellRecord(**{**cell(5, "poor", 1, range(9), 0).model_dump(), "found": None, "error": "x"}),
    ]
    (task,) = compared(cells)
    big, small, poor = task.settings
    assert (big.setting, small.setting, poor.setting) == ("big", "small", "poor")
    assert big.behind is None and big.met == 2 and big.test.n == 40 and big.calls == 10
    assert big.spread == pytest.approx(0.0354, abs=1e-3) and poor.spread is None
    assert small.behind and small.behind.n == 40 and small.behind.low < 0 <= small.behind.high
    assert poor.behind and poor.behind.high < 0
    assert big.on_front and small.on_front and not poor.on_front
    assert task.due == [1] and task.failed == [5]
    said = " ".join(task_sentences(task, cells))
    assert "Not told apart from it by these test rows: small." in said
    assert "Worse than it: poor." in said and "Cell 5 failed: x" in said

    record = SweepRecord(
        name="s",
        file="s.toml",
        cells=cells,
        tasks=[task],
        budget_calls=100,
        budget_usd=None,
        calls=10,
        usd=0.0,
    )
    assert not record.target_met and record.outcome == "2 of 6 cells at the target"
    assert following(record) == ["optimize run t --lm big --seed 1"]
    page = sweep_page(record, "today")
    assert "Cost against quality" in page and "Seed by seed" in page and "<script" not in page


def test_the_front_holds_what_nothing_as_cheap_beats() -> None:
    cheap, dear = Price(tokens=1, usd=None), Price(tokens=9, usd=None)
    right = {"a": 5, "b": 6, "c": 6, "d": 7}
    of_ten = {name: [1.0] * n + [0.0] * (10 - n) for name, n in right.items()}
    points = [(name, cheap if name in "ab" else dear, of_ten[name]) for name in right]
    assert pareto([*points, ("e", None, [1.0] * 10)]) == {"b", "d"}
    # six of six, on which the cheap one is as good
    easy = [*[1.0] * 6, None, None, None, None]
    assert pareto([("b", cheap, of_ten["b"]), ("f", dear, easy)]) == {"b"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_node_costs_no_more_than_the_calls_in_flight(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    from bench.sweep import scenario

    found = scenario(tmp_path, 2, 1, 1)  # bench.sweep takes more
    assert found.cells == found.equal == 2 and found.code == 1
    assert found.twice <= found.in_flight
    assert found.requests <= found.written <= found.budget
    assert found.written - found.requests <= found.in_flight
