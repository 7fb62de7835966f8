"""Rows and passages found for an input at call time: TF-IDF neighbours and BM25. Knows no LM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.files import read_jsonl


@dataclass(frozen=True)
class Neighbours:
    """Labelled rows, of which the k most like an input become its demos.

    texts: each row's inputs as one text. rows: the rows' fields, in the same order.
    """

    k: int
    texts: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]

    def __deepcopy__(self, memo: object) -> Neighbours:
        return self  # frozen; optimizers copy programs by the dozen

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        return vectorizer, vectorizer.fit_transform(self.texts)

    def find(self, text: str) -> list[dict[str, Any]]:
        """The k nearest rows, the nearest last; never the text's own row."""
        vectorizer, matrix = self._index
        similarity = (matrix @ vectorizer.transform([text]).T).toarray().ravel()
        order = [int(n) for n in similarity.argsort(kind="stable") if self.texts[n] != text]
        return [self.rows[n] for n in order[-self.k :]]


@dataclass(frozen=True)
class Passages:
    """A corpus, of which the k passages that best match an input are put into its prompt."""

    k: int
    corpus: Path

    def __deepcopy__(self, memo: object) -> Passages:
        return self

    @cached_property
    def _index(self) -> tuple[Any, list[str]]:
        import bm25s

        passages = read_corpus(self.corpus)
        index = bm25s.BM25()
        index.index(bm25s.tokenize(passages, show_progress=False), show_progress=False)
        return index, passages

    def find(self, text: str) -> list[str]:
        """The k best passages, the best first; fewer where nothing matches."""
        import bm25s

        index, passages = self._index
        query = bm25s.tokenize([text], show_progress=False, return_ids=False)
        found, scores = index.retrieve(query, k=min(self.k, len(passages)), show_progress=False)
        return [passages[int(n)] for n, score in zip(found[0], scores[0], strict=True) if score > 0]


def read_corpus(path: Path) -> list[str]:
    """Each passage as `[id] title: text`. Raises WorkbenchError naming file and line."""
    passages = []
    for number, row in read_jsonl(path):
        try:
            passages.append(f"[{row['id']}] {row['title']}: {row['text']}")
        except (KeyError, TypeError) as error:
            raise WorkbenchError(f"{path}:{number}: a passage has id, title and text: {error!r}.") from None
    if not passages:
        raise WorkbenchError(f"{path} is empty; write one passage (id, title, text) a line or remove the file.")
    return passages
