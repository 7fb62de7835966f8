"""The models that run in the process, and which of them are on this machine."""

from __future__ import annotations

from optimize.catalogue import EMBEDDED, EMBEDDERS, MODELS, in_catalogue
from optimize.lm import weights
from optimize.report.models import ModelRecord, Models


def models() -> Models:
    """Those of the catalogue, then every other GGUF in the cache folder."""
    known = [
        ModelRecord(
            flag="--embedder" if model.name in EMBEDDERS else "--lm",
            name=model.name,
            default=model is in_catalogue(EMBEDDED),
            licence=model.licence,
            context=model.context,
            bytes=model.size,
            here=weights.path_of(model).is_file(),
        )
        for model in (*MODELS.values(), *EMBEDDERS.values())
    ]
    others = [
        ModelRecord(flag="--lm", name=f"gguf:{path}", bytes=path.stat().st_size, here=True)
        for path in weights.others()
    ]
    return Models(models=known + others)
