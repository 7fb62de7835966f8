"""The champion of a task as it is served: loaded, and again when it changes. Knows no HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.commands.load import asking, kept
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.lm.meter import Summing
from optimize.lm.reach import check_reachable
from optimize.program.program import Program, signature_hash
from optimize.store.champion import champion, present
from optimize.store.read import Found
from optimize.task import load_task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """A program that answers, and what its LM is asked with.

    version: of the registered model; run: that made it.
    """

    program: Program
    config: RunConfig
    version: str
    run: str


class Following:
    """The champion, and what is looked at to know that it is still that.

    knobs: those of the configuration that are given (None: not); `lm` and `api_base` where another
    LM is to answer than the one it was optimized on, or that one at another address. Raises
    WorkbenchError where there is no champion, or its LM cannot be reached.
    """

    def __init__(self, root: Path, task: str, knobs: Mapping[str, Any]) -> None:
        self.root, self.task = root, task
        self.knobs = knobs
        self.store = champion(root, task).store
        self.now = self._loaded(present(self.store, task))
        self._refused = ""  # a version that cannot be served, and is told of once

    def look(self) -> bool:
        """Whether there is a new champion, which answers from now on.

        Raises WorkbenchError for one that cannot be loaded; the one before it goes on.
        """
        version = present(self.store, self.task)
        if version is None or str(version.version) in (self.now.version, self._refused):
            return False
        found = self._loaded(version)
        if signature_hash(found.program.task) != signature_hash(self.now.program.task):
            self._refused = found.version
            raise WorkbenchError(
                f"Version {found.version} has other fields than the one that is served: start "
                "`optimize serve` again for it."
            )
        self.now = found
        return True

    def _loaded(self, version: object) -> Serving:
        number, run = str(version.version), version.run_id  # type: ignore[attr-defined]
        made = Found(self.store, run, self.task, run)
        lm = self.knobs.get("lm")
        found = kept(made, load_task(self.task, self.root), lm)
        config = found.configured(**self.knobs)
        check_reachable(config)
        return Serving(asking(found, lm, config, Summing()), config, number, run)
