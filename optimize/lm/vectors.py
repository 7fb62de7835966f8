"""Vectors of texts that were embedded before, once a project. Knows no embedder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimize.lm.kept import Kept

FILE = "vectors.db"


class VectorStore:
    """float32 vectors by embedder and text. path: None for one in memory alone."""

    def __init__(self, path: Path | None = None) -> None:
        self.kept = Kept(path)

    def get(self, embedder: str, texts: Sequence[str]) -> dict[str, Any]:
        """The vectors there are, by their texts."""
        import numpy as np

        keys = {_key(embedder, text): text for text in texts}
        found = self.kept.get(list(keys))
        return {keys[key]: np.frombuffer(v, dtype=np.float32) for key, v in found.items()}

    def put(self, embedder: str, vectors: Mapping[str, Any]) -> None:
        self.kept.put({_key(embedder, text): v.tobytes() for text, v in vectors.items()})


def _key(embedder: str, text: str) -> str:
    return hashlib.sha256(f"{embedder}\0{text}".encode(errors="surrogatepass")).hexdigest()
