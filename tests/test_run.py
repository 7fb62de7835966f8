"""The whole command on the real LM: climb, verdict, report, MLflow, the same again for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optimize.report.record import Report
from tests.test_cli import optimize

pytestmark = [pytest.mark.lm, pytest.mark.slow]
CALLS = "--max-calls=110"
LINES = ("score_by_calls", "score_by_rung")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "programs").mkdir()
    assert optimize(root, "new", "review").returncode == 0
    return root


@pytest.fixture(scope="module")
def first(project: Path) -> dict[str, Any]:
    done = optimize(
        project, "run", "review", "--target", "0.99", "--finetune", "never", CALLS, "--json"
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)  # stdout is the report and nothing else


def test_the_report_holds_every_number_with_its_interval(first: dict[str, Any]) -> None:
    report = Report.model_validate(first)
    assert report.target == 0.99 and not report.target_met
    assert report.verdict in ("plateau", "indecisive", "budget", "exhausted", "degenerate")
    assert report.attempts[0].rung == "zero_shot" and report.attempts[0].val
    for score in (
        report.test.zero_shot,
        report.test.prompt,
        *(a.val for a in report.attempts if a.val),
    ):
        assert 0 <= score.low <= score.score <= score.high <= 1 and score.n > 0
    assert {a.rung for a in report.attempts} >= {"output_format", "demo_search", "passages"}
    assert (
        next(a for a in report.attempts if a.rung == "passages").skipped
        == "the task has no corpus.jsonl"
    )
    assert all(a.val or a.skipped or a.error for a in report.attempts), (
        "every rung is accounted for"
    )
    assert 0 < report.lm_calls <= 110 and report.cost_usd == 0
    assert not report.gate.open or report.verdict == "plateau"


def test_the_same_command_again_pays_nothing_and_says_the_same(
    project: Path, first: dict[str, Any]
) -> None:
    done = optimize(
        project, "run", "review", "--target", "0.99", "--finetune", "never", CALLS, "--json"
    )
    again = json.loads(done.stdout)
    assert again["lm_calls"] == 0 and "since the last run" not in done.stderr
    told = ("rung", "val", "gain", "promoted", "skipped")
    assert [[a[k] for k in told] for a in again["attempts"]] == [
        [a[k] for k in told] for a in first["attempts"]
    ]
    assert again["test"] == first["test"] and again["verdict"] == first["verdict"]


def test_report_and_tasks_show_the_last_run(project: Path, first: dict[str, Any]) -> None:
    shown = optimize(project, "report", "review", "--json")
    assert shown.returncode == 1
    assert json.loads(shown.stdout)["data_hash"] == first["data_hash"]
    listed = optimize(project, "tasks")
    assert "review" in listed.stdout and first["verdict"] in listed.stdout


def test_the_report_says_how_sure_it_is(first: dict[str, Any]) -> None:
    report = Report.model_validate(first)
    n = report.numbers
    assert (
        n.best.score <= max(a.val.score for a in report.attempts if a.val)
        and n.correction <= 0
        and n.chosen_from >= 1
    )
    assert 0 <= n.reached <= n.chance <= 1 and 0 < n.smallest_gain <= 1 and n.rung_calls > 0
    assert (
        set(report.preflight.baselines)
        == set(report.test.baselines)
        == {"same answer to every row", "nearest neighbour", "TF-IDF + logistic regression"}
    )
    assert report.test.prompt_gain.p is not None and all(
        s.coverage == 1.0 for s in (n.best, report.test.zero_shot, report.test.prompt)
    )


def test_the_verdict_is_drawn_again_from_the_store_alone(
    project: Path, first: dict[str, Any]
) -> None:
    done = optimize(project, "verdict", "review", "--json")
    again = json.loads(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (again["verdict"], again["reason"], again["numbers"]) == (
        first["verdict"],
        first["reason"],
        first["numbers"],
    )
    by_id = optimize(project, "verdict", again["run"][:8], "--json")
    assert json.loads(by_id.stdout) == again


def test_the_gate_is_judged_again_from_the_last_run(project: Path, first: dict[str, Any]) -> None:
    done = optimize(project, "gate", "review", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found == first["gate"] and not found["open"]
    declared = {
        c["name"]: c["passed"]
        for c in json.loads(
            optimize(project, "gate", "review", "--waive", "a trial", "--json").stdout
        )["criteria"]
    }
    assert declared["waived"] and not declared["train rows"], (
        "28 train rows are too few, whatever is waived"
    )
    refused = optimize(project, "finetune", "review", "--waive", "a trial")
    assert (
        refused.returncode == 2
        and "gate of the last climb is closed" in refused.stderr
        and "Traceback" not in refused.stderr
    )


def test_two_runs_compare_on_the_rows_both_scored(project: Path, first: dict[str, Any]) -> None:
    arguments = (
        "--target",
        "0.99",
        "--finetune",
        "never",
        "--max-calls",
        "60",
        "--seed",
        "3",
        "--test-rows",
        "8",
    )
    other = optimize(project, "run", "review", *arguments, "--json")
    found = json.loads(optimize(project, "compare", "review~1", "review", "--json").stdout)
    assert found["test"]["gain"]["n"] == 8 and found["val"]["gain"]["n"] == first["rows"]["val"]
    assert found["test"]["after"]["score"] == json.loads(other.stdout)["test"]["prompt"]["score"]
    wrong = optimize(project, "compare", "review~9", "review")
    assert wrong.returncode == 2 and "finished runs" in wrong.stderr


def test_everything_is_in_the_store(project: Path, first: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("review")
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    parent = parents[-1]  # the first command; runs come newest first
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(nested) == len(first["attempts"])
    scored = [r for r in nested if "score" in r.data.metrics]
    used = ("calls", "tokens_in", "tokens_out", "usd", "seconds", "ms_a_call")
    for key in ("score", "score_low", "score_high", *(f"used_{name}" for name in used)):
        assert key in scored[-1].data.metrics, key
    assert all(
        {"score_gain", "score_gain_low", "score_gain_high"} <= r.data.metrics.keys()
        for r in scored
        if r.data.params["rung"] != "zero_shot"
    )
    for run in (parent, *scored):
        assert next(iter(run.data.metrics)) == min(run.data.metrics) == "score"
    told = {"rung", "rung_family", "format", "demos", "demos_nearest", "passages", "instructions"}
    assert all(told | {"lm", "teacher", "seed", "target"} <= r.data.params.keys() for r in scored)
    files = {item.path for item in client.list_artifacts(scored[0].info.run_id)}
    assert files == {"examples.json", "program.json", "prompt.txt"}
    assert {
        "report.json",
        "program.json",
        "prompt.txt",
        "history.json",
        "val_scores.json",
        "test_scores.json",
    } <= {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert (
        parent.data.tags["verdict"] == first["verdict"]
        and "Target" in parent.data.tags["mlflow.note.content"]
    )
    found = first["test"]["prompt"]["score"]
    assert parent.data.metrics["score"] == pytest.approx(found, abs=1e-4)
    assert parent.info.run_name.startswith(f"{first['verdict']} {found:.2f}")
    assert len(parent.info.run_name) <= 20
    assert {i.dataset.name for i in parent.inputs.dataset_inputs} == {
        "review-train",
        "review-val",
        "review-test",
    }
    lines = {name: client.get_metric_history(parent.info.run_id, name) for name in LINES}
    assert [len(line) for line in lines.values()] == [len(first["attempts"])] * 2
    assert client.get_model_version_by_alias("review", "champion").run_id == parent.info.run_id


def test_another_lm_behind_an_address_goes_the_same_way(project: Path) -> None:
    """The embedded server, reached as a foreign host, by model string, address and key."""
    from optimize.lm import embedded, weights

    endpoint = embedded.serve(weights.pull_embedded(print))
    arguments = (
        "--lm",
        "openai/foreign",
        "--api-base",
        endpoint.url,
        "--max-calls",
        "40",
        "--test-rows",
        "8",
        "--finetune",
        "never",
        "--json",
    )
    wrong = optimize(project, "run", "review", *arguments, OPTIMIZE_API_KEY="another-key")
    assert (
        wrong.returncode == 2
        and "Traceback" not in wrong.stderr
        and "another-key" not in wrong.stderr
    )
    done = optimize(project, "run", "review", *arguments, OPTIMIZE_API_KEY=endpoint.key)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert (
        report["lm"] == "openai/foreign"
        and report["cost_usd"] is None
        and report["attempts"][0]["val"]["n"] > 0
    )
