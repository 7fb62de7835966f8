"""A training on record in MLflow: a tiny LM trained for real, on this processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optimize.climb.observer import Observer
from optimize.commands.session import open_session, tracked_run
from optimize.config import RunConfig
from optimize.finetune.job import TrainingJob
from optimize.lm.weights import sha256
from optimize.store.write import Run
from tests import tiny_lm
from tests.test_lora import chat, lora

WORDS = {"apple": "violin", "river": "cactus", "mountain": "teapot", "window": "rocket"}
ROWS = [chat(word, answer) for word, answer in WORDS.items()] * 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    return tiny_lm.write_gguf("llama", tiny_lm.tiny_model("llama"), path)


def trained(tracked: Run, config: RunConfig, weights: Path, out: Path) -> Path:
    """Under the epochs of the config, as `tune` has it on record."""
    job = TrainingJob(ROWS, ROWS[:4], str(weights), out, config, lambda *_: None)
    with tracked.training("lora", {"rows": len(ROWS), **lora.recipe(job)}) as log:
        path = lora.train(job, log)
        log.trained(path, lora.curve(path))
    return Path(path)


def runs(tracked: Run) -> list[Any]:
    """The trainings of a command's run, the last one first."""
    inside = f"tags.`mlflow.parentRunId` = '{tracked.id}' and tags.trainer != ''"
    found: list[Any] = tracked.client.search_runs([tracked.experiment], inside)
    return found


def test_a_training_is_a_run_with_its_losses_samples_and_adapter(
    project: Path, weights: Path, tmp_path: Path
) -> None:
    config = RunConfig(lm=f"gguf:{weights}", epochs=2)
    session = open_session(project, "review", config, Observer(), asks=False)
    with tracked_run(session, "finetune") as tracked:
        path = trained(tracked, config, weights, tmp_path)
        assert trained(tracked, config, weights, tmp_path) == path
    again, first = runs(tracked)

    def points(run: Any, metric: str) -> list[tuple[int, float]]:
        history = tracked.client.get_metric_history(run.info.run_id, metric)
        return [(one.step, one.value) for one in history]

    assert [step for step, _ in points(first, "train_loss")] == [1, 2, 3, 4]
    assert all(value > 0 for _, value in points(first, "tokens_per_second"))
    assert 0 < first.data.metrics["memory_gb"] < 2
    losses = [epoch.val_loss for epoch in lora.curve(str(path))]
    for run in (first, again):
        told = points(run, "epoch_val_loss")
        assert [step for step, _ in told] == [1, 2]
        assert [value for _, value in told] == pytest.approx(losses, abs=1e-3)
        assert run.data.params["adapter_sha256"] == sha256(path)
        assert run.info.status == "FINISHED"
    assert (first.data.params["steps_now"], again.data.params["steps_now"]) == ("4", "0")
    assert first.data.params["rank"] == "16" and first.data.params["lm"] == config.lm
    folder = Path(first.info.artifact_uri.removeprefix("file://"))
    assert sha256(folder / path.name) == sha256(path)
    samples = json.loads((folder / "samples.json").read_text())
    assert list(samples) == ["epoch 1", "epoch 2"] and len(samples["epoch 1"]) == 4
    said = samples["epoch 2"][0]
    assert said["gold"] == "violin" and "The word is apple." in said["asked"]
    assert isinstance(said["said"], str), "four steps teach this LM no word"


def test_a_training_that_ends_early_ends_its_run(project: Path) -> None:
    session = open_session(project, "review", RunConfig(), Observer(), asks=False)
    with tracked_run(session, "finetune") as tracked:
        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error), tracked.training("lora", {}):
                raise error
    assert [run.info.status for run in runs(tracked)] == ["KILLED", "FAILED"]
