"""TF-IDF vectors of texts that may hold no words. Texts in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Callable

from sklearn.feature_extraction.text import TfidfVectorizer

# Thai, Lao, Burmese, Khmer, kana and han: scripts that put no spaces between words
SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
# letters, digits, and the marks above and below letters that Python takes for none, as Hindi's
WORD = (
    r"(?:[\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0eff"
    r"\u1000-\u109f\u1780-\u17ff]){2,}"
)


def spaced(text: str) -> str:
    """The text with words to be found in it: where a script has no spaces, each two letters that
    stand together are one.
    """
    return SPACELESS.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def _pairs(run: str) -> list[str]:
    return [run[n : n + 2] for n in range(len(run) - 1)] or [run]


class Words(TfidfVectorizer):
    """Over words and pairs of words; a text without a word of two letters (a digit, an emoji) is
    its characters, as scikit-learn has no vector space for texts without words.
    """

    def __init__(self, *, ngram_range: tuple[int, int] = (1, 2), sublinear_tf: bool = True) -> None:
        super().__init__(ngram_range=ngram_range, sublinear_tf=sublinear_tf, token_pattern=WORD)

    def build_analyzer(self) -> Callable[[str], list[str]]:
        words: Callable[[str], list[str]] = super().build_analyzer()
        return lambda text: words(spaced(text)) or ["".join(text.split()), *text]


class Letters(TfidfVectorizer):
    """Over runs of `ngram_range` characters within words; a text too short for one is itself."""

    def __init__(
        self, *, ngram_range: tuple[int, int] = (3, 5), sublinear_tf: bool = False
    ) -> None:
        super().__init__(analyzer="char_wb", ngram_range=ngram_range, sublinear_tf=sublinear_tf)

    def build_analyzer(self) -> Callable[[str], list[str]]:
        runs: Callable[[str], list[str]] = super().build_analyzer()
        return lambda text: runs(text) or [text]
