"""One command written down as it goes: its run, its attempts, its scores, its report."""

from __future__ import annotations

import contextvars
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import dspy
from pydantic import TypeAdapter

from optimize import __version__
from optimize.climb.observer import Attempt, Observer
from optimize.climb.verdict import COVERAGE, History
from optimize.config import TASK_LM
from optimize.data.rows import Splits
from optimize.program.program import Program, render, to_text
from optimize.report.monitor import MonitorRecord
from optimize.report.recheck import RecheckRecord, recheck_sentences
from optimize.report.record import AttemptRecord, InUseRecord, Report
from optimize.report.rows import RowTable
from optimize.report.sentences import attempt_sentence
from optimize.report.text import decision, markdown
from optimize.report.untrusted import prose
from optimize.report.watched import monitor_sentences
from optimize.stats.records import RowScores
from optimize.stopping import closing
from optimize.store import prompts, shown, table
from optimize.store.champion import CHAMPION, crown, gain_over, present, takes_over
from optimize.store.experiment import experiment
from optimize.store.model import register
from optimize.store.open import client, is_shared
from optimize.store.read import HISTORY, TEST_ROWS, Found
from optimize.store.shared import PROJECT, one_at_a_time, project_id
from optimize.store.tags import NOTE, PARENT, STARTED, status
from optimize.store.training import TrainingRun, training_params

AT_WORK = {
    "run": "climbing",
    "finetune": "tuning",
    "adopt": "judging",
}  # what a run's name says until it ends


class Run(Observer):
    """One command's run and its nested runs, one a finished attempt. Use as a context manager.

    An attempt is written down while the next lever's calls are made; what goes wrong with it is
    raised by the next thing that is written.
    """

    def __init__(
        self, root: Path, task: str, command: str, config: Mapping[str, Any], splits: Splits
    ) -> None:
        self.client, self.root = client(root), root
        self.splits = splits
        self.config = config
        self.lm = {knob: config[knob] for knob in TASK_LM if knob in config}
        self.experiment = experiment(self.client, root, task)
        self.task = task
        self._project = project_id(root)
        self._end_killed()
        tags = {
            "task": task,
            "command": command,
            **STARTED,
            PROJECT: self._project,
        }
        self._began = time.strftime("%m-%d %H:%M")
        self.id = self.client.create_run(
            self.experiment, run_name=f"{AT_WORK.get(command, command)} {self._began}", tags=tags
        ).info.run_id
        self._log(self.id, {}, {**config, "data_hash": splits.digest, **_versions()})
        self._log_inputs()
        self._best = -1.0
        self._step = self._calls = 0
        self._prompts: list[prompts.Version] = []
        self._writer = ThreadPoolExecutor(1, "tracking")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Run:
        self._ending = ExitStack()
        self._ending.enter_context(closing(lambda: self.client.set_terminated(self.id, "KILLED")))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.close()
        self._writer.shutdown()
        if kind is None:
            self._written()
            self.client.set_terminated(self.id, "FINISHED")
            return
        ended = status(kind)
        self._rename(f"{'stopped' if ended == 'KILLED' else 'failed'} {self._began}")
        self.client.set_terminated(self.id, ended)

    def finished(self, attempt: Attempt) -> None:
        self._written()
        within = contextvars.copy_context().run  # DSPy's settings are the calling thread's
        self._writing = self._writer.submit(within, self._write_attempt, attempt)

    def _written(self) -> None:
        """Wait for what is being written down. Raises what went wrong with it."""
        if self._writing:
            self._writing.result()

    def _write_attempt(self, attempt: Attempt) -> None:
        without = "skipped" if attempt.skipped else "failed" if attempt.error else ""
        run = self._nested(f"{attempt.rung} ({without})" if without else attempt.rung, attempt)
        if attempt.program and attempt.evaluation:
            self._log_program(run, attempt)
        self._calls += attempt.usage.calls
        self._log_best()
        self.client.set_terminated(run, "FAILED" if attempt.error else "FINISHED")

    def decided(self, history: History) -> None:
        """All that the verdict is drawn from, so that `optimize verdict` can draw it again."""
        self._written()
        self.client.log_text(self.id, TypeAdapter(History).dump_json(history).decode(), HISTORY)

    def training(self, backend: str, made_of: Mapping[str, Any]) -> TrainingRun:
        """A nested run for a training that begins now. made_of: what it is made of, beside the
        command's knobs.
        """
        made = self._child(f"{backend} training", {"trainer": backend})
        self._log(made, {}, training_params(backend, made_of, self.config))
        return TrainingRun(self.client, made)

    def scores(self, side: str, found: RowScores) -> None:
        """How the programs of this run scored each row of a side, for `optimize compare`."""
        self.client.log_text(self.id, found.model_dump_json(), f"{side}_scores.json")

    @property
    def found(self) -> Found:
        """This run, as those that read it know it."""
        return Found(self.client, self.id, self.task, self.id)

    def answers(self, found: RowTable) -> None:
        """What the programs of this run answered to the test rows, for `optimize report`."""
        self.client.log_text(self.id, found.model_dump_json(), TEST_ROWS)

    def rechecked(self, found: RecheckRecord) -> None:
        """What a recheck has found; of several LMs a nested run for each."""
        for one in found.lms if len(found.lms) > 1 else ():
            nested = self._child(one.lm, {"outcome": one.verdict})
            self._log(nested, shown.rechecked_metrics(one), {"lm": one.lm, "target": found.target})
            self.client.set_terminated(nested, "FINISHED")
        told = recheck_sentences(found, date.today())
        self._conclude("recheck", found, told, shown.recheck_metrics(found))

    def monitored(self, found: MonitorRecord) -> None:
        """What newly collected rows say of the program in use."""
        told = monitor_sentences(found, date.today())
        self._conclude("monitor", found, told, shown.monitor_metrics(found))

    def _conclude(
        self, command: str, found: InUseRecord, told: Sequence[str], metrics: shown.Numbers
    ) -> None:
        """What a command has found that makes no program. told: its sentences."""
        note = "\n".join(f"- {prose(line)}" for line in told)
        self._log(self.id, metrics, tags={"outcome": found.outcome, NOTE: note})
        self._rename(found.outcome)
        self.client.log_text(self.id, found.model_dump_json(indent=1), f"{command}.json")

    def attach(self, path: Path) -> None:
        """Keep a file, or a folder with all that is in it, as an artifact."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.id, str(path), path.name if path.is_dir() else None)

    def settle(self, report: Report, program: Program, prompt_program: Program) -> None:
        """The verdict, the test scores and the best program; again where the report has changed.

        program: the best of all; prompt_program: the best without tuned weights, from which to
        fine-tune later.
        """
        self._written()
        tags = {
            "verdict": report.verdict,
            "target_met": report.target_met,
            "gate": "open" if report.gate.open else "closed",
        }
        self._log(self.id, shown.report_metrics(report), tags=tags | {NOTE: markdown(report)})
        self._rename(shown.result_name(report))
        self.client.log_text(self.id, report.model_dump_json(indent=1), "report.json")
        if report.decision:
            self.client.log_text(self.id, decision(report), "decision.md")
        self._log_state(self.id, program, "program.json")
        self._log_state(self.id, prompt_program, "prompt_program.json")
        self.client.log_text(self.id, render(program, self.splits.val[0]), "prompt.txt")

    def register(self, report: Report, test: RowScores, program: Program) -> None:
        """The program kept, as a version of the task's model that can be served, with its prompts.

        test: its scores, as `final`.
        """
        run = self.client.get_run(self.id)
        made = register(self.client, run, program, self.lm, self.splits.val[0])
        version = made.version
        told = f"{run.info.run_name}. Its run has the report."
        self.client.update_model_version(self.task, version, told)
        tags = shown.version_tags(report, len(test.rows))
        tags |= {"metric": metric} if (metric := self.config.get("metric")) else {}
        for name, value in tags.items():
            self.client.set_model_version_tag(self.task, version, name, value)
        kept = self._keep_prompts(program, f"kept: {run.info.run_name}")
        with one_at_a_time(self.client, self.task, self.root):
            champion = present(self.client, self.task)
            rows = self.splits.digest.partition(":")[0]
            held = (
                gain_over(self.client, champion, self.found, rows, test) if champion else (None, 0)
            )
            # too few answers speak for all of its rows
            judged = not champion or report.final.coverage >= COVERAGE
            if judged and takes_over(tags, dict(champion.tags) if champion else {}, *held):
                crown(self.client, self.task, made)
                prompts.mark(self.client, kept, CHAMPION)

    def _end_killed(self) -> None:
        """Runs of commands that died with their process: one command at a time works on a task of
        a project, so none of them goes on. Those of other projects in a shared store may.
        """
        running = "attributes.status = 'RUNNING'"
        running += f" and tags.{PROJECT} = '{self._project}'" if is_shared() else ""
        for run in self.client.search_runs([self.experiment], filter_string=running):
            self.client.set_terminated(run.info.run_id, "KILLED")

    def _nested(self, name: str, attempt: Attempt) -> str:
        """A nested run for an attempt that ends now."""
        tags = {"promoted": str(attempt.promoted)}
        why = {"skipped": attempt.skipped, "error": attempt.error}
        tags |= {tag: text for tag, text in why.items() if text}
        tags |= {NOTE: attempt_sentence(AttemptRecord.of(attempt))}
        tags |= table.TAG if attempt.evaluation else {}
        made = self._child(name, tags, attempt.seconds)
        params = shown.attempt_params(attempt, self.config)
        self._log(made, shown.attempt_metrics(attempt), params)
        return made

    def _child(self, name: str, tags: Mapping[str, str], seconds: float = 0.0) -> str:
        """A nested run that began so many seconds ago."""
        tags = {PARENT: self.id, "task": self.task, **tags}
        began = int((time.time() - seconds) * 1000)
        made = self.client.create_run(self.experiment, start_time=began, run_name=name, tags=tags)
        return str(made.info.run_id)

    def _log_best(self) -> None:
        """The best score on val so far, as two lines, and as the score until the run has another.

        MLflow shows a run's metrics in the order they came in.
        """
        from mlflow.entities import Metric

        self._step += 1
        if self._best < 0:
            return
        now, best = int(time.time() * 1000), shown.rounded(self._best)
        steps = {"score": 0, "score_by_rung": self._step, "score_by_calls": self._calls}
        self.client.log_batch(self.id, [Metric(k, best, now, step) for k, step in steps.items()])

    def _log(
        self,
        run: str,
        metrics: Mapping[str, float | None],
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """All of it in one transaction."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            run,
            [Metric(k, shown.rounded(v), now, 0) for k, v in metrics.items() if v is not None],
            [Param(name, str(value)) for name, value in (params or {}).items()],
            [RunTag(name, str(value)) for name, value in (tags or {}).items()],
        )

    def _rename(self, name: str) -> None:
        self.client.update_run(self.id, name=name)

    def _keep_prompts(self, program: Program, message: str) -> list[prompts.Version]:
        """The program's prompts in the registry, and with this run those that it built on."""
        found = prompts.keep(self.client, self.experiment, program, message)
        self._prompts += [version for version in found if version not in self._prompts]
        prompts.link(self.client, self.id, self._prompts)
        return found

    def _log_inputs(self) -> None:
        """The dev set as dataset inputs, with its digest; rows stay in devsets/."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for side, rows in self.splits.sides().items():
            profile = json.dumps({"num_rows": len(rows)})
            source = json.dumps({"path": f"devsets/{self.task}"})
            dataset = Dataset(
                f"{self.task}-{side}", self.splits.digest[:12], "local", source, profile=profile
            )
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", side)]))
        self.client.log_inputs(self.id, inputs)

    def _log_program(self, run: str, attempt: Attempt) -> None:
        program, evaluation = attempt.program, attempt.evaluation
        assert program and evaluation
        kept = {
            "program.json": to_text(program, self.lm),
            "prompt.txt": render(program, self.splits.val[0]),
            table.FILE: table.row_table(program, self.splits.val, evaluation),
        }
        with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
            for name, text in kept.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            self.client.log_artifacts(run, folder)
        if attempt.promoted:
            score = evaluation.score.mean
            self._best = max(self._best, score)
            found = self._keep_prompts(program, f"{attempt.rung}: {score:.2f} on val")
            prompts.link(self.client, run, found)

    def _log_state(self, run: str, program: Program, name: str) -> None:
        self.client.log_text(run, to_text(program, self.lm), name)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "dspy": dspy.__version__,
        "mlflow": version("mlflow"),
        "optimize": __version__,
    }
