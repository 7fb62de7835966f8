"""Neighbours and passages: what is found, in which order, and what a broken corpus is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from optimize.errors import WorkbenchError
from optimize.program.retrieval import Neighbours, Passages, read_corpus

TEXTS = (
    "my card was declined",
    "my card was declined twice today",
    "the card reader is new",
    "the parcel is late",
    "late again",
)
ARTICLES = [
    {"id": "KB-1", "title": "Parking", "text": "Leave the bike in a marked bay near the station."},
    {
        "id": "KB-2",
        "title": "Broken lock",
        "text": "If the lock does not close, lock it again and report the lock.",
    },
    {
        "id": "KB-3",
        "title": "Refunds",
        "text": "We refund rides of less than two minutes. The lock must be closed.",
    },
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ARTICLES), encoding="utf-8")
    return path


def neighbours(k: int, texts: tuple[str, ...] = TEXTS) -> Neighbours:
    return Neighbours(k, texts, tuple({"text": text, "n": n} for n, text in enumerate(texts)))


@pytest.mark.parametrize(
    ("query", "k", "expected"),
    [
        ("card declined", 1, [0]),
        ("card declined", 3, [2, 1, 0]),  # the nearest last, next to the input
        ("is my parcel late", 1, [3]),
        (TEXTS[0], 1, [1]),  # not itself
    ],
)
def test_the_nearest_rows_come_last(query: str, k: int, expected: list[int]) -> None:
    assert [row["n"] for row in neighbours(k).find(query)] == expected


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS * 2])
def test_a_text_never_finds_its_own_row(k: int, texts: tuple[str, ...]) -> None:
    index = neighbours(k, texts)
    for text in texts:
        found = [row["text"] for row in index.find(text)]
        assert text not in found
        assert len(found) == min(k, sum(other != text for other in texts))


def test_a_text_without_known_words_still_gets_rows() -> None:
    assert len(neighbours(2).find("zzz")) == 2


@pytest.mark.parametrize(
    ("query", "k", "expected"),
    [
        ("the lock does not close", 1, ["KB-2"]),
        ("the lock does not close", 3, ["KB-2", "KB-3"]),  # fewer than k: parking does not match
        ("refund", 3, ["KB-3"]),
        # the words alone say KB-2; the letters of refund outweigh them
        ("lock, refundable", 2, ["KB-3", "KB-2"]),
        ("where is the station?", 2, ["KB-1"]),
        ("quantum physics", 3, []),
        ("", 3, []),
    ],
)
def test_the_best_passage_comes_first(
    corpus: Path, query: str, k: int, expected: list[str]
) -> None:
    assert [text[1:5] for text in Passages(k, corpus).find(query)] == expected


def test_a_passage_is_id_title_and_text(corpus: Path) -> None:
    assert (
        read_corpus(corpus)["KB-1"]
        == "[KB-1] Parking: Leave the bike in a marked bay near the station."
    )


def test_copies_share_the_index(corpus: Path) -> None:
    for index in (neighbours(1), Passages(1, corpus)):
        assert copy.deepcopy(index) is index


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '{"id": "KB-9", "title": "x"}',
            r"corpus\.jsonl:4: a passage has id, title and text: KeyError\('text'\)",
        ),
        ('{"id": "KB-9", ', r"corpus\.jsonl:4: not JSON"),
        ("[1]", r"corpus\.jsonl:4: a passage has id, title and text"),
        (
            '{"id": "KB-1", "title": "x", "text": "y"}',
            r"corpus\.jsonl:4: the id 'KB-1' is another passage's already",
        ),
        ('"text"', r"corpus\.jsonl:4: a passage has id, title and text"),
    ],
)
def test_a_broken_line_is_told(corpus: Path, line: str, told: str) -> None:
    corpus.write_text(corpus.read_text() + line + "\n")
    with pytest.raises(WorkbenchError, match=told):
        read_corpus(corpus)


def test_an_empty_corpus_is_told(corpus: Path) -> None:
    corpus.write_text("")
    with pytest.raises(WorkbenchError, match=r"corpus\.jsonl is empty; write one passage"):
        read_corpus(corpus)


def test_a_corpus_that_is_not_utf8_is_told(corpus: Path) -> None:
    corpus.write_bytes(b'{"id": "KB-9", "title": "caf\xe9", "text": "x"}\n')
    with pytest.raises(WorkbenchError, match=r"corpus\.jsonl"):
        read_corpus(corpus)


def test_a_unicode_line_separator_inside_a_text_does_not_end_the_line(corpus: Path) -> None:
    corpus.write_text(
        json.dumps(ARTICLES[0] | {"text": "one\u2028two"}, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    assert read_corpus(corpus) == {"KB-1": "[KB-1] Parking: one\u2028two"}
