"""TF-IDF vectors of texts that may hold no words. Texts in, numbers out."""

from __future__ import annotations

from collections.abc import Callable

from sklearn.feature_extraction.text import TfidfVectorizer


class Words(TfidfVectorizer):
    """Over words and pairs of words; a text without a word of two letters (a digit, an emoji) is
    its characters, as scikit-learn has no vector space for texts without words.
    """

    def __init__(self, *, ngram_range: tuple[int, int] = (1, 2), sublinear_tf: bool = True) -> None:
        super().__init__(ngram_range=ngram_range, sublinear_tf=sublinear_tf)

    def build_analyzer(self) -> Callable[[str], list[str]]:
        words: Callable[[str], list[str]] = super().build_analyzer()
        return lambda text: words(text) or ["".join(text.split()), *text]


class Letters(TfidfVectorizer):
    """Over runs of `ngram_range` characters within words; a text too short for one is itself."""

    def __init__(
        self, *, ngram_range: tuple[int, int] = (3, 5), sublinear_tf: bool = False
    ) -> None:
        super().__init__(analyzer="char_wb", ngram_range=ngram_range, sublinear_tf=sublinear_tf)

    def build_analyzer(self) -> Callable[[str], list[str]]:
        runs: Callable[[str], list[str]] = super().build_analyzer()
        return lambda text: runs(text) or [text]
