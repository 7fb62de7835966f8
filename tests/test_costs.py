"""`optimize check --rows`: what the best program would take for many rows, told without a call."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from optimize import lm as lms
from optimize.cli import app
from optimize.report.costs import Costs, LmCost, costs_shown


def checked(*flags: str) -> Any:
    done = CliRunner().invoke(app, ["check", *flags, "--json"])
    assert done.exit_code == 0, (done.stderr, done.exception)
    return json.loads(done.stdout)


def test_the_champion_is_priced_where_there_is_one(
    reviewed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reviewed)
    flags = ["--lm", "openai/gpt-4.1-mini", "--teacher", "openai/gpt-4.1"]
    assert checked("review", *flags)["applying"] is None
    found = Costs(**checked("review", "--rows", "1000", *flags)["applying"])
    assert found.program == "champion" and found.rows == 1000
    own, mini, large = found.lms
    assert own.lm == "openai/reviewer" and own.usd is None and own.measured and own.rate > 1
    assert mini.usd and large.usd and large.usd > mini.usd and not mini.measured
    bare = Costs(**checked("unrun", "--rows", "1000", *flags)["applying"])
    assert bare.program == "zero-shot prompt" and bare.tokens_in != found.tokens_in
    assert [lm.lm for lm in bare.lms] == ["openai/gpt-4.1-mini", "openai/gpt-4.1"]
    twice = Costs(**checked("unrun", "--rows", "2000", *flags)["applying"])
    assert twice.lms[0].usd == pytest.approx(2 * (bare.lms[0].usd or 0))
    assert twice.lms[0].seconds == pytest.approx(2 * bare.lms[0].seconds)


def test_the_thoughts_of_an_lm_are_paid(reviewed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list price is below that of the other one."""
    monkeypatch.chdir(reviewed)
    flags = ["--lm", "openai/gpt-4.1", "--teacher", "openai/gpt-5"]
    plain, thinking = Costs(**checked("unrun", "--rows", "1000", *flags)["applying"]).lms
    assert plain.usd and thinking.usd and thinking.usd > 2 * plain.usd


def test_what_a_cheaper_lm_would_save_is_told_a_million_rows() -> None:
    lms = [
        LmCost(lm=name, usd=usd, rate=16.0, measured=False, seconds=60.0)
        for name, usd in (("openai/big", 4.0), ("openai/small", 1.0), ("openai/secret", None))
    ]
    found = Costs(rows=1000, program="champion", calls=1, tokens_in=100, tokens_out=9, lms=lms)
    found = found.model_copy(update={"tuned_saves": 12.5})
    console = Console(width=200, file=io.StringIO())
    for part in costs_shown(found, "review"):
        console.print(part)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "openai/small would save $3,000.00 a million rows over openai/big" in told
    assert "The tuned LM saves $12.50" in told and "secret would" not in told


def test_a_tuned_model_costs_what_the_list_has_for_its_base() -> None:
    base = "openai/ft:gpt-4.1-mini-2025-04-14"
    assert lms.price(f"{base}:acme:optimize:abc", None) == lms.price(base, None) is not None
    assert lms.price("openai/ft:unheard:acme::1", None) is None
