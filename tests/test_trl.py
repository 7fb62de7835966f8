"""TRL as a trainer, by the hand-off's own recipe: its command and configuration, what is refused, a
training that is killed and gone on with, preferences after it, and the real command on the 135M LM.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.session import load_task_and_rows
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Epoch, Sample, Step, TrainingLog, kept
from optimize.finetune.handoff.recipes import trl_lora
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.served import ServedLM
from optimize.finetune.trl import launch, train, vllm
from optimize.lm import embedded, weights
from optimize.program.program import student
from optimize.store.open import client
from optimize.store.write import Run
from tests import tiny_lm
from tests.test_cli import optimize
from tests.test_fallback import PROGRAM
from tests.test_lm import served
from tests.test_lora import WORDS, chat
from tests.test_report import plateau
from tests.vllm_server import vllm_app

pytest.importorskip("trl", reason="the trl extra is not installed")

CHATS = [chat(word, answer) for word, answer in WORDS.items()]
PAIRS = [
    {
        "prompt": c["messages"][:-1],
        "chosen": c["messages"][-1:],
        "rejected": chat("x", "tomato")["messages"][-1:],
    }
    for c in CHATS * 2
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    return tiny_lm.write_gguf("llama", tiny_lm.tiny_model("llama"), path)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a task."""
    from optimize.commands.new import write_task

    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "review")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("gpus", "kind", "processes"), [(0, "NO", 1), (1, "NO", 1), (2, "FSDP", 2), (8, "FSDP", 8)]
)
def test_accelerates_own_loader_reads_the_configuration(
    tmp_path: Path, gpus: int, kind: str, processes: int
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / launch.CONFIG
    path.write_text(json.dumps(launch.accelerate_config(gpus, half=True)))
    found = load_config_from_file(str(path))
    assert (found.distributed_type.value, found.num_processes) == (kind, processes)
    assert (found.use_cpu, found.mixed_precision) == (not gpus, "bf16")
    assert bool(found.fsdp_config) is (gpus > 1)


def test_a_dry_run_shows_the_command_and_checks_it(task: Path, tiny: Path) -> None:
    """For two GPUs, wherever this runs: in the environment that accelerate would make for them."""
    words = ["finetune", "review", "--backend", "trl", "--lm", f"gguf:{tiny}", "--gpus", "2"]
    done = CliRunner().invoke(app, [*words, "--dry-run"])
    assert done.exit_code == 0, done.stderr
    told = done.stdout
    folder = task / "mlruns" / "adapters" / "review" / "dry_run.trl"
    assert "TRL would train on 2 GPUs, base in bf16. Nothing was trained." in told
    assert "accelerate launch --config_file accelerate.json" in told and str(folder) in told
    assert "TRL's SFTConfig is constructed (learning rate 0.0" in told
    assert ", 4 rows a step on each device)" in told
    assert '"fsdp_version": 2' in told and "memory on each GPU" in told
    assert not (folder / "out").exists() and (folder / "chat" / "train.jsonl").is_file()
    refused = CliRunner().invoke(app, ["finetune", "review", "--dry-run"])
    assert refused.exit_code == 2 and "--backend trl" in refused.stderr


def test_what_accelerate_or_trl_would_refuse_is_told(tmp_path: Path, tiny: Path) -> None:
    made = launch.Launch(tmp_path, 2)
    text = json.dumps(launch.accelerate_config(2, half=True) | {"zones": 3})
    (tmp_path / launch.CONFIG).write_text(text)
    with pytest.raises(WorkbenchError, match=r"accelerate refuses .*unknown keys .*zones"):
        made.check(["--method", "sft"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gpus", "99"), "--gpus 99: this machine has"),
        (("--finetune-base", "devsets"), "neither a transformers folder nor a hub name"),
        (("--lm", "openai/x"), "it needs --finetune-base, a transformers folder or hub name"),
        (("--backend", "lora", "--method", "kto"), "--method kto is TRL's"),
        (("--gpus", "-1"), "'gpus'"),
    ],
)
def test_what_could_not_be_trained_is_refused_first(
    task: Path, words: tuple[str, ...], told: str
) -> None:
    done = CliRunner().invoke(app, ["finetune", "review", "--backend", "trl", *words])
    assert done.exit_code == 2 and told in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr


def test_without_trl_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "find_spec", lambda name: None if name == "trl" else name)
    with pytest.raises(WorkbenchError, match=r"needs trl: pip install 'optimize-workbench\[trl\]'"):
        train.check_config(RunConfig(finetune="trl"))


def test_a_training_on_other_rows_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trl_lora, "HANDOFF", tmp_path)
    (tmp_path / "chat").mkdir()
    for side in ("train", "val"):
        (tmp_path / "chat" / f"{side}.jsonl").write_text(json.dumps(CHATS[0]) + "\n")
    args = trl_lora.parsed({"base": "x", "epochs": 3, "seed": 0}, [])
    trl_lora.note_start(tmp_path / "out", args)
    assert trl_lora.same(tmp_path / "out", args)
    (tmp_path / "chat" / "train.jsonl").write_text(json.dumps(CHATS[1]) + "\n")
    with pytest.raises(SystemExit, match=r"differs in chat/train\.jsonl\. Delete that folder, or"):
        trl_lora.note_start(tmp_path / "out", args)


@pytest.fixture
def vllm_server() -> Iterator[tuple[FastAPI, str]]:
    found = vllm_app("base-1b", lambda messages, tuned: "red")
    with served(found) as url:
        yield found, url + "/v1"


def test_vllm_is_given_the_adapter_by_name(
    vllm_server: tuple[FastAPI, str], tmp_path: Path
) -> None:
    found, url = vllm_server
    config = RunConfig(lm="openai/base-1b", api_base=url)
    with pytest.raises(WorkbenchError, match=r"it answers 404, .*--lora-modules paint-1="):
        vllm.serve(config, "paint-1", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    for _ in range(2):  # what is served already is not loaded again
        vllm.serve(config, "paint-1", tmp_path)
    assert found.state.loaded["paint-1"] == tmp_path


def chance(base: Path, adapter: Path | None, row: dict[str, Any]) -> float:
    """Log-probability of the gold answer's first token, where it is served."""
    read = ServedLM(base).encode(row["messages"])
    body = {"prompt": list(read.ids[: read.prompt]), "n_predict": 1, "temperature": 0}
    answer = embedded.serve(base, adapter).post("/completion", body | {"n_probs": 60_000})
    (first,) = answer["completion_probabilities"]
    told = {one["id"]: one["logprob"] for one in first["top_logprobs"]}
    return float(told[read.answer[0]])


class Written(TrainingLog):
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.samples: dict[int, list[Sample]] = {}

    def step(self, step: Step) -> None:
        self.steps.append(step)

    def epoch(self, number: int, epoch: Epoch, samples: Any) -> None:
        self.samples[number] = samples


KILLED = """
import json, os, signal, sys
from pathlib import Path
from optimize.config import RunConfig
from optimize.finetune.job import TrainingJob
from optimize.finetune.trl import train

def killed(done, total, note):
    if done == 4:  # in the second epoch
        os.kill(os.getpid(), signal.SIGKILL)

rows, val = json.loads(sys.argv[1])
config = RunConfig(lm=f"gguf:{sys.argv[2]}", epochs=2, method="dpo", finetune="trl")
train.train(TrainingJob(rows, val, sys.argv[2], Path(sys.argv[3]), config, killed))
"""


def inside(folder: Path) -> list[psutil.Process]:
    """The processes that work in it or below."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if str(process.info["cwd"] or "").startswith(str(folder)):
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_training_goes_on_and_preferences_follow_on_the_same_adapter(
    tiny: Path, tmp_path: Path
) -> None:
    rows = [*PAIRS, *CHATS, *CHATS]  # three steps an epoch
    given = json.dumps([rows, CHATS])
    died = subprocess.run(
        [sys.executable, "-c", KILLED, given, str(tiny), str(tmp_path)], capture_output=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    deadline = time.monotonic() + 30
    while inside(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not inside(tmp_path), "whoever is killed takes its training along"
    config = RunConfig(lm=f"gguf:{tiny}", epochs=2, method="dpo", finetune="trl")
    log, said = Written(), list[str]()
    again = TrainingJob(rows, CHATS, str(tiny), tmp_path, config, lambda *_: None, said.append)
    path = Path(train.train(again, log))
    steps = [one.number for one in log.steps]
    # by the time it was killed a fast machine may have ended the second epoch too
    assert steps in ([4, 5, 6, 7, 8], [7, 8]), "no step of epoch 1, then DPO's"
    curve = train.curve(str(path), tmp_path)
    assert len(curve) == 3 and all(epoch.seconds > 0 for epoch in curve)
    assert curve[0].val_loss > curve[1].val_loss, "it learns"
    assert abs(curve[2].train_loss - 0.693) < 0.01, "DPO's reference is what SFT made"
    shown = log.samples[max(log.samples)][0]
    assert shown.gold == "violin" and "The word is apple." in shown.asked
    assert said[0].startswith("TRL's training takes about ") and "the processor" in said[1]
    (folder,) = tmp_path.glob("*.trl")
    best = "dpo" if kept(curve) == 2 else "sft"
    kept_files = [folder / "out" / name / trl_lora.WEIGHTS for name in (best, "dpo")]
    assert kept_files[0].read_bytes() == kept_files[1].read_bytes()
    assert not list(folder.rglob("checkpoint-*"))
    gains = [chance(tiny, path, row) - chance(tiny, None, row) for row in CHATS]
    assert sum(gains) > 0, "what was learned is served"


@pytest.mark.slow
def test_a_base_that_vllm_serves_is_trained_and_loaded_there(
    vllm_server: tuple[FastAPI, str], tiny: Path, tmp_path: Path
) -> None:
    found, url = vllm_server
    own = {"lm": "openai/base-1b", "api_base": url, "finetune_base": str(tiny)}
    config = RunConfig(**own, finetune="trl", epochs=1)
    train.check_config(config)
    out = tmp_path / "order_slip"
    name = train.train(TrainingJob(CHATS, CHATS, str(tiny), out, config, lambda *_: None))
    assert name.startswith("order-slip-") and len(train.curve(name, out)) == 1
    assert (found.state.loaded[name] / trl_lora.WEIGHTS).is_file()


@pytest.fixture
def plateaued(tmp_path: Path) -> Path:
    """A project with a plateau of the embedded LM on record, on a handful of short rows."""
    rng = random.Random(0)
    (tmp_path / "programs").mkdir()
    short = PROGRAM.replace("max_tokens=60", "max_tokens=12")
    (tmp_path / "programs" / "paint.py").write_text(short)
    question = {"question": "What is 5 + 7?", "check": "number", "expected": [12], "skill": "sums"}
    sides = {"train": 20, "val": 8, "test": 8}
    files: dict[str, list[dict[str, Any]]] = {"general/rows": [question]}
    for side, many in sides.items():
        things = ["".join(rng.sample("bcdfghjklmnpqrstvwxz", 6)) for _ in range(many)]
        rows = [{"thing": t, "colour": ("red", "green", "blue")[ord(t[0]) % 3]} for t in things]
        files[f"paint/{side}"] = rows
    for name, lines in files.items():
        path = tmp_path / "devsets" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task, splits = load_task_and_rows(tmp_path, "paint", RunConfig())
    best = student(task)
    best.format = "compact"
    with Run(tmp_path, "paint", "run", {}, splits) as tracked:
        tracked.settle(plateau(task="paint", data_hash=splits.digest, rows=sides), best, best)
    return tmp_path


@pytest.mark.lm
@pytest.mark.slow
def test_the_command_trains_the_embedded_lm_and_serves_what_came_of_it(
    plateaued: Path,
) -> None:
    project = plateaued
    # as many calls as leave none for levers on the tuned LM, which take a minute
    words = (
        "finetune",
        "paint",
        "--backend",
        "trl",
        "--epochs",
        "1",
        "--max-calls",
        "76",
        "--json",
    )
    done = optimize(project, *words)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["decision"]["tuned"].startswith("trl") and len(found["training"]) == 1
    folder = project / "mlruns" / "adapters" / "paint"
    (adapter,) = folder.glob("*.gguf")
    store = client(project)
    experiment = store.get_experiment_by_name("paint").experiment_id
    (training,) = store.search_runs([experiment], "tags.trainer = 'trl'")
    assert training.data.params["adapter_sha256"] == weights.sha256(adapter)
    steps = store.get_metric_history(training.info.run_id, "train_loss")
    assert [one.step for one in steps] == list(range(1, len(steps) + 1)) and 2 <= len(steps) <= 4
    row = json.loads(
        (next(folder.glob("*.trl")) / "chat" / "train.jsonl").read_text().split("\n")[0]
    )
    base = weights.pull_embedded(print)
    assert chance(base, adapter, row) > chance(base, None, row)
