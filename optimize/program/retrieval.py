"""Rows and passages found for an input at call time: by words, or by an embedder's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import WorkbenchError
from optimize.files import read_jsonl

if TYPE_CHECKING:
    from optimize.lm.embedder import Embedder

PASSAGES = "passages"  # the input field a program with passages has


@dataclass(frozen=True)
class Neighbours:
    """Labelled rows, of which the k most like an input become its demos.

    texts: each row's inputs as one text. rows: the rows' fields, in the same order. embedder: whose
    vectors tell what is alike; None: TF-IDF over words does.
    """

    k: int
    texts: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    embedder: Embedder | None = None

    def __deepcopy__(self, memo: object) -> Neighbours:
        return self  # frozen; optimizers copy programs by the dozen

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        from optimize.data.words import Words

        vectorizer = Words()
        return vectorizer, vectorizer.fit_transform(self.texts)

    @cached_property
    def _vectors(self) -> Any:
        assert self.embedder
        return self.embedder.vectors(self.texts)

    def _similarity(self, text: str) -> Any:
        """Of each row to the text, the higher the more alike."""
        if self.embedder:
            return self._vectors @ self.embedder.vectors([text])[0]
        vectorizer, matrix = self._index
        return (matrix @ vectorizer.transform([text]).T).toarray().ravel()

    def find(self, text: str) -> list[dict[str, Any]]:
        """The k nearest rows, the nearest last; never the text's own row."""
        similarity = self._similarity(text)
        order = [int(n) for n in similarity.argsort(kind="stable") if self.texts[n] != text]
        return [self.rows[n] for n in order[-self.k :]]


class Matching:
    """Texts, of which those that best match another one are found.

    The match is BM25 over words plus the cosine of character n-grams, which sees through endings
    and typos; each is divided by its best, as in convex fusion (Bruch et al., 2023).
    docs/results.md has what the second one adds. With an embedder the cosine of its vectors counts
    as much as both, and a text that shares no word can be found.
    """

    def __init__(self, texts: Sequence[str], embedder: Embedder | None = None) -> None:
        import bm25s

        from optimize.data.words import Letters

        self.texts, self.embedder, self.words = texts, embedder, bm25s.BM25()
        self.words.index(_tokens(texts), show_progress=False)
        self.letters = Letters(ngram_range=(3, 5), sublinear_tf=True)
        self.matrix = self.letters.fit_transform(texts)
        self.vectors = embedder.vectors(texts) if embedder else None

    def find(self, text: str, k: int) -> list[str]:
        """The k best texts, the best first; fewer where no word of `text` occurs in more, and
        there is no embedder.
        """
        import numpy as np

        query = _tokens([text], return_ids=False)[0]
        by_word = self.words.get_scores(query) if query else np.zeros(len(self.texts))
        by_letter = (self.matrix @ self.letters.transform([text]).T).toarray().ravel()
        parts = [by_word, by_letter]
        if self.embedder:
            parts += 2 * [self.vectors @ self.embedder.vectors([text])[0]]
        score = sum(s / max(s.max(), 1e-9) for s in parts)
        best = np.argsort(-score, kind="stable")
        return [self.texts[n] for n in best if self.embedder or by_word[n] > 0][:k]


def _tokens(texts: Sequence[str], **given: Any) -> Any:
    """Their words as BM25 takes them."""
    import bm25s

    from optimize.data.words import WORD, spaced

    every = [spaced(text) for text in texts]
    return bm25s.tokenize(every, token_pattern=WORD, show_progress=False, **given)


@dataclass(frozen=True)
class Passages:
    """A corpus, of which the k passages that best match an input are put into its prompt."""

    k: int
    corpus: Path
    embedder: Embedder | None = None

    def __deepcopy__(self, memo: object) -> Passages:
        return self

    @cached_property
    def _matching(self) -> Matching:
        return Matching(list(read_corpus(self.corpus).values()), self.embedder)

    def find(self, text: str) -> list[str]:
        """The k best passages, the best first; see Matching."""
        return self._matching.find(text, self.k)


def read_corpus(path: Path) -> dict[str, str]:
    """Each passage as `[id] title: text`, by its id. Raises WorkbenchError naming file and line."""
    passages: dict[str, str] = {}
    for number, row in read_jsonl(path):
        try:
            name, found = str(row["id"]), f"[{row['id']}] {row['title']}: {row['text']}"
        except (KeyError, TypeError) as error:
            raise WorkbenchError(
                f"{path}:{number}: a passage has id, title and text: {error!r}."
            ) from None
        if name in passages:
            raise WorkbenchError(
                f"{path}:{number}: the id {name!r} is another passage's already; give each its own."
            )
        passages[name] = found
    if not passages:
        raise WorkbenchError(
            f"{path} is empty; write one passage (id, title, text) a line or remove the file."
        )
    return passages
