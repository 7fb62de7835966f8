"""Rows from files: what is read, how it is split, and what a mistake is told."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import datasets
import dspy
import pytest
from pydantic import BaseModel

from optimize.climb.findings import LEAKS, row_findings
from optimize.data.rows import Splits, load_splits, row_hash
from optimize.errors import WorkbenchError
from optimize.task import Task

Tiny = Callable[..., Task]
Rows = list[dict[str, Any]]


class Order(BaseModel):
    item: str
    due: date
    tags: list[str] = []


class Extract(dspy.Signature):
    """Read the order."""

    text: str = dspy.InputField()
    order: Order = dspy.OutputField()


class Grade(dspy.Signature):
    """Grade the essay."""

    text: str = dspy.InputField()
    grade: Literal["1", "2"] = dspy.OutputField()


def orders(rows: Rows) -> Rows:
    return [
        {"text": r["text"], "order": {"item": f"item {n}", "due": "2026-03-04", "tags": ["a", "b"]}}
        for n, r in enumerate(rows)
    ]


def as_csv(rows: Rows) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows
    )
    return out.getvalue()


def texts(splits: Splits) -> dict[str, set[str]]:
    return {name: {e.text for e in rows} for name, rows in splits.sides().items()}


# --- what is read ---


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("nested", [False, True])
def test_every_format_gives_the_same_rows(
    tiny: Tiny, mood_rows: Rows, tmp_path: Path, suffix: str, nested: bool
) -> None:
    rows = orders(mood_rows) if nested else mood_rows
    task = tiny(*([Extract] if nested else []))
    path = task.folder / f"rows.{suffix}"
    if suffix == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text(
            as_csv(rows) if suffix == "csv" else "\n".join(map(json.dumps, rows)), encoding="utf-8"
        )
    splits = load_splits(task)
    found = {e.text: e for side in splits.sides().values() for e in side}
    assert len(found) == len(rows)
    for row in rows:
        expected = Order(**row["order"]) if nested else row["mood"]
        assert found[row["text"]]["order" if nested else "mood"] == expected
        assert set(found[row["text"]].inputs().keys()) == {"text"}


def test_extra_columns_are_kept(tiny: Tiny, mood_rows: Rows) -> None:
    splits = load_splits(tiny(rows=[row | {"by": "Ana", "at": "2026-01-02"} for row in mood_rows]))
    assert {(e.by, e.at) for e in splits.train} == {("Ana", "2026-01-02")}


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_text_that_looks_like_a_date_stays_text(tiny: Tiny, mood_rows: Rows, suffix: str) -> None:
    dates = [
        f"20{n + 10:02}-03-04" if suffix == "jsonl" else f"20{n + 10:02}-03-04T10:00:00"
        for n in range(80)
    ]
    rows = [{"text": day, "mood": row["mood"]} for day, row in zip(dates, mood_rows, strict=True)]
    task = tiny(**{f"rows_{suffix}": as_csv(rows) if suffix == "csv" else rows})
    assert set().union(*texts(load_splits(task)).values()) == set(dates)


@pytest.mark.parametrize("value", ["1", "007", "NA", "null", "True", "1e5"])
def test_text_of_a_csv_cell_stays_text(tiny: Tiny, mood_rows: Rows, value: str) -> None:
    class Code(dspy.Signature):
        """Find the code."""

        text: str = dspy.InputField()
        code: str = dspy.OutputField()

    task = tiny(Code, rows_csv=as_csv([{"text": row["text"], "code": value} for row in mood_rows]))
    assert {e.code for e in load_splits(task).train} == {value}


def test_labels_that_are_digits_are_read_from_csv(tiny: Tiny, mood_rows: Rows) -> None:
    rows = [{"text": row["text"], "grade": "12"[n % 2]} for n, row in enumerate(mood_rows)]
    assert {e.grade for e in load_splits(tiny(Grade, rows_csv=as_csv(rows))).train} == {"1", "2"}


class Stars(dspy.Signature):
    text: str = dspy.InputField()
    stars: Literal[1, 2, 3] = dspy.OutputField()
    again: Literal[1, 2] | None = dspy.OutputField()


def test_labels_that_are_numbers_are_read_from_csv(tiny: Tiny, mood_rows: Rows) -> None:
    rows = [
        {"text": row["text"], "stars": str(n % 3 + 1), "again": ("1", "")[n % 2]}
        for n, row in enumerate(mood_rows)
    ]
    found = load_splits(tiny(Stars, rows_csv=as_csv(rows))).train
    assert {e.stars for e in found} == {1, 2, 3} and {e.again for e in found} == {1, None}


class Perhaps(dspy.Signature):
    text: str = dspy.InputField()
    mood: Literal["good", "bad"] | None = dspy.OutputField()


def test_the_hubs_labels_are_read_by_their_names(
    tiny: Tiny, mood_rows: Rows, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["bad", "good"]
    columns = {
        "text": [row["text"] for row in mood_rows],
        "mood": [names.index(row["mood"]) for row in mood_rows],
    }
    kinds = {"text": datasets.Value("string"), "mood": datasets.ClassLabel(names=names)}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    (tmp_path / "hub").mkdir()
    made.to_parquet(tmp_path / "hub" / "rows.parquet")
    plain, optional = tiny(rows=mood_rows), tiny(Perhaps, rows=mood_rows)
    for task in (replace(t, data=str(tmp_path / "hub")) for t in (plain, optional)):
        told = {e.text: e.mood for side in load_splits(task).sides().values() for e in side}
        assert told == {row["text"]: row["mood"] for row in mood_rows}


def test_blank_lines_crlf_and_unusual_separators_do_not_shift_rows(
    tiny: Tiny, mood_rows: Rows
) -> None:
    odd = {"text": "one\u2028two\x85three", "mood": "good"}
    lines = [json.dumps(row, ensure_ascii=False) for row in [odd, *mood_rows]]
    lines.insert(1, "")
    splits = load_splits(tiny(rows="\r\n".join(lines)))
    assert odd["text"] in set().union(*texts(splits).values())
    with pytest.raises(WorkbenchError, match=r"rows\.jsonl:5: field 'mood'"):
        load_splits(
            tiny(rows="\r\n".join([*lines[:4], json.dumps({"text": "x", "mood": "so so"})]))
        )


def test_a_byte_order_mark_is_not_part_of_the_first_row(tiny: Tiny, mood_rows: Rows) -> None:
    task = tiny(rows="\ufeff" + "".join(json.dumps(row) + "\n" for row in mood_rows))
    assert sum(map(len, load_splits(task).sides().values())) == 80


# --- how it is split ---


@pytest.mark.parametrize("seed", range(3))
def test_the_files_order_means_nothing(tiny: Tiny, mood_rows: Rows, seed: int) -> None:
    first = load_splits(tiny(rows=mood_rows))
    again = load_splits(tiny(rows=random.Random(seed).sample(mood_rows, 80)))
    assert again == first


def test_the_shares_hold_in_each_label(tiny: Tiny, mood_rows: Rows) -> None:
    splits = load_splits(tiny(rows=mood_rows))
    counts = {name: Counter(e.mood for e in rows) for name, rows in splits.sides().items()}
    for name, share in {"train": 0.6, "val": 0.15, "test": 0.25}.items():
        assert counts[name] == {
            "good": pytest.approx(40 * share, abs=1),
            "bad": pytest.approx(40 * share, abs=1),
        }


def test_near_duplicates_lie_on_one_side(tiny: Tiny, mood_rows: Rows) -> None:
    twins = [row | {"text": row["text"].upper() + " !"} for row in mood_rows]
    sides = texts(load_splits(tiny(rows=mood_rows + twins)))
    home = {text: name for name, members in sides.items() for text in members}
    assert all(
        home[row["text"]] == home[twin["text"]] for row, twin in zip(mood_rows, twins, strict=True)
    )


@pytest.mark.parametrize("name", ["val", "validation", "dev"])
def test_a_given_split_is_taken_as_it_is(tiny: Tiny, mood_rows: Rows, name: str) -> None:
    task = tiny(train=mood_rows[:50], test=mood_rows[60:], **{name: mood_rows[50:60]})
    splits = load_splits(task)
    given = (mood_rows[:50], mood_rows[50:60], mood_rows[60:])
    assert [{e.text for e in rows} for rows in splits.sides().values()] == [
        {row["text"] for row in rows} for rows in given
    ]
    again = tiny(
        train=mood_rows[:50][::-1], test=mood_rows[60:][::-1], **{name: mood_rows[50:60][::-1]}
    )
    assert load_splits(again) == splits, (
        "the files' order means nothing: the first rows are a fair sample of a sorted file"
    )


def test_the_digest_follows_rows_and_sides(tiny: Tiny, mood_rows: Rows) -> None:
    given = {"train": mood_rows[:50], "val": mood_rows[50:60], "test": mood_rows[60:]}
    first = load_splits(tiny(**given)).digest
    flipped = [mood_rows[0] | {"mood": "bad"}, *mood_rows[1:50]]
    moved = {"train": mood_rows[:49], "val": mood_rows[49:60], "test": mood_rows[60:]}
    assert load_splits(tiny(**given)).digest == first
    assert (
        len(
            {
                first,
                load_splits(tiny(**given | {"train": flipped})).digest,
                load_splits(tiny(**moved)).digest,
            }
        )
        == 3
    )


def test_a_changed_row_changes_the_digest_of_a_rows_file(tiny: Tiny, mood_rows: Rows) -> None:
    first = load_splits(tiny(rows=mood_rows)).digest
    assert load_splits(tiny(rows=[mood_rows[0] | {"mood": "bad"}, *mood_rows[1:]])).digest != first


def test_a_rows_hash_does_not_see_extra_columns_or_the_order_of_fields(tiny: Tiny) -> None:
    task = tiny()
    rows = [
        dspy.Example(text="a", mood="good"),
        dspy.Example(mood="good", by="Ana", text="a"),
        dspy.Example(text="a", mood="bad"),
    ]
    one, other, changed = (row_hash(task, row) for row in rows)
    assert one == other != changed


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_set_is_written_in_the_same_order_in_every_process(seed: str) -> None:
    """Rows lie on other sides than before where their hashes change."""
    code = """
from pydantic import BaseModel
from optimize.files import to_json
class Tagged(BaseModel):
    tags: set[str]
    pairs: list[frozenset[str]]
tags = {"red", "green", "blue", "black"}
nested = {frozenset(tags), frozenset(["white", "grey"])}
print(to_json({"tags": tags, "nested": nested, "model": Tagged(tags=tags, pairs=[tags])}))
"""
    env = os.environ | {"PYTHONHASHSEED": seed}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    tags = ["black", "blue", "green", "red"]
    assert json.loads(told.stdout) == {
        "tags": tags,
        "nested": [tags, ["grey", "white"]],
        "model": {"tags": tags, "pairs": [tags]},
    }


def test_at_most_cuts_val_and_test_to_their_first_rows(tiny: Tiny, mood_rows: Rows) -> None:
    splits = load_splits(tiny(rows=mood_rows))
    smaller = splits.at_most(8, 10)
    assert (smaller.train, smaller.val, smaller.test) == (
        splits.train,
        splits.val[:8],
        splits.test[:10],
    )
    assert smaller.digest != splits.digest
    assert splits.at_most(None, None) == splits.at_most(1000, 1000) == splits


# --- what a mistake is told ---

GOOD = '{"text": "fine", "mood": "good"}\n'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            GOOD * 2 + '{"text": "x", "mood": "so so"}\n',
            r"rows\.jsonl:3: field 'mood': 'so so' is not one of 'good', 'bad'",
        ),
        (GOOD + '{"text": "x"}\n', r"rows\.jsonl:2: field 'mood' is missing; the row has text"),
        (GOOD + "{}\n", r"rows\.jsonl:2: field 'text' is missing; the row has none"),
        (GOOD * 2 + '{"text": "x", "mood"\n', r"rows\.jsonl:3: not JSON: Expecting ':' delimiter"),
        (GOOD + "   \n" + GOOD + '{"text"\n', r"rows\.jsonl:4: not JSON"),
        (
            GOOD + '{"text": " ", "mood": "bad"}\n',
            r"rows\.jsonl:2: field 'text' is empty; write its text or remove the row",
        ),
        (
            GOOD + '{"text": 5, "mood": "bad"}\n',
            r"rows\.jsonl:2: field 'text': Input should be a valid string, got 5",
        ),
        (
            GOOD + '{"text": null, "mood": "bad"}\n',
            r"rows\.jsonl:2: field 'text': Input should be a valid string, got None",
        ),
        (GOOD + '["x", "good"]\n', r"rows\.jsonl:2: a row is a JSON object, found list"),
        ("", r"rows\.jsonl is empty\. Write one row with the fields text, mood a line"),
        ("\n \n", r"rows\.jsonl is empty"),
        (GOOD.encode() + b'{"text": "caf\xe9", "mood": "bad"}\n', r"rows\.jsonl is not UTF-8 text"),
    ],
)
def test_mistakes_in_jsonl(tiny: Tiny, content: str | bytes, told: str) -> None:
    with pytest.raises(WorkbenchError, match=told):
        load_splits(tiny(rows=content))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (
            (int, dspy.OutputField(ge=1, le=5)),
            "6",
            "Input should be less than or equal to 5, got 6",
        ),
        (
            (str, dspy.OutputField(pattern="^[A-Z]+$")),
            '"ab"',
            "String should match pattern '^[A-Z]+$', got 'ab'",
        ),
    ],
)
def test_a_row_beyond_a_fields_constraints_is_told(
    tiny: Tiny, field: Any, value: str, told: str
) -> None:
    asked = dspy.Signature({"text": (str, dspy.InputField()), "mood": field}, "Judge it.")
    task = replace(tiny(rows=f'{{"text": "x", "mood": {value}}}\n'), signature=asked)
    with pytest.raises(WorkbenchError, match=re.escape(f"rows.jsonl:1: field 'mood': {told}")):
        load_splits(task)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "text,mood\nfine,good\nx,so so\n",
            r"rows\.csv row 2: field 'mood': 'so so' is not one of 'good', 'bad'",
        ),
        (
            "text,label\nfine,good\n",
            r"rows\.csv row 1: field 'mood' is missing; the row has text, label",
        ),
        ("text,mood\nfine,good\n,bad\n", r"rows\.csv row 2: field 'text'.* is empty"),
        ("text,mood\nfine,good\nbad\n", r"rows\.csv row 2: it has 1 cells, and the header 2"),
        ("", r"rows\.csv is empty\. Write one row with the fields text, mood"),
        ("text,mood\n", r"rows\.csv is empty\. Write one row with the fields text, mood"),
        ("text,mood\ncafé,good\n".encode("latin-1"), r"rows\.csv.*UTF-8"),
    ],
)
def test_mistakes_in_csv(tiny: Tiny, content: str | bytes, told: str) -> None:
    with pytest.raises(WorkbenchError, match=re.compile(told, re.IGNORECASE)):
        load_splits(tiny(rows_csv=content))


def test_a_file_that_is_not_parquet(tiny: Tiny) -> None:
    with pytest.raises(WorkbenchError, match=r"rows\.parquet cannot be read"):
        load_splits(tiny(rows_parquet="text,mood\n"))


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (
            {"item": "mug", "due": "soon"},
            r"rows\.jsonl:2: field 'order' \(due\): Input should be a valid date.*got 'soon'",
        ),
        ({"due": "2026-03-04"}, r"rows\.jsonl:2: field 'order' \(item\): Field required"),
        (
            {"item": "mug", "due": "2026-03-04", "tags": ["a", 1]},
            r"rows\.jsonl:2: field 'order' \(tags\.1\).*valid string, got 1",
        ),
        ("not json", r"rows\.jsonl:2: field 'order'.*JSON"),
    ],
)
def test_mistakes_inside_a_nested_field(tiny: Tiny, order: Any, told: str) -> None:
    good = {"text": "one mug", "order": {"item": "mug", "due": "2026-03-04"}}
    with pytest.raises(WorkbenchError, match=told):
        load_splits(tiny(Extract, rows=[good, {"text": "x", "order": order}]))


def test_what_was_made_of_the_files_is_told_where_it_may_surprise(
    tiny: Tiny, mood_rows: Rows
) -> None:
    given = {"train": mood_rows[:50], "dev": mood_rows[50:60], "test": mood_rows[60:]}
    beside = {"ood": mood_rows[:2], "unlabelled": mood_rows[:2], "corpus": [{"id": 1}]}
    task = tiny(**given, **beside, rows=mood_rows, old=mood_rows, train_csv=as_csv(mood_rows))
    assert load_splits(task).notes == (
        "dev.jsonl is taken as the val rows.",
        "old.jsonl is not read.",
        "rows.jsonl is not read.",
        "train.csv is not read.",
    )
    assert len(load_splits(task).train) == 50, "the JSONL is read where both are there"


def test_a_single_rows_file_needs_no_note(tiny: Tiny, mood_rows: Rows) -> None:
    assert load_splits(tiny(rows=mood_rows)).notes == ()


def test_a_folder_without_rows_says_what_it_holds(tiny: Tiny, mood_rows: Rows) -> None:
    with pytest.raises(WorkbenchError, match=r"holds no rows\..* It holds bookings\.jsonl\.$"):
        load_splits(tiny(bookings=mood_rows))


def test_a_single_file_is_split_without_overlap_and_a_cut_split_has_none_of_its_own(
    tiny: Tiny, mood_rows: Rows
) -> None:
    """Short questions about one long text; every third row is a twin of another."""
    asked = dspy.Signature("context, question -> mood")
    twin = lambda n: mood_rows[n - 1 if n % 3 == 2 else n]["text"]  # noqa: E731
    rows = [{"context": "The hotel. " * 40, "question": twin(n), "mood": "x"} for n in range(80)]
    splits = load_splits(tiny(asked, rows=rows))
    assert min(len(side) for side in splits.sides().values()) >= 8, "not all one group"
    for cut in (splits, splits.at_most(8, 8)):
        assert LEAKS not in {f.what for f in row_findings(tiny(asked), cut, None)}


def test_what_overlaps_in_a_cut_split_is_on_the_whole_ones_list(
    tiny: Tiny, mood_rows: Rows
) -> None:
    twins = [row | {"text": row["text"].upper()} for row in mood_rows[:12]]
    task = tiny(train=mood_rows[:50], val=[*twins, *mood_rows[50:56]], test=mood_rows[56:])
    whole, cut = (
        next(f for f in row_findings(task, splits, None) if f.what == LEAKS)
        for splits in (load_splits(task), load_splits(task).at_most(9, 9))
    )
    assert whole.count == len(whole.examples) == 12
    assert 0 < cut.count < 12 and set(cut.examples) <= set(whole.examples)
    assert "train.jsonl:1 " in " ".join(whole.examples)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"devsets/tiny holds no rows\. Put rows\.jsonl there .*fields text, mood"),
        ({"train": 50, "test": 20}, r"has a given split but lacks val\.jsonl"),
        ({"dev": 10}, r"lacks train\.jsonl, test\.jsonl"),
        ({"rows": 20}, r"'tiny': \d val rows, at least 8 are needed"),
        (
            {"train": 7, "val": 20, "test": 20},
            r"'tiny': 7 train rows, at least 8 are needed\. Add labelled rows to .*devsets/tiny",
        ),
    ],
)
def test_missing_files_and_too_few_rows(
    tiny: Tiny, mood_rows: Rows, given: dict[str, int], told: str
) -> None:
    with pytest.raises(WorkbenchError, match=told):
        load_splits(tiny(**{name: mood_rows[:n] for name, n in given.items()}))


def test_a_cut_split_cut_the_same_again_is_the_same(tiny: Tiny, mood_rows: Rows) -> None:
    """Fine-tuning from a climb on few rows finds that climb's rows, whether it is told their number
    or not.
    """
    full = load_splits(tiny(train=mood_rows[:50], val=mood_rows[50:60], test=mood_rows[60:]))
    cut = full.at_most(8, 9)
    assert (
        cut != full
        and cut.at_most(8, 9) == cut
        and full.at_most(len(cut.val), len(cut.test)) == cut
    )


def test_of_many_choices_an_error_names_some(tiny: Callable[..., Task]) -> None:
    many = dspy.Signature("text -> mood").with_updated_fields(
        "mood", type_=Literal[tuple("abcdefghijklmnopqrst")]
    )
    with pytest.raises(WorkbenchError, match=r"'z' is not one of 'a', .*'o', … \(20 in all\)\."):
        load_splits(tiny(many, rows=[{"text": "x", "mood": "z"}]))
