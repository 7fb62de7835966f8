"""LoRA: trained here, written as GGUF, served beside the base LM and chosen per request."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import dspy
import pytest

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.lora import model as lora_model
from optimize.finetune.lora import objective
from optimize.finetune.lora.adapter_gguf import check_architecture
from optimize.lm import weights
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM

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


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [chat(word, answer) for word, answer in WORDS.items()] * 4
    seen: list[str] = []
    out = tmp_path_factory.mktemp("adapters")
    base = str(weights.pull_embedded(print))
    path = Path(
        lora.train(
            rows,
            rows[:6],
            base,
            out,
            RunConfig(epochs=8),
            lambda done, total, note: seen.append(note),
        )
    )
    assert any("tokens/s" in note for note in seen) and seen[-1].startswith("val: ")
    start = path.stat().st_mtime_ns
    assert lora.train(rows, rows[:6], base, out, RunConfig(epochs=8), print) == str(path)
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
    """A tiny LM of the served architecture, with random weights, saved as anyone would save it."""
    import torch
    import transformers

    base = weights.pull_embedded(print)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(base.parent), gguf_file=base.name)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=len(tokenizer), **shape)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_transformers_folder_is_trained_as_well(folder: Path, tmp_path: Path) -> None:
    import gguf

    rows = [chat(word, answer) for word, answer in WORDS.items()]
    path = lora.train(rows, rows, str(folder), tmp_path, RunConfig(epochs=1), lambda *_: None)
    tensors = {tensor.name for tensor in gguf.GGUFReader(path).tensors}
    assert (
        len(tensors) == 2 * 7 * 2
        and "blk.3.attn_q.weight.lora_a" in tensors
        and "blk.1.attn_q.weight.lora_a" not in tensors
    )


TRAIN = """
import json, os, signal, sys
from pathlib import Path
from optimize.config import RunConfig
from optimize.finetune.lora import train as lora

def killed(done, total, note):
    if note.startswith("loss") and done == 8:  # in the third epoch
        os.kill(os.getpid(), signal.SIGKILL)

rows = json.loads(sys.argv[1])
lora.train(rows, rows[:6], sys.argv[2], Path(sys.argv[3]), RunConfig(epochs=4), killed)
"""


def test_a_killed_training_goes_on_from_its_last_whole_epoch(folder: Path, tmp_path: Path) -> None:
    rows = [chat(word, answer) for word, answer in WORDS.items()] * 4  # three steps an epoch
    config = RunConfig(epochs=4)
    whole = lora.train(rows, rows[:6], str(folder), tmp_path / "whole", config, lambda *_: None)
    died = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(rows), str(folder), str(tmp_path / "killed")],
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert [p.suffix for p in (tmp_path / "killed").iterdir()] == [".checkpoint"]
    steps: list[int] = []
    again = lora.train(
        rows,
        rows[:6],
        str(folder),
        tmp_path / "killed",
        config,
        lambda done, total, note: steps.append(done) if "loss" in note else None,
    )
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
    folder: Path, tmp_path: Path
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
    model, tokenizer = lora_model.load_model(str(folder))
    encoded = [text for pair in pairs for text in objective.texts(tokenizer, pair)]
    read = lora_model.below(model, 2, encoded, "cpu", lambda *_: None)
    learned = objective.encode_lessons(model, [read[n : n + 2] for n in range(0, len(read), 2)])
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(
            *lora_model.answers(model, [lesson.row for lesson in learned])
        )
        assert objective.loss(model, learned).item() == pytest.approx(
            plain.item() + math.log(2), rel=1e-4
        ), "no preference yet"
    assert objective.loss(
        model, [objective.Lesson(lesson.row) for lesson in learned]
    ).item() == pytest.approx(plain.item(), rel=1e-4)
    curves = [
        lora.curve(
            lora.train(rows, chats, str(folder), tmp_path, RunConfig(epochs=3), lambda *_: None)
        )
        for rows in (pairs, chats)
    ]
    losses = [[e.train_loss for e in curve] for curve in curves]
    assert losses[0][0] > losses[1][0] + 0.5 and losses[0][-1] < losses[0][0], (
        "the preference is part of the loss, and is learned"
    )


def test_weights_that_could_not_be_served_are_refused_before_training() -> None:
    with pytest.raises(WorkbenchError, match="qwen3"):
        check_architecture("qwen3")


def test_weights_transformers_cannot_read_are_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nothing else")
    with pytest.raises(WorkbenchError, match=r"broken\.gguf"):
        lora.train(
            [chat("a", "b")], [chat("a", "b")], str(broken), tmp_path, RunConfig(), lambda *_: None
        )
