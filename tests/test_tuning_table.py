"""The bench of what an LM learns from: which rows are compared, and with what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy

from bench.tuning_table import DEMOS, Cell, of, one_a_label, table


def line(method: str, seed: int, scores: list[float], **more: Any) -> dict[str, Any]:
    cell = Cell("embedded", "banking77_12", seed, method, 60, 16, 4, 2, 4)
    found = {"scores": scores, "forgotten": [1.0, 0.0], "tokens": 50.0, "answer_s": None}
    return vars(cell) | found | {"ece": 0.1, "ece_floor": 0.05} | more


def test_methods_are_paired_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    lines = [
        line("prompt", 0, [0, 0, 0, 1]),
        line("sft", 0, [1, 1, 0, 0], rows=60),
        line("sft", 1, [1, 1, 1, 1], rows=60),
        line("trl", 0, [1, 0, 0, 0], rows=60, train_s=90.0, forgotten=[0.0, 0.0]),
    ]
    out = tmp_path / "out.jsonl"
    out.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert of(lines[3]) == Cell("embedded", "banking77_12", 0, "trl", 60, 16, 4, 2, 4)
    told = table(out)
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in told.splitlines()}
    assert "embedded, banking77_12, 4 held-out rows a seed:" in told
    assert rows["SFT, ours"][2].startswith("0.75"), "of both seeds"
    assert rows["SFT, TRL, all blocks"][3].startswith("-0.25"), "against the first seed alone"
    assert rows["SFT, TRL, all blocks"][4] == "0.50 → 0.00"
    assert rows["SFT, TRL, all blocks"][-2:] == ["–", "90 |"]
    prompt = rows["12 demos in the prompt"]
    assert prompt[3].startswith("-0.25") and prompt[4] == "0.50"


def test_demos_show_each_label_before_one_twice() -> None:
    rows = [dspy.Example(text=str(n), label="abcde"[n % 5 if n < 40 else 0]) for n in range(80)]
    found = one_a_label(rows)
    assert len(found) == DEMOS and len({row.text for row in found}) == DEMOS
    assert {row.label for row in found[:5]} == set("abcde")
