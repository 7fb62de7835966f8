"""A program that a run has found, ready to be called from Python."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from optimize import lm as lms
from optimize.catalogue import in_catalogue
from optimize.config import TASK_LM, RunConfig, find_root, load_config
from optimize.errors import WorkbenchError
from optimize.files import read_text
from optimize.lm.meter import Meter, Summing
from optimize.program.program import Program, parse_program
from optimize.store.champion import champion
from optimize.store.read import Found
from optimize.task import Task, load_task

log = logging.getLogger(__name__)


def load_program(
    name: str | Path, *, lm: dspy.BaseLM | str | None = None, root: str | Path | None = None
) -> dspy.Module:
    """A DSPy module that answers as the optimized program did: call it with the task's inputs.

        load_program("tickets")(message="My invoice is wrong.").desk

    The program's calls are not capped, and are cached where DSPy is told to. Runs in threads and
    under `dspy.asyncify` like any DSPy module.

    Args:
        name: a task, for the best program in the project's store: the version of the registered
            model that has the alias `champion` (docs/using.md says when a run takes it over). Or
            the path of a saved program, a .json file such as a report names; its task is found
            by name in programs/.
        lm: the LM to ask, as a `dspy.LM` or by name ("embedded", "gguf:PATH", "openai/…"). Without
            it a program with tuned weights runs on these; any other runs on the LM that DSPy is
            configured with when it is loaded, and if there is none, on the LM it was optimized on.
            Tuned weights are for the LM that they were made from, which is named by its own name
            or by theirs; with any other a task gives the best program without them.
        root: the project's folder; default: the one around the saved program or the current folder.

    Raises:
        optimize.errors.WorkbenchError: there is no such task, run or file, the task's fields have
            changed since, or the LM's weights are gone.
    """
    named = lm.model if isinstance(lm, dspy.BaseLM) else lm
    found = saved(name, Path(root) if root else None, named)
    if isinstance(lm, str):
        return asking(found, lm, found.configured(lm=lm), Summing())
    return ready(found, lm)


@dataclass(frozen=True)
class Saved:
    """A program's file: its text, what to call it in an error, and its task. elsewhere: it may be
    anybody's, so that an address it names gets no key that the project does not give it.
    """

    text: str
    where: str
    task: Task
    elsewhere: bool = False

    @property
    def config(self) -> RunConfig:
        """The project's, with the LM that the program was optimized on."""
        return self.configured()

    @property
    def tuned(self) -> str:
        """The adapter file or the provider's name of the tuned LM that it runs on; empty: none."""
        return str(_told(self.text).get("tuned") or "")

    def fits(self, lm: str | None) -> bool:
        """Whether it is for the LM of that name (None: its own). Tuned weights are for the one that
        they were made from; that may be called by their name as well.
        """
        own = self.config.lm
        same = in_catalogue(own) is not None and in_catalogue(str(lm)) is in_catalogue(own)
        return not self.tuned or same or lm in (None, own, f"openai/{self.tuned}")

    def configured(self, **flags: Any) -> RunConfig:
        """The same, with these knobs (None: not given). An address alone is where that LM is served
        now; another LM has nothing of it.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        another = given.get("lm") not in (None, f"openai/{self.tuned}")
        known = {} if another else optimized_on(self.text)
        address = None if "api_base" in given else known.get("api_base")
        served = self.tuned and not self.tuned.endswith(".gguf")
        if served and "api_base" in given and self.fits(given.get("lm")):
            # of the tuned LM, which has one even where its base runs in this process
            known |= {"api_base": given.pop("api_base")}
        found = load_config(self.task.root, known, **given)
        if self.elsewhere and address and address != load_config(self.task.root).api_base:
            return found.model_copy(update={"api_key": None})
        return found


def ready(
    found: Saved,
    lm: dspy.BaseLM | None = None,
    meter: Meter | None = None,
    config: RunConfig | None = None,
) -> Program:
    """The program with the LM that it will ask; as `load_program` has it. meter: counts and caps
    its calls; None: they are not capped. config: where its own LM is; None: where it was.
    """
    task, config, meter = found.task, config or found.config, meter or Summing()

    def tuned_lm(tuned: str) -> dspy.BaseLM:
        beside = Path(found.where).parent / tuned  # a served program has its weights with it
        weights = str(beside) if beside.is_file() else tuned
        return lm or lms.adapted_lm(config, meter, weights, task.max_tokens)

    program = parse_program(task, found.text, found.where, tuned_lm)
    if not program.tuned:
        unset = dspy.settings.lm is None
        program.lm = lm or (lms.task_lm(config, meter, task.max_tokens) if unset else None)
    return program


def asking(found: Saved, lm: str | None, config: RunConfig, meter: Meter) -> Program:
    """The program on the LM of that name (None: not given), or on its tuned weights where that is
    the LM that these are for. config: as `configured` gives it for that name.
    """
    own = found.tuned and found.fits(lm)
    asked = None if own else lms.task_lm(config, meter, found.task.max_tokens)
    return ready(found, asked, meter, config)


def kept(run: Found, task: Task, lm: str | None = None) -> Saved:
    """A run's best program for the LM of that name (None: its own): the best prompt without tuned
    weights, where these are for another.
    """
    found = Saved(run.text("program.json"), f"program.json of run {run.id}", task)
    if found.fits(lm):
        return found
    log.warning(
        "The program's tuned weights fit %s alone: %s is asked with its best prompt, without them.",
        found.config.lm, lm,
    )  # fmt: skip
    name = "prompt_program.json"
    return Saved(run.text(name), f"{name} of run {run.id}", task)


def saved(name: str | Path, root: Path | None, lm: str | None = None) -> Saved:
    """The file of a task's best program for the LM of that name (None: its own), or the one at that
    path.
    """
    if isinstance(name, str) and not name.endswith(".json"):
        task = load_task(name, (root or find_root()).resolve())
        return kept(champion(task.root, name), task, lm)
    path = Path(name).resolve()
    text = read_text(path)
    try:
        known = str(json.loads(text)["task"])
    except (ValueError, KeyError, TypeError):
        raise WorkbenchError(f"{path} is not a saved program: it names no task.") from None
    around = [root.resolve()] if root else [find_root(path.parent), find_root()]
    fitting = [r for r in around if (r / "programs" / f"{known}.py").is_file()]
    task = load_task(known, (fitting or around)[0])
    return Saved(text, str(path), task, not path.is_relative_to((task.root / "mlruns").resolve()))


def optimized_on(text: str) -> dict[str, Any]:
    """The knobs of the LM that a program was optimized on, as far as its file says."""
    known = _told(text).get("lm")
    return {k: known[k] for k in TASK_LM if k in known} if isinstance(known, dict) else {}


def _told(text: str) -> dict[str, Any]:
    """What a program's file says; parse_program says what is wrong with it."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
