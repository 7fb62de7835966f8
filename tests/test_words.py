"""Inputs without a word of two letters go through every check and search that looks at words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from optimize.climb.preflight import preflight
from optimize.config import RunConfig
from optimize.data.inputs import input_text
from optimize.data.rows import load_splits
from optimize.data.words import Letters, Words
from optimize.program.retrieval import Neighbours, Passages
from optimize.scoring.slices import slices
from optimize.task import Task

TEXTS = {
    "digits": [str(n % 10) + " " * (n % 3 + 1) + str(n // 10) for n in range(80)],
    "letters": [f"{chr(97 + n % 26)} {chr(97 + n // 26)}" for n in range(80)],
    "emoji": [chr(0x1F600 + n % 60) * (n // 60 + 1) for n in range(80)],
    "han": [chr(0x4E00 + 7 * n) for n in range(80)],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_rows_without_words(tiny: Callable[..., Task], tmp_path: Path, texts: list[str]) -> None:
    rows = [{"text": text, "mood": ("good", "bad")[n % 2]} for n, text in enumerate(texts)]
    cut = (rows[:40], rows[40:60], rows[60:])
    given = tiny(**dict(zip(("train", "val", "test"), cut, strict=True)))
    splits = load_splits(given)
    found = preflight(given, splits, RunConfig())
    assert len(found.baselines) == 3 and found.rows == {"train": 40, "val": 20, "test": 20}
    assert slices(given, splits.train, splits.test)
    known = [dict(e) for e in splits.train]
    near = Neighbours(2, tuple(input_text(given, r) for r in known), tuple(known))
    assert len(near.find(texts[70])) == 2
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": i, "title": "x", "text": t}) + "\n" for i, t in enumerate(texts))
    )
    assert isinstance(Passages(2, corpus).find(texts[0]), list)
    for path in (tmp_path / "devsets" / "tiny").iterdir():
        path.unlink()
    assert load_splits(tiny(rows=rows)).train


def test_texts_with_words_have_the_vectors_they_had() -> None:
    texts = ["The kettle leaks.", "It leaks a bit, the kettle.", "No lid on 2 pans"]
    for ours, theirs in (
        (Words(), TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
        (Letters(ngram_range=(2, 4)), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))),
    ):
        assert (ours.fit_transform(texts) != theirs.fit_transform(texts)).nnz == 0
        assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())


CHINESE = ("我的转账失败了", "怎么更换新的银行卡", "忘记了登录密码", "想要关闭我的账户")
HINDI = ("मेरा भुगतान विफल हो गया", "नया कार्ड कैसे बदलें", "मैं पासवर्ड भूल गया", "खाता बंद करना है")


THAI = ("โอนเงินไม่สำเร็จ", "เปลี่ยนบัตรใหม่อย่างไร", "ลืมรหัสผ่านเข้าสู่ระบบ", "อยากปิดบัญชีของฉัน")
KHMER = ("ការផ្ទេរប្រាក់បរាជ័យ", "ប្តូរកាតថ្មីដូចម្តេច", "ខ្ញុំភ្លេចពាក្យសម្ងាត់", "ចង់បិទគណនី")


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        (CHINESE, "为什么转账失败了怎么办"),
        (HINDI, "भुगतान क्यों विफल हुआ"),
        (THAI, "ทำไมโอนเงินไม่ได้"),
        (KHMER, "ហេតុអ្វីផ្ទេរប្រាក់បរាជ័យ"),
    ],
)
def test_scripts_without_spaces_or_with_marks_have_words(
    tmp_path: Path, texts: tuple[str, ...], asked: str
) -> None:
    rows = tuple({"text": text} for text in texts)
    assert Neighbours(1, texts, rows).find(asked) == [rows[0]]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": t, "title": "x", "text": t}) + "\n" for t in texts))
    assert texts[0] in Passages(1, corpus).find(asked)[0]
