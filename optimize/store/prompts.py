"""A run's prompts as versions in MLflow's prompt registry, where it shows what changed from one to
the next.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from optimize.program.program import Program
from optimize.program.template import Messages, templates

LONGEST = 90_000  # letters, with their JSON; the registry takes 100,000
LINKED = "mlflow.linkedPrompts"  # the tag by which MLflow knows the prompts of a run
OF = "_mlflow_experiment_ids"  # the tag by which it knows the experiments of a prompt
HASH = "hash"
PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"


class Version(NamedTuple):
    """Of a prompt in the registry."""

    name: str
    version: int


def keep(store: Any, experiment: str, program: Program, message: str) -> list[Version]:
    """A version of each of the program's prompts: the one there is, where it reads the same, else a
    new one.

    message: what a new version is told by, as a commit is.
    """
    named = {prompt_name(program, step): text for step, text in templates(program).items()}
    return [
        Version(name, _version(store, experiment, name, messages, message))
        for name, messages in named.items()
        if len(json.dumps(messages)) <= LONGEST
    ]


def prompt_name(program: Program, step: str) -> str:
    """What the prompt of a predictor is called, in letters that MLflow's registry takes and can
    search for; a task's own name is its model's.
    """
    single = len(program.predictors()) == 1
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", step).strip("_")
    return f"{program.task.name}.{'prompt' if single else plain}"


def mark(store: Any, prompts: Sequence[Version], alias: str) -> None:
    """Give these versions an alias, which others of the same prompts lose."""
    for prompt in prompts:
        store.set_prompt_alias(prompt.name, alias, prompt.version)


def link(store: Any, run: str, prompts: Sequence[Version]) -> None:
    """Show the prompts with the run."""
    # the client's own call for it writes to the store that is global in the process
    linked = [{"name": prompt.name, "version": str(prompt.version)} for prompt in prompts]
    store.set_tag(run, LINKED, json.dumps(linked))


def _version(store: Any, experiment: str, name: str, messages: Messages, message: str) -> int:
    from mlflow.exceptions import MlflowException

    digest = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]
    try:
        store.create_prompt(name, tags={OF: f",{experiment},"})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        same = f"name = '{name}' and tags.{HASH} = '{digest}' and {PROMPTS}"
        with suppress(IndexError):
            return int(store.search_model_versions(same, max_results=1)[0].version)
    return int(store.create_prompt_version(name, messages, message, {HASH: digest}).version)
