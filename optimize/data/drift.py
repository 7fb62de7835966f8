"""Are new rows of the kind that a task's rows are? Texts in, numbers out. Knows no LM."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from optimize.stats.two_samples import ToldApart, higher, told_apart

MOST = 1000  # texts of a side that a classifier sees: its time grows with their cube
SHOWN = 8  # words


@dataclass(frozen=True)
class WordsDrift:
    """known, new: mean share of a text's words that the task's other texts do not have. p: how
    likely so much more in the new ones is if both are of one kind. words: the commonest of the new.
    """

    known: float
    new: float
    p: float
    words: tuple[str, ...]


def inputs_drift(known: Sequence[str], new: Sequence[str], seed: int = 0) -> ToldApart:
    """Whether a classifier of words and letters tells new texts from known ones."""
    from optimize.data.labels import classifier

    rng = random.Random(seed)
    sides = [rng.sample(side, min(MOST, len(side))) for side in (list(known), list(new))]
    vectors = classifier()[:-1].fit_transform([*sides[0], *sides[1]])
    return told_apart(vectors, [False] * len(sides[0]) + [True] * len(sides[1]), seed)


def words_drift(
    learnt: Sequence[str], held: Sequence[str], new: Sequence[str], seed: int = 0
) -> WordsDrift:
    """Whether new texts have more words that are not in `learnt` than other known texts, `held`."""
    from optimize.data.words import Words

    words = Words(ngram_range=(1, 1)).build_analyzer()
    vocabulary = {word for text in learnt for word in words(text)}

    def unknown(text: str) -> list[str]:
        return [word for word in words(text) if word not in vocabulary]

    before, after = ([len(unknown(t)) / len(words(t)) for t in side] for side in (held, new))
    seen = {word for text in held for word in words(text)}
    fresh = Counter(word for text in new for word in set(unknown(text)) - seen)
    common = sorted(fresh, key=lambda word: (-fresh[word], word))[:SHOWN]
    p = higher(before, after, seed)
    return WordsDrift(fmean(before), fmean(after), p, tuple(common))
