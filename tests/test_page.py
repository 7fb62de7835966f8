"""A run as one HTML file, in Markdown and as CSV: from rows that would do harm if they were run.

What a browser makes of the page is in tests/test_page_in_browser.py, a run's own in
tests/test_exit_codes.py.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re

import pytest

from optimize.report.html.charts import costs
from optimize.report.html.data import MOST
from optimize.report.html.labels import Pairs, per_label
from optimize.report.html.render import html
from optimize.report.page import Material, Page, assemble, changes
from optimize.report.prices import Price
from optimize.report.pull_request import pull_request
from optimize.report.rows import Answers, RowTable
from optimize.report.spreadsheet import spreadsheet
from optimize.report.text import markdown
from optimize.report.untrusted import cell, code, visible
from tests.test_report import plateau, tuned

HARMFUL = (
    "<script>alert(1)</script>",
    "</script><!--<script>",
    "<img src=http://127.0.0.1:PORT/stolen onerror=alert(2)>",
    "[/INST] \x1b[31mred\x1b[0m \ud83d",
    "=HYPERLINK(A1)",
    "line\u2028line | `@someone`",
)
LABELS = ["bill", "parcel", "=other"]
RIGHT = {"zero_shot": 0.3, "output_format": 0.4, "demo_search": 0.3, "nearest_demos": 0.5}


def table(rows: int, programs: dict[str, float], long: int = 12) -> RowTable:
    """Rows, the harmful ones first, and programs that are right on such a share of them."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefgh", k=long)) + f" {n}" for n in range(rows)]
    texts[: len(HARMFUL)] = HARMFUL[:rows]
    gold = draw.choices(LABELS, k=rows)
    return RowTable(
        rows=[f"{n:012x}" for n in range(rows)],
        inputs={"message": texts},
        gold={"desk": gold},
        programs={name: answered(draw, gold, share) for name, share in programs.items()},
        slices={"short": list(range(0, rows, 2)), "long": list(range(1, rows, 2))},
    )


def answered(draw: random.Random, gold: list[str], share: float) -> Answers:
    said = [label if draw.random() < share else draw.choice(LABELS) for label in gold]
    scores: list[float | None] = [float(a == g) for a, g in zip(said, gold, strict=True)]
    scores[-1] = None
    return Answers(
        fields={"desk": said},
        scores=scores,
        feedback=["" if score else HARMFUL[0] for score in scores],
        confidence=[draw.random() for _ in gold] if len(gold) < 1000 else [None] * len(gold),
    )


def page(rows: int = 40, long: int = 12, with_tuning: bool = True) -> Page:
    report = tuned() if with_tuning else plateau()
    checks = report.preflight.model_copy(update={"label_rows": dict.fromkeys(LABELS, 9)})
    test = {"zero_shot": 0.2, "prompt": 0.4} | ({"tuned": 0.7} if with_tuning else {})
    prompt = "--- system ---\nName the desk.\n" + "a line\n" * 20
    found = Material(
        run="f" * 32,
        made="2026-11-26 14:00 UTC",
        versions={"optimize": "1.0"},
        val=table(30, RIGHT),
        test=table(rows, test, long),
        prompts={name: f"{prompt}{name} {HARMFUL[0]}\n" for name in RIGHT},
        prices={name: Price(tokens=100.0 * n, usd=0.0) for n, name in enumerate(RIGHT, 1)},
    )
    return assemble(report.model_copy(update={"preflight": checks}), found)


def test_the_page_shows_the_chance_that_the_verdict_hangs_on() -> None:
    report = plateau(verdict="unconfirmed")
    numbers = report.numbers.model_copy(update={"chance": 0.9999, "on_test": 0.759})
    shown = {}
    for verdict in ("unconfirmed", "reached"):
        changed = {"verdict": verdict, "numbers": numbers}
        found = page(with_tuning=False).model_copy(
            update={"report": report.model_copy(update=changed)}
        )
        shown[verdict] = re.findall(
            r"Chance that it is met</dt><dd><strong>(.*?)</strong> <span>(.*?)<", html(found)
        )
    assert shown["unconfirmed"] == [
        ("75.9 %", "by the test rows; above 99.9 % by the judging rows")
    ]
    assert shown["reached"] == [("above 99.9 %", "by the judging rows; 75.9 % by the test rows")]


def test_what_an_answer_costs_is_of_programs_that_answered_the_same_rows() -> None:
    """nearest_demos is better than what is cheaper; demo_search was stopped while all went well."""
    found = page(with_tuning=False)
    val = found.tables["val"]
    early = {"scores": [1.0] * 9, "feedback": [""] * 9, "confidence": [None] * 9}
    early["fields"] = {"desk": ["bill"] * 9}
    same = val.programs["zero_shot"]
    programs = {"demo_search": Answers.model_validate(early), "output_format": same}
    table = val.model_copy(update={"programs": val.programs | programs})
    figure = costs(found.model_copy(update={"tables": found.tables | {"val": table}}))
    assert figure
    on_the_line = {row[1]: row[-1] for row in figure.data.rows}
    assert on_the_line == {"zero_shot": "yes", "output_format": "", "nearest_demos": "yes"}


def test_commands_among_the_checks_are_code_and_rows_stay_text() -> None:
    found = page(with_tuning=False)
    notes = ["see `optimize guide review`", f"one ` alone {HARMFUL[0]}", f"`{HARMFUL[2]}`"]
    checks = found.report.preflight.model_copy(update={"notes": notes})
    report = found.report.model_copy(update={"preflight": checks})
    text = html(found.model_copy(update={"report": report}))
    assert "<li>see <code>optimize guide review</code></li>" in text
    assert "one ` alone &lt;script&gt;" in text and "<code>&lt;img src=" in text


def embedded(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data-json">(.*?)</script>', text, re.S)
    assert found
    return dict(json.loads(found[1]))


def test_rows_are_never_markup_and_nothing_is_fetched() -> None:
    text = html(page())
    assert text.count("<script") == 2 and "<img" not in text and "<!--" not in text
    assert not set("\x1b\u2028\u2029") & set(text) and text.encode()
    assert "default-src &#39;none&#39;" in text and not re.search(
        r"<(link|iframe|a|form action)\b", text
    )
    known = embedded(text)["texts"]
    assert isinstance(known, list)
    assert HARMFUL[0] in known and "[/INST] ␛[31mred␛[0m \ufffd" in known, "still there to be read"


def test_the_page_says_what_was_decided_and_why() -> None:
    found = page()
    report, text = found.report, html(found)
    for said in (report.reason.split(":")[0], str(report.final.score), "PLATEAU", report.next):
        assert said in text
    assert "The decision on the tuned LM is wrong as soon as the rules change." in text
    assert "no corpus.jsonl [/x]" in text and "rows written twice" in text
    assert found.command in text and "calibration error" in text
    assert found.compared == ("nearest_demos", "lora") and found.judged


@pytest.mark.parametrize(("rows", "long", "cut"), [(5000, 60, False), (1500, 900, True)])
def test_the_page_stays_below_two_megabytes(rows: int, long: int, cut: bool) -> None:
    text = html(page(rows, long))
    assert len(text.encode()) < 2_000_000 and ("To keep this file small" in text) is cut
    tables = embedded(text)["tables"]
    assert isinstance(tables, dict) and len(tables["test"]["rows"]) == rows
    assert len(json.dumps(tables)) < MOST


def test_a_run_that_keeps_no_rows_has_a_page_as_well() -> None:
    empty = {"val": None, "test": None, "prompts": {}, "prices": {}}
    found = Material(run="f", made="2026", versions={}, **empty)
    for report in (plateau(), tuned()):
        text = html(assemble(report, found))
        assert report.reason in text.replace("&#39;", "'") and "keeps no rows" in text


def test_each_step_is_told_with_the_rows_that_it_changed() -> None:
    found = page()
    assert [(s.rung, s.before) for s in found.steps[:4]] == [
        ("zero_shot", "zero_shot"),
        ("output_format", "zero_shot"),
        ("demo_search", "output_format"),
        ("nearest_demos", "output_format"),
    ]
    val = found.tables["val"]
    better, worse = changes(val, "zero_shot", "output_format")
    pairs = [val.programs[name].scores for name in ("zero_shot", "output_format")]
    assert better == [n for n, (b, a) in enumerate(zip(*pairs, strict=True)) if (b, a) == (0, 1)]
    assert worse and not set(better) & set(worse)


def test_the_rows_as_csv_are_safe_in_a_spreadsheet() -> None:
    found = page()
    rows = list(csv.DictReader(io.StringIO(spreadsheet(found))))
    assert len(rows) == 70 and {row["side"] for row in rows} == {"test", "val"}
    first = {row["message"]: row for row in rows if row["side"] == "test"}
    assert {"'=HYPERLINK(A1)", HARMFUL[0], "[/INST] ␛[31mred␛[0m \ufffd"} <= set(first)
    assert not [c for row in rows for c in row.values() if c.startswith(tuple("=+-@\t\r"))]
    assert first[HARMFUL[0]]["lora: score"] in ("0", "1") and rows[39]["lora: score"] == ""


@pytest.mark.parametrize("risky", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", " =1", "＝1", "-1+1|x"])
def test_a_cell_is_no_formula(risky: str) -> None:
    assert cell(risky) == f"'{visible(risky)}"


@pytest.mark.parametrize("plain", ["-0.5", "+3", "1e-4", "a=b", "", "a-b", "-1.5E+10"])
def test_numbers_and_texts_stay_as_they_are(plain: str) -> None:
    assert cell(plain) == plain


def test_markdown_for_a_pull_request_holds_verdict_picture_and_changed_rows() -> None:
    found = page()
    text = pull_request(found, "notes.png")
    assert "**PLATEAU" in text.splitlines()[2] and "![The climb](notes.png)" in text
    assert "### Rows that changed, nearest_demos → lora" in text and found.command in text
    outside = re.sub(r"(`+) .*? \1", "", text.partition("### Rows that changed")[2])
    assert "script" not in outside and "@someone" not in outside


def test_markdown_runs_nothing_of_a_row_and_mentions_nobody() -> None:
    report = plateau()
    row = "<img src=x> ![p](http://x.invalid) @someone"
    kinds = [k.model_copy(update={"examples": [row]}) for k in report.diagnosis.kinds]
    found = report.diagnosis.model_copy(update={"kinds": kinds})
    text = markdown(report.model_copy(update={"diagnosis": found}))
    assert "&lt;img src=x>" in text and not [bad for bad in ("<img", "](", "@s") if bad in text]


def test_a_code_span_cannot_be_left() -> None:
    assert code("a `b` ``c``\n| d") == "``` a `b` ``c`` ¦ d ```"


def test_where_no_lever_was_built_on_nothing_is_compared() -> None:
    found = page(with_tuning=False)
    report = found.report.model_copy(
        update={"attempts": found.report.attempts[:1], "levers": (), "lm_calls": 0}
    )
    alone = found.model_copy(update={"report": report, "compared": (found.first, found.first)})
    text = html(alone)
    assert text.count('class="heat"') == 1 and html(found).count('class="heat"') == 2
    assert "No lever was tried" in text and "all answers came from the cache" in text
    assert "Rows that changed" not in pull_request(alone, "notes.png")


def test_a_label_that_was_never_answered_has_no_share_of_right_ones() -> None:
    found = per_label([Pairs("p", [("bill", "bill"), ("parcel", "bill")])], ["bill", "parcel"])
    assert found.rows == [["bill", "1", "1.00", "0.50"], ["parcel", "1", "0.00", "–"]]
