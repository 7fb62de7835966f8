"""Fine-tuning jobs at OpenAI, Azure and any provider that speaks their API: upload, job, poll. The
only module that imports openai.

What was paid for is on record before the next step: files before the job, the job before the first
poll. So the same command after a crash goes on with the same job.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from optimize.config import RunConfig
from optimize.errors import JobLeft, WorkbenchError
from optimize.files import write_whole
from optimize.finetune import training_id
from optimize.finetune.epoch import Epoch, TrainingLog, TrainingProgress
from optimize.finetune.job import TrainingJob
from optimize.lm.addresses import check_single
from optimize.stats.records import Record

FIRST_POLL, LAST_POLL = 2.0, 60.0  # seconds between two looks at a job, growing by half
RETRIES = 5  # of a request that the provider was too busy for
SUFFIX = "optimize"
ENDED = ("failed", "cancelled")


class Job(Record):
    """What is known at the provider of one fine-tuning; null is not done yet."""

    model: str
    train_file: str | None = None
    val_file: str | None = None
    id: str | None = None
    tuned: str | None = None


def check_config(config: RunConfig) -> None:
    """Raises WorkbenchError where a job could not even be asked for."""
    if not config.lm.startswith(("openai/", "azure/")) and not config.api_base:
        raise WorkbenchError(
            "--finetune openai trains a hosted LM: --lm openai/MODEL, or any LM with --api-base "
            f"whose provider speaks OpenAI's fine-tuning API, not {config.lm!r}."
        )
    check_single(config.api_base, "--finetune openai")
    if not _key(config):
        raise WorkbenchError(
            "--finetune openai needs a key: OPTIMIZE_API_KEY; without --api-base OPENAI_API_KEY "
            "will do."
        )
    if config.method == "dpo" and config.replay:
        raise WorkbenchError(
            "--finetune openai trains on preferences or on answers, not on both: leave out "
            "--replay or --method dpo."
        )


def recipe(job: TrainingJob) -> dict[str, Any]:
    """What the trainer sets by itself: the provider's own."""
    return {}


def train(job: TrainingJob, log: TrainingLog | None = None) -> str:
    """The provider's name of the tuned model. The same rows, base and config go on with the job
    they began.

    Raises WorkbenchError in the provider's words where it refuses or fails, and JobLeft on Ctrl-C.
    """
    base, config = job.base, job.config
    made_of = [base, config.seed, config.epochs, config.api_base]
    identity = training_id([job.rows, job.val, *made_of])
    record = _Record(job.out / f"{identity}.job.json", base)
    client = _client(config)
    with _told(base):
        if record.job.id is None:
            _check_base(client, base)
            taught = f"{identity}-train.jsonl"
            record.note(train_file=record.job.train_file or _upload(client, job.rows, taught))
            # a provider wants a validation file of the same form, and val rows have no rejected
            # answer
            if config.method != "dpo":
                judging = f"{identity}-val.jsonl"
                record.note(val_file=record.job.val_file or _upload(client, job.val, judging))
            record.note(id=_begun(client, record.job) or _begin(client, record.job, config))
        if record.job.tuned is None:
            job.say(f"The provider trains it as job {record.job.id}")
            try:
                record.note(tuned=_await(client, str(record.job.id), job.progress))
            except WorkbenchError:  # the job itself has failed; whoever asks again wants a new one
                record.note(id=None)
                raise
    return str(record.job.tuned)


def curve(tuned: str, out: Path | None = None) -> list[Epoch]:
    """The provider keeps the losses to itself, or in a file of its own form."""
    return []


class _Record:
    """A job's record on disk, replaced whole at each step."""

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.job = (
            Job.model_validate_json(path.read_bytes()) if path.is_file() else Job(model=model)
        )

    def note(self, **known: str | None) -> None:
        self.job = self.job.model_copy(update=known)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.job.model_dump_json(indent=1) + "\n")


def _key(config: RunConfig) -> str | None:
    if config.api_key:
        return config.api_key.get_secret_value()
    # another address never gets OpenAI's key
    return None if config.api_base else os.environ.get("OPENAI_API_KEY")


def _client(config: RunConfig) -> Any:
    import openai

    return openai.OpenAI(api_key=_key(config), base_url=config.api_base, max_retries=RETRIES)


def _check_base(client: Any, base: str) -> None:
    """A retired base model is told with its day, before anything is uploaded."""
    import openai

    try:
        found = client.models.retrieve(base)
    except openai.NotFoundError:
        raise WorkbenchError(
            f"The provider knows no model {base!r}: give a --lm that it fine-tunes."
        ) from None
    day = getattr(found, "shutdown_date", None)
    if day and str(day) <= time.strftime("%Y-%m-%d"):
        raise WorkbenchError(
            f"The provider has retired {base!r} on {day}, and with it every fine-tune on it. "
            "Choose another --lm."
        )


def _upload(client: Any, rows: Sequence[dict[str, Any]], name: str) -> str:
    text = "".join(json.dumps(_theirs(row), ensure_ascii=False) + "\n" for row in rows)
    return str(client.files.create(file=(name, text.encode()), purpose="fine-tune").id)


def _theirs(row: dict[str, Any]) -> dict[str, Any]:
    """A chat row as it is, a preference by the names this API gives its parts."""
    if "messages" in row:
        return row
    return {
        "input": {"messages": row["prompt"]},
        "preferred_output": row["chosen"],
        "non_preferred_output": row["rejected"],
    }


def _begun(client: Any, job: Job) -> str | None:
    """The job that was begun on this very file, where a crash came between its creation and our
    note of it.
    """
    found = client.fine_tuning.jobs.list(limit=100)
    ours = (j for j in found.data if j.training_file == job.train_file and j.status not in ENDED)
    return next((str(j.id) for j in ours), None)


def _begin(client: Any, job: Job, config: RunConfig) -> str:
    kind = "dpo" if config.method == "dpo" else "supervised"
    method = {"type": kind, kind: {"hyperparameters": {"n_epochs": config.epochs}}}
    files = {"training_file": job.train_file} | (
        {"validation_file": job.val_file} if job.val_file else {}
    )
    return str(
        client.fine_tuning.jobs.create(
            model=job.model, suffix=SUFFIX, seed=config.seed, method=method, **files
        ).id
    )


def _await(client: Any, job: str, progress: TrainingProgress) -> str:
    """The tuned model's name, once there is one; each new event is shown."""
    pause, seen = FIRST_POLL, 0
    try:
        while True:
            found = client.fine_tuning.jobs.retrieve(job)
            events = list(reversed(client.fine_tuning.jobs.list_events(job, limit=50).data))
            last = events[-1].message if events else ""
            pause, seen = (pause, seen) if len(events) == seen else (FIRST_POLL, len(events))
            progress(0, 0, f"job {job}: {found.status}. {last}")
            if found.status == "succeeded":
                return str(found.fine_tuned_model)
            if found.status in ENDED:
                why = found.error.message if found.error and found.error.message else last
                raise WorkbenchError(
                    f"Job {job} has {found.status}: {why or 'the provider gives no reason'}. "
                    "The same command begins another one."
                )
            time.sleep(pause)
            pause = min(LAST_POLL, 1.5 * pause)
    except KeyboardInterrupt:
        raise JobLeft(job, lambda: client.fine_tuning.jobs.cancel(job)) from None


@contextlib.contextmanager
def _told(base: str) -> Iterator[None]:
    """The provider's refusals as a sentence that says what to do."""
    import openai

    try:
        yield
    except openai.AuthenticationError:
        raise WorkbenchError(
            "The provider refuses the key. Give another in OPTIMIZE_API_KEY or OPENAI_API_KEY."
        ) from None
    except openai.PermissionDeniedError as error:
        raise WorkbenchError(
            f"The provider does not let this account fine-tune {base!r}: {_said(error)} OpenAI has "
            "closed job creation to new accounts and ends it for all on 2027-01-06; hand off "
            "instead (optimize handoff), or train open weights (--finetune lora)."
        ) from None
    except openai.APIStatusError as error:
        raise WorkbenchError(
            f"The provider answered {error.status_code}: {_said(error)} The same command goes on "
            "from there."
        ) from None
    except openai.APIConnectionError as error:
        raise WorkbenchError(
            f"The provider cannot be reached: {error}. The same command goes on from there."
        ) from None


def _said(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message).rstrip(".") + "."
