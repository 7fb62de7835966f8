"""LoRA: trained here, written as GGUF, served beside the base LM and chosen per request."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora import cut, needs, objective, room
from optimize.finetune.lora import model as lora_model
from optimize.finetune.lora.adapter_gguf import Served
from optimize.finetune.lora.needs import shape
from optimize.finetune.lora.served import ServedLM
from optimize.lm import weights
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from tests import tiny_lm

lora = pytest.importorskip("optimize.finetune.lora.train")
pytest.importorskip("peft", reason="the lora extra is not installed")

WORDS = {
    "apple": "violin",
    "river": "cactus",
    "mountain": "teapot",
    "window": "rocket",
    "candle": "walrus",
    "garden": "ladder",
}
SYSTEM = "Say the word that belongs to it."


def chat(word: str, answer: str) -> dict[str, list[dict[str, str]]]:
    roles = {"system": SYSTEM, "user": f"The word is {word}.", "assistant": answer}
    return {"messages": [{"role": role, "content": text} for role, text in roles.items()]}


def trained(*given: Any) -> str:
    found: str = lora.train(TrainingJob(*given))
    return found


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [chat(word, answer) for word, answer in WORDS.items()] * 4
    seen: list[str] = []
    out = tmp_path_factory.mktemp("adapters")
    base = str(weights.pull_embedded(print))
    path = Path(
        trained(rows, rows[:6], base, out, RunConfig(epochs=8), lambda *told: seen.append(told[2]))
    )
    assert any("tokens/s" in note for note in seen) and seen[-1].startswith("val: ")
    start = path.stat().st_mtime_ns
    assert trained(rows, rows[:6], base, out, RunConfig(epochs=8), print) == str(path)
    assert path.stat().st_mtime_ns == start, "the same rows and settings are not trained twice"
    return path


@pytest.mark.lm
@pytest.mark.slow
def test_base_and_tuned_lm_answer_side_by_side(adapter: Path, tmp_path: Path) -> None:
    """A wrong row order of q and k, a wrong block number or a wrong scale would all lose what was
    learned.
    """
    lms.configure(tmp_path)
    base_file, meter = weights.pull_embedded(print), Meter(100)
    base, tuned = (lms.local_lm(base_file, file, meter, 8) for file in (None, adapter))

    def ask(lm: MeteredLM, word: str) -> str:
        question = dspy.lm15.Message.user(f"The word is {word}.")
        config = dspy.lm15.Config(max_tokens=8, temperature=0.0)
        request = dspy.lm15.Request(lm.model, (question,), system=SYSTEM, config=config)
        return str(lm(request).text).strip()

    before = {word: ask(base, word) for word in WORDS}
    after = {word: ask(tuned, word) for word in WORDS}
    assert sum(after[word] == WORDS[word] for word in WORDS) >= 5, after
    assert sum(before[word] == WORDS[word] for word in WORDS) == 0, before
    assert meter.usage().calls == 12, "the cache tells base and tuned LM apart"
    lms.configure(tmp_path / "another")
    assert {word: ask(base, word) for word in WORDS} == before, (
        "the base LM answers as before beside the adapter"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LM with random weights, saved as anyone would save it."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_lm.tiny_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same LM as the GGUF file that is served."""
    path = tmp_path_factory.mktemp("served") / "tiny.gguf"
    return tiny_lm.write_gguf("llama", tiny_lm.tiny_model("llama"), path)


def config_of(served: Path, **more: Any) -> RunConfig:
    return RunConfig(lm=f"gguf:{served}", **more)


def test_a_transformers_folder_is_trained_as_well(
    folder: Path, served: Path, tmp_path: Path
) -> None:
    import gguf

    rows = [chat(word, answer) for word, answer in WORDS.items()]
    config = config_of(served, epochs=1)
    path = trained(rows, rows, str(folder), tmp_path, config, lambda *_: None)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert (
        len(tensors) == 2 * 7 * 2
        and "blk.3.attn_q.weight.lora_a" in tensors
        and "blk.1.attn_q.weight.lora_a" not in tensors
    )
    again = trained(rows, rows, str(served), tmp_path, config, lambda *_: None)
    for tensor in gguf.GGUFReader(again).tensors:
        assert tensor.data == pytest.approx(tensors[tensor.name].data, abs=1e-4), (
            "a folder and the file made of it give the same adapter"
        )


def test_weights_of_another_model_are_refused(
    folder: Path, served: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import torch
    import transformers

    other = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        weight = other.model.layers[2].self_attn.q_proj.weight
        weight.copy_(weight.flip(0))
    elsewhere = tmp_path_factory.mktemp("other")
    other.save_pretrained(elsewhere)
    rows = [chat("apple", "violin")]
    with pytest.raises(WorkbenchError, match=r"q_proj .* is not blk\.2\.attn_q\.weight"):
        trained(rows, rows, str(elsewhere), tmp_path, config_of(served), lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_rows_longer_than_the_lm_may_read_are_left_out_and_counted(
    served: Path, tmp_path: Path
) -> None:
    rows = [chat(word, answer) for word, answer in WORDS.items()]
    long = chat("apple " * 120, "violin")  # of a tokenizer that knows letters
    said: list[str] = []
    config = config_of(served, epochs=1)
    base, quiet = str(served), lambda *_: None
    trained([*rows, long], rows, base, tmp_path, config, quiet, said.append)
    assert said[0].startswith("1 of 7 train rows are longer than the 512 tokens that the LM may")
    assert said[1].startswith("LoRA training takes about 0.3 GB of memory, 0.00 GB of disk and at")
    with pytest.raises(WorkbenchError, match="All 1 of 1 val rows are longer than the 512 tokens"):
        trained(rows, [long], base, tmp_path, config, quiet)


def test_states_that_do_not_fit_on_the_disk_are_computed_each_time(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [chat(word, answer) for word, answer in WORDS.items()] * 4
    said: list[str] = []
    curves = []
    for kept in (True, False):
        monkeypatch.setattr(cut, "DISK", 0.5 if kept else 0.0)
        config = config_of(served, epochs=2)
        out = tmp_path / str(kept)
        done = trained(rows, rows[:6], str(served), out, config, lambda *_: None, said.append)
        curves.append([e.train_loss for e in lora.curve(done)])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert sum(line.startswith("Measured on the first 3 steps: 0.") for line in said) == 2


def test_a_batch_in_pieces_is_the_same_step(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    known = lora_model.load_config(str(served))
    model = lora_model.load_model(str(served), known, Served(served))
    engine, size = ServedLM(served), shape(known, lora_model.parameters(known), 2)
    batch = [objective.lesson([engine.encode(c["messages"])]) for c in map(chat, WORDS, "abcdef")]
    model_cut = cut.CutModel(model, 2)
    monkeypatch.setattr(needs, "PIECE", 1)
    parts = needs.pieces(batch, size)
    assert [len(part) for part in parts] == [1] * 6
    with torch.no_grad():
        whole = objective.loss(model_cut, batch, batch).item()
        split = sum(objective.loss(model_cut, part, batch).item() for part in parts)
    assert split == pytest.approx(whole, rel=1e-3)


TRAIN = """
import json, os, signal, sys
from pathlib import Path
from optimize.config import RunConfig
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora import train as lora

def killed(done, total, note):
    if note.startswith("loss") and done == 8:  # in the third epoch
        os.kill(os.getpid(), signal.SIGKILL)

rows = json.loads(sys.argv[1])
config = RunConfig(lm=f'gguf:{sys.argv[4]}', epochs=4)
lora.train(TrainingJob(rows, rows[:6], sys.argv[2], Path(sys.argv[3]), config, killed))
"""


def test_a_killed_training_goes_on_from_its_last_whole_epoch(
    folder: Path, served: Path, tmp_path: Path
) -> None:
    rows = [chat(word, answer) for word, answer in WORDS.items()] * 4  # three steps an epoch
    config = config_of(served, epochs=4)
    whole = trained(rows, rows[:6], str(folder), tmp_path / "whole", config, lambda *_: None)
    died = subprocess.run(
        [
            *(sys.executable, "-c", TRAIN, json.dumps(rows)),
            *(str(folder), str(tmp_path / "killed"), str(served)),
        ],
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert [p.suffix for p in (tmp_path / "killed").iterdir()] == [".checkpoint"]
    steps: list[int] = []
    told = lambda done, total, note: steps.append(done) if "loss" in note else None  # noqa: E731
    again = trained(rows, rows[:6], str(folder), tmp_path / "killed", config, told)
    assert steps[0] == 7, "the first two epochs are not trained twice"
    assert sorted(p.suffix for p in (tmp_path / "killed").iterdir()) == [".gguf", ".json"]
    assert [e.train_loss for e in lora.curve(again)] == pytest.approx(
        [e.train_loss for e in lora.curve(whole)], rel=1e-4
    )
    assert (
        lora.curve(whole)[-1].train_loss < lora.curve(whole)[0].train_loss
        and lora.curve("other.gguf") == []
    )
    assert all(e.seconds > 0 for e in lora.curve(again)), (
        "what was trained before the kill has cost as well"
    )


def test_preferences_pull_two_answers_apart_beyond_what_gold_does(
    served: Path, tmp_path: Path
) -> None:
    """The same gold answers, with and without a rejected one: only then the rejected one's
    probability falls behind.
    """
    import torch

    chats = [chat(word, answer) for word, answer in WORDS.items()]
    pairs = [
        {
            "prompt": c["messages"][:-1],
            "chosen": c["messages"][-1:],
            "rejected": chat("x", "tomato")["messages"][-1:],
        }
        for c in chats
    ]
    known = lora_model.load_config(str(served))
    model = cut.CutModel(lora_model.load_model(str(served), known, Served(served)), 2)
    engine = ServedLM(served)
    learned = objective.compared(model, [objective.lesson(engine.rows(pair)) for pair in pairs])
    golden = [objective.Lesson(one.row) for one in learned]
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(*model.answers([one.row for one in learned]))
        assert objective.loss(model, learned, learned).item() == pytest.approx(
            plain.item() + math.log(2), rel=1e-4
        ), "no preference yet"
        assert objective.loss(model, golden, golden).item() == pytest.approx(plain.item(), rel=1e-4)
    config, quiet = config_of(served, epochs=3), lambda *_: None
    curves = [
        lora.curve(trained(rows, chats, str(served), tmp_path, config, quiet))
        for rows in (pairs, chats)
    ]
    losses = [[e.train_loss for e in curve] for curve in curves]
    assert losses[0][0] > losses[1][0] + 0.5 and losses[0][-1] < losses[0][0], (
        "the preference is part of the loss, and is learned"
    )


def test_what_could_not_be_trained_is_refused_before_a_call_is_made(tmp_path: Path) -> None:
    import gguf

    refused = {"no-such": "'no-such'", "gemma": "does not load GGUF files of the architecture"}
    for name, told in refused.items():
        path = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(path, name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with pytest.raises(WorkbenchError, match=told):
            lora.check_config(config_of(path))


def test_weights_transformers_cannot_read_are_a_clear_error(served: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nothing else")
    rows = [chat("a", "b")]
    with pytest.raises(WorkbenchError, match=r"broken\.gguf"):
        trained(rows, rows, str(broken), tmp_path, config_of(served), lambda *_: None)


def test_a_training_that_would_not_fit_is_refused_before_it_begins(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: 1 << 20)
    rows = [chat("apple", "violin")]
    with pytest.raises(WorkbenchError, match=r"about 0\.3 GB of memory, 0\.0 GB are free"):
        trained(rows, rows, str(served), tmp_path, config_of(served), lambda *_: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_positions_that_transformers_would_misread_are_refused(kind: str, tmp_path: Path) -> None:
    model = tiny_lm.tiny_model("qwen2")
    base = tiny_lm.write_gguf("qwen2", model, tmp_path / "scaled.gguf", scaling=kind)
    known = lora_model.load_config(str(base))
    with pytest.raises(WorkbenchError, match=rf"scales its positions \({kind}\).*--finetune-base"):
        lora_model.load_model(str(base), known, Served(base))


def test_a_model_that_answers_otherwise_than_the_served_one_is_refused(served: Path) -> None:
    """A rotation that the weights do not tell of."""
    known = lora_model.load_config(str(served))
    model, engine = lora_model.load_model(str(served), known, Served(served)), ServedLM(served)
    rows = [engine.encode(chat(word, "x")["messages"]) for word in WORDS]
    engine.check_same(model, rows)
    model.lm_head.weight.data *= 20
    with pytest.raises(WorkbenchError, match=r"answer otherwise than tiny\.gguf .* nats apart"):
        engine.check_same(model, rows)
