"""One command written down as it goes: its run, its attempts, its scores, its report."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dspy
from pydantic import TypeAdapter

from optimize import __version__, files
from optimize.climb.observer import Attempt, Observer
from optimize.climb.verdict import History
from optimize.config import TASK_LM
from optimize.data.rows import Splits, input_text, row_hash
from optimize.program.program import Program, render, to_text
from optimize.report.record import Report
from optimize.report.rows import RowTable
from optimize.report.text import decision, markdown
from optimize.scoring.evaluate import Evaluation
from optimize.stats.intervals import Interval
from optimize.stats.records import RowScores
from optimize.stopping import closing
from optimize.store.champion import CHAMPION, champion_tags, gain_over, takes_over
from optimize.store.open import client
from optimize.store.read import HISTORY, TEST_ROWS, Found

SHOWN, DEMO_CHARS = 2, 400  # of a row's demos in the table


class Run(Observer):
    """One command's run and its nested runs, one a finished attempt. Use as a context manager."""

    def __init__(
        self, root: Path, task: str, command: str, config: Mapping[str, Any], splits: Splits
    ) -> None:
        self.client = client(root)
        self.splits = splits
        self.lm = {knob: config[knob] for knob in TASK_LM if knob in config}
        found = self.client.get_experiment_by_name(task)
        self.experiment = found.experiment_id if found else self._create_experiment(root, task)
        self.task = task
        self._end_killed()
        tags = {
            "task": task,
            "command": command,
            "mlflow.source.name": "optimize",
            "mlflow.user": "",
        }
        self.id = self.client.create_run(
            self.experiment, run_name=f"{command} {time.strftime('%m-%d %H:%M')}", tags=tags
        ).info.run_id
        for name, value in {**config, "data_hash": splits.digest, **_versions()}.items():
            self.client.log_param(self.id, name, value)
        self._log_inputs()
        self._best = -1.0
        self._step = 0

    def __enter__(self) -> Run:
        self._ending = ExitStack()
        self._ending.enter_context(closing(lambda: self.client.set_terminated(self.id, "KILLED")))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.close()
        self.client.set_terminated(
            self.id,
            "KILLED"
            if kind and issubclass(kind, KeyboardInterrupt)
            else "FAILED"
            if kind
            else "FINISHED",
        )

    def finished(self, attempt: Attempt) -> None:
        tags = {"rung": attempt.rung, "family": attempt.family, "promoted": str(attempt.promoted)}
        run = self._nested(attempt.rung, tags, attempt.seconds)
        for tag in ("skipped", "error"):
            if text := getattr(attempt, tag):
                self.client.set_tag(run, tag, text)
        usage = attempt.usage
        numbers: dict[str, float | None] = {
            "lm_calls": usage.calls,
            "cached_calls": usage.cached,
            "tokens_in": usage.tokens_in,
            "tokens_out": usage.tokens_out,
            "cost_usd": usage.cost_usd,
            "latency_p50_ms": usage.latency_p50_ms,
            "seconds": attempt.seconds,
        }
        if attempt.program and attempt.evaluation:
            numbers |= _interval("val", attempt.evaluation.interval) | {
                "coverage": attempt.evaluation.coverage
            }
            numbers |= _interval("gain", attempt.gain) if attempt.gain else {}
            self.client.log_param(run, "format", attempt.program.format)
            self.client.log_param(run, "demos", len(_demos(attempt.program, {})))
            self._log_program(run, attempt.program, attempt.evaluation)
            if attempt.promoted:
                self._best = max(self._best, attempt.evaluation.interval.mean)
        self._log(run, numbers)
        self.client.log_metric(self.id, "best_val_score", self._best, step=self._step)
        self._step += 1
        self.client.set_terminated(run, "FAILED" if attempt.error else "FINISHED")

    def decided(self, history: History) -> None:
        """All that the verdict is drawn from, so that `optimize verdict` can draw it again."""
        self.client.log_text(self.id, TypeAdapter(History).dump_json(history).decode(), HISTORY)

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

    def attach(self, path: Path) -> None:
        """Keep a file, or a folder with all that is in it, as an artifact."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.id, str(path), path.name if path.is_dir() else None)

    def settle(self, report: Report, program: Program, prompt_program: Program) -> None:
        """The verdict, the test scores and the best program; again where the report has changed.

        program: the best of all; prompt_program: the best without tuned weights, from which to
        fine-tune later.
        """
        numbers: dict[str, float | None] = {}
        for name in ("zero_shot", "prompt", "tuned"):
            if record := getattr(report.test, name):
                suffix = "" if name == "prompt" else f"_{name}"
                values = {"score": record.score, "low": record.low, "high": record.high}
                numbers |= {f"test_{key}{suffix}": value for key, value in values.items()}
        for found in report.forgetting:
            numbers |= {f"{found.name}_base": found.base, f"{found.name}_tuned": found.tuned}
        n = report.numbers
        numbers |= {
            "val_corrected": n.best.score,
            "correction": n.correction,
            "reached": n.reached,
            "chance": n.chance,
        }
        numbers |= {
            re.sub(r"\W+", "_", f"test_score_{name}"): s.score
            for name, s in report.test.baselines.items()
        }
        self._log(
            self.id,
            numbers
            | {"lm_calls": report.lm_calls, "cost_usd": report.cost_usd, "seconds": report.seconds},
        )
        tags = {
            "verdict": report.verdict,
            "target_met": report.target_met,
            "gate": "open" if report.gate.open else "closed",
        }
        for name, value in (tags | {"mlflow.note.content": markdown(report)}).items():
            self.client.set_tag(self.id, name, str(value))
        self.client.log_text(self.id, report.model_dump_json(indent=1), "report.json")
        if report.decision:
            self.client.log_text(self.id, decision(report), "decision.md")
        self._log_state(self.id, program, "program.json")
        self._log_state(self.id, prompt_program, "prompt_program.json")
        self.client.log_text(self.id, render(program, self.splits.val[0]), "prompt.txt")

    def register(self, report: Report, test: RowScores) -> None:
        """The program kept, as a version of the task's model. test: its scores, as `final`."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.task)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        run = self.client.get_run(self.id)
        version = self.client.create_model_version(
            self.task, f"{run.info.artifact_uri}/program.json", self.id
        )
        tags = {"verdict": report.verdict, "lm": report.lm, "test_score": report.final.score}
        tags |= {"test_rows": report.final.n, "data_hash": report.data_hash}
        for name, value in tags.items():
            self.client.set_model_version_tag(self.task, version.version, name, str(value))
        known = champion_tags(self.client, self.task)
        if takes_over(tags, known, gain_over(self.client, self.task, test)):
            self.client.set_registered_model_alias(self.task, CHAMPION, version.version)

    def _end_killed(self) -> None:
        """Runs of commands that died with their process: one command at a time works on a task, so
        none of them goes on.
        """
        running = "attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self.experiment], filter_string=running):
            self.client.set_terminated(run.info.run_id, "KILLED")

    def _create_experiment(self, root: Path, task: str) -> str:
        local = "MLFLOW_TRACKING_URI" not in os.environ
        place = (root / "mlruns" / "artifacts" / task).resolve().as_uri() if local else None
        # so that the UI opens on runs and charts
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(task, artifact_location=place, tags=tags))

    def _nested(self, name: str, tags: dict[str, str], seconds: float) -> str:
        """A nested run for work that took so long and ends now."""
        tags |= {"mlflow.parentRunId": self.id, "task": self.task}
        began = int((time.time() - seconds) * 1000)
        return str(
            self.client.create_run(
                self.experiment, start_time=began, run_name=name, tags=tags
            ).info.run_id
        )

    def _log(self, run: str, numbers: Mapping[str, float | None]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            run, [Metric(k, float(v), now, 0) for k, v in numbers.items() if v is not None]
        )

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

    def _log_program(self, run: str, program: Program, evaluation: Evaluation) -> None:
        self._log_state(run, program, "program.json")
        self.client.log_text(run, render(program, self.splits.val[0]), "prompt.txt")
        pairs = list(zip(self.splits.val, evaluation.outcomes, strict=False))
        table: dict[str, list[Any]] = {
            name: [files.to_text(e[name]) for e, _ in pairs]
            for name in program.task.signature.input_fields
        }
        table |= {
            f"gold {name}": [files.to_text(e[name]) for e, _ in pairs]
            for name in program.task.signature.output_fields
        }
        table |= {
            "lm_text": ["\n---\n".join(o.said) for _, o in pairs],
            "answer": [files.to_text(o.answer) for _, o in pairs],
            "score": [o.score for _, o in pairs],
        }
        table |= {"feedback": [o.feedback for _, o in pairs], "error": [o.error for _, o in pairs]}
        table |= {
            "row": [row_hash(program.task, e)[:12] for e, _ in pairs],
            "seconds": [round(o.seconds, 3) for _, o in pairs],
        }
        table |= {
            "tokens_in": [o.usage.tokens_in for _, o in pairs],
            "tokens_out": [o.usage.tokens_out for _, o in pairs],
        }
        demos = [_demos(program, dict(e.inputs())) for e, _ in pairs]
        table |= {
            "cost_usd": [o.usage.cost_usd for _, o in pairs],
            "confidence": [o.confidence for _, o in pairs],
            "format": [program.format] * len(pairs),
            "demos": [len(d) for d in demos],
            "first demos": [files.to_text(d[:SHOWN])[:DEMO_CHARS] for d in demos],
        }
        self.client.log_table(run, table, "examples.json")

    def _log_state(self, run: str, program: Program, name: str) -> None:
        self.client.log_text(run, to_text(program, self.lm), name)


def _demos(program: Program, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """The demos in the prompt for these inputs: those of its predictors, and those looked up."""
    fixed = [dict(demo) for predictor in program.predictors() for demo in predictor.demos]
    near = program.neighbours
    return fixed + (near.find(input_text(program.task, inputs)) if near else [])


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    first = "gain" if name == "gain" else f"{name}_score"
    return {first: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "dspy": dspy.__version__,
        "mlflow": version("mlflow"),
        "optimize": __version__,
    }
