"""Tags that MLflow's UI reads, and how a run ends."""

from __future__ import annotations

NAME = "mlflow.runName"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"  # a description, in Markdown
# so that the UI opens an experiment on runs and charts
OF_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}
STARTED = {"mlflow.source.name": "optimize", "mlflow.user": ""}


def status(kind: type[BaseException] | None) -> str:
    """A run's, that ends with an exception of this kind, or well."""
    if kind is None:
        return "FINISHED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
