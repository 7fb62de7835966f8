"""LoRA trainings that share rows and base weights: each recipe is one adapter file. What several
have in common is made once. Knows no DSPy and no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.errors import WorkbenchError
from optimize.finetune import training_id
from optimize.finetune.epoch import TrainingLog, write_curve
from optimize.finetune.handoff.recipes import trl_lora
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.adapter_gguf import Place, Served, write_adapter
from optimize.finetune.lora.cut import BATCH, PIECE, CutModel, EncodedRow, fast_bf16, fits
from optimize.finetune.lora.fit import Fit, held
from optimize.finetune.lora.model import (
    adapt,
    base_identity,
    head_width,
    linear,
    load_config,
    load_model,
    parameters,
    restored,
    width_of,
)
from optimize.finetune.lora.needs import Needs, Shape, needs, shape
from optimize.finetune.lora.objective import Lesson, compared, lesson
from optimize.finetune.lora.recipe import ALPHA, Recipe
from optimize.finetune.lora.room import free_room, lacking
from optimize.finetune.lora.served import ServedLM, readable
from optimize.gguf_header import read_header
from optimize.lm.embedded import context_of


@dataclass
class Cut:
    """The model, cut for one share of its blocks, where its adapted modules lie in the served file,
    and, once they were read, the rows with what its lower blocks say.
    """

    share: float
    model: CutModel
    places: dict[str, Place]
    rows: tuple[list[Lesson], list[EncodedRow]] | None = None


class Trainings:
    """Of one base on the same rows, as `train` has them. Nothing is read before it is needed."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        path = lms.gguf_path(job.config.lm)
        assert path, "check_config lets local LMs pass only"
        self.path, self.context = path, context_of(path, job.config.context)
        self._cut: Cut | None = None  # the last one
        self._token_seconds = 0.0

    @cached_property
    def own(self) -> Recipe:
        """What is trained without a grid."""
        job = self.job
        return Recipe(trl_lora.rate_of(width_of(job.base), len(job.rows), job.config.epochs))

    def target(self, recipe: Recipe) -> Path:
        """The adapter's file, named by all that it is made from."""
        job, alike = self.job, [ALPHA, BATCH, PIECE, trl_lora.WARMUP]
        knobs = [recipe.rank, *alike, recipe.rate, recipe.share]
        made_of = [job.rows, job.val, self._base_identity, job.config.seed, job.config.epochs]
        return job.out / f"{training_id([*made_of, *knobs, self.context])}.gguf"

    def needs(self, recipe: Recipe) -> Needs:
        """What it takes. Its seconds are 0 before a model was loaded to measure them."""
        size = self._shape(recipe)
        asked = size, *self._encoded, self.job.config.epochs
        return needs(*asked, self._token_seconds, self._kept(recipe))

    def lacking(self, recipe: Recipe) -> str:
        """Why there is too little memory for it; empty where there is enough."""
        return lacking(self.needs(recipe), self._free)

    def measure(self, recipe: Recipe) -> None:
        """Load what this one needs, after which the seconds of all are known."""
        self._loaded(recipe)

    def train(self, recipe: Recipe, log: TrainingLog) -> str:
        """The adapter's file. Raises what `train` raises."""
        import torch

        target = self.target(recipe)
        if target.is_file():
            return str(target)
        cut = self._loaded(recipe)
        cut.rows = cut.rows or self._read(cut.model)
        torch.manual_seed(self.job.config.seed)  # here, so that no other training has a part in it
        adapted = adapt(cut.model.model, cut.places, recipe.rank)
        checkpoint, size = target.with_suffix(".checkpoint"), self._shape(recipe)
        given = cut.model, adapted, *cut.rows, self.job.config
        fit = Fit(*given, recipe.rate, checkpoint, size, self._before)
        try:
            fit.run(self.job.progress, self.job.say, log, self._lm)
        finally:
            restored(adapted)
        part = target.with_suffix(".part")
        trained = [(cut.places[name], pair) for name, pair in fit.best.items()]
        write_adapter(part, read_header(self.path).architecture, trained, float(ALPHA))
        write_curve(target.with_suffix(".json"), fit.epochs)
        part.replace(target)
        fit.checkpoint.unlink(missing_ok=True)
        return str(target)

    def _loaded(self, recipe: Recipe) -> Cut:
        """The weights, once there is room for them, held against the served ones."""
        import torch

        if self._cut and self._cut.share == recipe.share:
            return self._cut
        self._cut = None  # two models at once would take twice the memory
        _ = self._before
        if lacking := self.lacking(recipe):
            raise WorkbenchError(lacking)
        known, first = self._known, recipe.first(self._known.num_hidden_layers)
        model = load_model(self.job.base, known, self._served)
        modules = {name: one.weight.detach().numpy() for name, one in linear(model, first).items()}
        places = self._served.places(modules, known.num_hidden_layers, head_width(known))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        cut, taught = CutModel(model.to(device), first), [one.row for one in self._encoded[0]]
        self._lm.check_same(model, taught)
        self._token_seconds = self._token_seconds or cut.token_seconds(taught)
        self._cut = Cut(recipe.share, cut, places)
        return self._cut

    def _read(self, cut: CutModel) -> tuple[list[Lesson], list[EncodedRow]]:
        """Train and val rows with what the lower blocks say of them."""
        lessons, judged = self._encoded
        rows = [row for one in lessons for row in one.rows]
        found = iter(cut.keep([*rows, *judged], self.job.out, self.job.progress))
        read = [lesson([next(found) for _ in one.rows]) for one in lessons]
        return compared(cut, read), list(found)

    def _kept(self, recipe: Recipe) -> bool:
        """Whether there are lower blocks, and the disk has room for what they say."""
        size = needs(self._shape(recipe), *self._encoded, self.job.config.epochs).disk
        self.job.out.mkdir(parents=True, exist_ok=True)
        return recipe.share < 1 and fits(size, self.job.out)

    def _shape(self, recipe: Recipe) -> Shape:
        import torch

        first = recipe.first(self._known.num_hidden_layers)
        half = fast_bf16("cuda" if torch.cuda.is_available() else "cpu")
        return shape(self._known, self._weights, first, half)

    @cached_property
    def _before(self) -> int:
        return held()

    @cached_property
    def _free(self) -> int:
        """Bytes, before the first model is loaded."""
        return free_room()

    @cached_property
    def _lm(self) -> ServedLM:
        return ServedLM(self.path, self.job.config.context)

    @cached_property
    def _served(self) -> Served:
        return Served(self.path)

    @cached_property
    def _base_identity(self) -> str:
        return base_identity(self.job.base)

    @cached_property
    def _known(self) -> Any:
        return load_config(self.job.base)

    @cached_property
    def _weights(self) -> int:
        return parameters(self._known)

    @cached_property
    def _encoded(self) -> tuple[list[Lesson], list[EncodedRow]]:
        """Train and val rows as token ids, without those that the LM could not read."""
        lessons = [lesson(ids) for _, ids in self._readable(self.job.rows, "train")]
        return lessons, [ids[0] for _, ids in self._readable(self.job.val, "val")]

    def _readable(
        self, rows: Sequence[dict[str, Any]], kind: str
    ) -> list[tuple[dict[str, Any], list[EncodedRow]]]:
        return readable(self._lm, rows, self.context, kind, self.job.say)
