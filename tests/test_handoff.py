"""The hand-off: rows in every form, what is left out of them, the manifest that is checked again,
and recipes that run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import jsonschema
import pytest
import yaml

from optimize.catalogue import base_of
from optimize.data.rows import Splits, load_splits
from optimize.errors import WorkbenchError
from optimize.finetune.gate import GateRecord
from optimize.finetune.handoff.bundle import GIVEN, Material, write_bundle
from optimize.finetune.handoff.manifest import Facts, read, record, verify
from optimize.finetune.handoff.recipes import write_recipes
from optimize.finetune.training_rows import FORMAT, TrainingRow, chat_rows, tuned_student
from optimize.lm import weights
from optimize.program.formats import FORMATS
from optimize.program.program import Program, read_program, render, student
from optimize.program.retrieval import Passages
from optimize.scoring.evaluation import UNPARSABLE, Outcome
from optimize.stats.records import ScoreRecord
from optimize.task import Task

Shipped = Callable[[str], tuple[Task, Splits]]
Tiny = Callable[..., Task]
TASKS = ("tickets", "kb_answer", "extract")
SCORE = ScoreRecord(score=0.38, low=0.29, high=0.47, n=120)
FACTS = Facts(
    lm="embedded",
    target=0.9,
    seed=0,
    epochs=4,
    verdict="plateau",
    reason="Prompting stays below.",
    gate=GateRecord(open=True, criteria=[]),
    before={"best prompt program, test": SCORE},
    finetune="optimize finetune tickets --backend lora",
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def best_of(task: Task) -> Program:
    """A prompt program with its own instruction, demos, and passages where there is a corpus."""
    program = student(task)
    if task.corpus:
        program.use_passages(Passages(1, task.corpus))
    for predictor in program.predictors():
        predictor.signature = predictor.signature.with_instructions("The best instruction found.")
        predictor.demos = [
            dspy.Example(**program.with_passages({name: "demo" for name in task.signature.fields}))
        ]
    return program


@pytest.mark.parametrize("name", TASKS)
def test_a_row_is_one_chat_with_the_gold_answer(shipped: Shipped, name: str) -> None:
    task, splits = shipped(name)
    program = tuned_student(best_of(task))
    rows = chat_rows(program, splits.train)
    assert len(rows) == len(splits.train)
    signature = program.predictors()[0].signature
    for example, row in zip(splits.train, rows, strict=True):
        assert list(row) == ["messages"]
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == "The best instruction found."
        assert FORMATS[FORMAT].parse(signature, row["messages"][2]["content"]) == dict(
            example.labels()
        )


@pytest.mark.parametrize("name", TASKS)
def test_a_row_asks_what_the_tuned_program_will_ask(shipped: Shipped, name: str) -> None:
    task, splits = shipped(name)
    program = tuned_student(best_of(task))
    for example, row in zip(splits.train[:5], chat_rows(program, splits.train[:5]), strict=True):
        asked = (
            "\n".join(f"--- {m['role']} ---\n{m['content']}" for m in row["messages"][:2]) + "\n"
        )
        assert asked == render(program, example)


@pytest.mark.parametrize("name", TASKS)
def test_a_handoff_holds_rows_recipes_program_and_a_manifest_that_holds(
    shipped: Shipped, tmp_path: Path, name: str
) -> None:
    task, splits = shipped(name)
    outcomes = [
        Outcome(0.0, {"unparsable": "no idea"}, error=UNPARSABLE) if n % 2 else Outcome(1.0, {})
        for n in range(len(splits.train))
    ]
    manifest = write_bundle(
        tmp_path / "deep" / "bundle", best_of(task), splits, FACTS, Material(outcomes)
    )
    folder = tmp_path / "deep" / "bundle"
    assert verify(folder) == [] and manifest == read(folder)
    assert (
        manifest.removed == {"overlap": 0, "duplicates": 0} and manifest.data_hash == splits.digest
    )
    for form in ("chat", "json_schema", "completion"):
        assert manifest.files[f"{form}/train.jsonl"].rows == len(splits.train) and manifest.files[
            f"{form}/val.jsonl"
        ].rows == len(splits.val)
    assert manifest.files["preferences/train.jsonl"].rows == len(splits.train) // 2
    assert lines(folder / "chat" / "val.jsonl") == chat_rows(
        tuned_student(best_of(task)), splits.val
    )
    schema = json.loads((folder / "json_schema" / "schema.json").read_text())
    for row in lines(folder / "json_schema" / "val.jsonl"):
        jsonschema.validate(json.loads(row["messages"][-1]["content"]), schema)
    for row in lines(folder / "preferences" / "train.jsonl"):
        assert (
            row["rejected"] == [{"role": "assistant", "content": "no idea"}]
            and row["chosen"][0]["content"] != "no idea"
        )
    again = read_program(task, folder / "program.json", lambda adapter: dspy.utils.DummyLM([]))
    assert (
        render(again, splits.val[0])
        == render(tuned_student(best_of(task)), splits.val[0])
        == manifest.prompt
    )
    told = (folder / "README.md").read_text()
    assert (
        "plateaued below the target of 0.9" in told
        and "0.380 [0.290, 0.470]" in told
        and "--method dpo" in told
        and not re.search(r"\$(task|lm|name|epochs|seed|base|scores)\b", told)
    )


def test_what_was_trained_in_a_handoff_outlives_the_next_one(
    tiny: Tiny, mood_rows: list[TrainingRow], tmp_path: Path
) -> None:
    task, folder = tiny(rows=mood_rows), tmp_path / "out"
    write_bundle(folder, student(task), load_splits(task), FACTS)
    (folder / "out" / "sft").mkdir(parents=True)
    (folder / "out" / "sft" / "weights").write_text("dear")
    outcomes = [Outcome(0.0, {"mood": "bad"})] * len(load_splits(task).train)
    write_bundle(folder, student(task), load_splits(task), FACTS, Material(outcomes))
    assert (folder / "preferences").is_dir()
    assert verify(folder) == []
    assert (folder / "out" / "sft" / "weights").read_text() == "dear", "the rows are the same"
    other = tiny(rows=mood_rows[1:])
    write_bundle(folder, student(other), load_splits(other), FACTS)
    assert not (folder / "out").exists() and verify(folder) == []
    assert (tmp_path / "out.1" / "out" / "sft" / "weights").read_text() == "dear"
    assert verify(tmp_path / "out.1") == [], "what it was trained on is still beside it"


@pytest.mark.parametrize("name", TASKS)
def test_test_rows_stay_behind(shipped: Shipped, tmp_path: Path, name: str) -> None:
    task, splits = shipped(name)
    write_bundle(tmp_path / "bundle", best_of(task), splits, FACTS)
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in (tmp_path / "bundle").rglob("*")
        if path.is_file()
    )
    field = next(iter(task.signature.input_fields))
    written = [
        side
        for side in ("train", "test")
        for e in splits.sides()[side]
        if json.dumps(e[field], ensure_ascii=False)[1:-1] in text
    ]
    assert written == ["train"] * len(splits.train)


def test_rows_that_are_nearly_a_held_out_row_or_written_twice_are_left_out(
    tiny: Tiny, mood_rows: list[TrainingRow], tmp_path: Path
) -> None:
    train = [
        *mood_rows[:40],
        mood_rows[0] | {"text": mood_rows[0]["text"].upper()},
        mood_rows[50],
        mood_rows[60],
    ]
    task = tiny(train=train, val=mood_rows[50:60], test=mood_rows[60:])
    splits = load_splits(task)
    outcomes = [
        Outcome(0.0, {"mood": {"good": "bad", "bad": "good"}[e.mood]}) for e in splits.train
    ]
    manifest = write_bundle(tmp_path / "out", student(task), splits, FACTS, Material(outcomes))
    assert (
        manifest.removed == {"overlap": 2, "duplicates": 1}
        and manifest.files["chat/train.jsonl"].rows == 40
    )
    assert verify(tmp_path / "out") == [] and manifest.split == GIVEN
    pairs = lines(tmp_path / "out" / "preferences" / "train.jsonl")
    chosen = {
        row["messages"][-2]["content"]: row["messages"][-1]
        for row in lines(tmp_path / "out" / "chat" / "train.jsonl")
    }
    assert len(pairs) == 40 and all(
        p["chosen"] == [chosen[p["prompt"][-1]["content"]]] and p["rejected"] != p["chosen"]
        for p in pairs
    )


def test_without_outcomes_there_are_no_pairs_and_an_old_handoff_is_replaced(
    tiny: Tiny, mood_rows: list[TrainingRow], tmp_path: Path
) -> None:
    task = tiny(rows=mood_rows)
    splits = load_splits(task)
    write_bundle(
        tmp_path / "out",
        student(task),
        splits,
        FACTS,
        Material([Outcome(0.0, {"mood": "bad"})] * len(splits.train)),
    )
    assert "--method dpo" in (tmp_path / "out" / "README.md").read_text()
    manifest = write_bundle(
        tmp_path / "out",
        student(task),
        splits,
        FACTS.model_copy(update={"lm": "openai/gpt-4.1-mini"}),
    )
    assert (
        not any("preferences" in name or "dpo" in name for name in manifest.files)
        and verify(tmp_path / "out") == []
    )
    told = (tmp_path / "out" / "README.md").read_text()
    assert manifest.base is None and "--base MODEL" in told and "--method dpo" not in told


def test_whatever_is_changed_in_a_handoff_is_found(
    tiny: Tiny, mood_rows: list[TrainingRow], tmp_path: Path
) -> None:
    task = tiny(rows=mood_rows)
    folder = tmp_path / "out"

    def found(change: Callable[[], object], facts: Facts = FACTS) -> list[str]:
        write_bundle(folder, student(task), load_splits(task), facts)
        change()
        return verify(folder)

    chat = folder / "chat" / "train.jsonl"
    assert found(lambda: chat.write_text(chat.read_text().replace("good", "bad", 1))) == [
        "chat/train.jsonl was changed after it was written."
    ]
    assert found(lambda: (folder / "program.json").unlink()) == ["program.json is missing."]
    recipe = folder / "recipes" / "axolotl.yaml"
    assert found(lambda: recipe.write_text("base_model: mine\n")) == [
        "recipes/axolotl.yaml was changed after it was written."
    ]
    assert verify(folder, trained=True) == [], "whoever trains sets a base and a machine"
    assert found(lambda: (folder / "extra.jsonl").write_text("{}")) == [
        "extra.jsonl is not in the manifest."
    ]
    (folder / "extra.jsonl").unlink()  # what somebody put there stays there
    (wrong,) = found(lambda: None, FACTS.model_copy(update={"verdict": "budget"}))
    assert "verdict is budget" in wrong

    def leak() -> None:
        """By someone who also mends the hashes."""
        chat.write_text(
            chat.read_text() + (folder / "chat" / "val.jsonl").read_text().split("\n")[0] + "\n"
        )
        manifest = read(folder)
        files = manifest.files | {"chat/train.jsonl": record(chat)}
        (folder / "manifest.json").write_text(
            manifest.model_copy(update={"files": files, "prompt": "another"}).model_dump_json()
        )

    assert found(leak) == [
        "1 val inputs are among the train rows.",
        "The prompt in the manifest is not the one of the first val row.",
    ]


@pytest.mark.parametrize(
    ("lm", "base", "template"),
    [
        ("embedded", "HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2"),
        ("qwen2.5-coder-0.5b", "Qwen/Qwen2.5-Coder-0.5B-Instruct", "qwen"),
        ("openai/gpt-4.1-mini", "set/your-base-model", None),  # the tokenizer's own
    ],
)
def test_the_base_is_named_as_a_trainer_knows_it(
    lm: str, base: str, template: str | None, tmp_path: Path
) -> None:
    write_recipes(tmp_path, base_of(lm), 4, 0, pairs=False)
    found = yaml.safe_load((tmp_path / "recipes" / "llamafactory.yaml").read_text())
    assert (found["model_name_or_path"], found.get("template")) == (base, template)


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "is no hand-off"), ("{", "not a manifest"), ('{"version": 2}', "not a manifest")],
)
def test_a_folder_that_is_no_handoff_is_told(tmp_path: Path, text: str | None, told: str) -> None:
    if text:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(WorkbenchError, match=told):
        read(tmp_path)


@pytest.mark.slow
def test_the_trl_recipes_run_as_they_are(
    tiny: Tiny, mood_rows: list[TrainingRow], tmp_path: Path
) -> None:
    """On current TRL, a tiny model of random weights with the embedded LM's tokenizer: SFT, then
    DPO on what it wrote.
    """
    transformers = pytest.importorskip("transformers", reason="the lora extra is not installed")
    pytest.importorskip("trl", reason="the dev extra is not installed")
    weights_file = weights.pull_embedded(print)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(weights_file.parent), gguf_file=weights_file.name
    )
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=len(tokenizer), **shape)
    ).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    task = tiny(rows=mood_rows)
    splits = load_splits(task)
    write_bundle(
        tmp_path / "out",
        student(task),
        splits,
        FACTS,
        Material([Outcome(0.0, {"unparsable": "?"}, error=UNPARSABLE)] * len(splits.train)),
    )
    recipe = [sys.executable, "recipes/trl_lora.py", "--base", str(tmp_path / "base")]
    for more in ([], ["--method", "dpo", "--adapter", "out/sft"]):
        command = [*recipe, "--max-steps", "2", *more]
        done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    for method in ("sft", "dpo"):
        folder = tmp_path / "out" / "out" / method
        assert (folder / "adapter_model.safetensors").is_file()
        assert not list(folder.glob("checkpoint-*"))


class TwoSteps(dspy.Module):
    """A draft, then the answer: the draft has no label."""

    def __init__(self, signature: type[dspy.Signature]) -> None:
        super().__init__()
        self.draft = dspy.Predict("text -> draft")
        self.answer = dspy.Predict(signature)

    def forward(self, **inputs: Any) -> Any:
        self.draft(**inputs)
        return self.answer(**inputs)


@pytest.mark.parametrize("module", [TwoSteps, dspy.ChainOfThought])
def test_programs_with_unlabelled_steps_are_refused(
    tiny: Tiny, mood_rows: list[TrainingRow], tmp_path: Path, module: Any
) -> None:
    one = tiny(rows=mood_rows)
    task = Task(
        signature=one.signature, metric=one.metric, program=module, name="tiny", root=one.root
    )
    with pytest.raises(
        WorkbenchError,
        match="'tiny' cannot be exported: its rows label the program's outputs, but not its inner "
        "steps",
    ):
        write_bundle(tmp_path / "bundle", student(task), load_splits(task), FACTS)
    assert list(tmp_path.glob("bundle*")) == [], "nothing half-written"
