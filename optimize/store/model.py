"""A run's program as a model that MLflow can serve: our own JSON and the task's file, never a
pickle. `optimize.commands.serve` loads it.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from optimize import __version__, files
from optimize.data.fields import field_type, is_optional
from optimize.program.folder import write_project
from optimize.program.program import Program

LOADER = "optimize.commands.serve"  # MLflow imports it by name when it loads the model
REGISTERED = "mlflow.modelVersions"  # the tag by which a logged model knows its versions
SCORES = ("score", "score_low", "score_high")
SCALARS = {"string": "string", "integer": "long", "number": "double", "boolean": "boolean"}


def register(
    store: Any, run: Any, program: Program, knobs: Mapping[str, Any], row: dspy.Example
) -> Any:
    """The program as a logged model of the run, and as a version of the task's registered model.

    knobs: of the LM it was optimized on (`config.TASK_LM`), for whoever loads it; keys are not
    among them. row: whose inputs are the example of how to ask.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    task, info = program.task.name, run.info
    model = _logged(store, run, program, knobs, row)
    store.log_outputs(info.run_id, [LoggedModelOutput(model.model_id, 0)])
    try:
        store.create_registered_model(task, description=f"The best programs of task {task}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # by its place: `models:/ID` is looked up in the store that is global in the process
    version = store.create_model_version(
        task, model.artifact_location, info.run_id, model_id=model.model_id
    )
    registered = json.dumps([{"name": task, "version": version.version}])
    store.set_logged_model_tags(model.model_id, {REGISTERED: registered})
    return version


def _logged(
    store: Any, run: Any, program: Program, knobs: Mapping[str, Any], row: dspy.Example
) -> Any:
    """Its files as a logged model, with the run's scores."""
    from mlflow.entities import Metric
    from mlflow.models import Model

    info = run.info
    made = store.create_logged_model(
        info.experiment_id, program.task.name, info.run_id, model_type="prompt program"
    )
    with tempfile.TemporaryDirectory(prefix="optimize-") as name:
        model = Model(run_id=info.run_id, model_id=made.model_id)
        write_model(Path(name), program, knobs, row, model)
        store.log_model_artifacts(made.model_id, name)
    scores = {k: v for k, v in run.data.metrics.items() if k in SCORES}
    now = int(time.time() * 1000)
    store.log_batch(
        info.run_id, [Metric(k, v, now, 0, model_id=made.model_id) for k, v in scores.items()]
    )
    return store.finalize_logged_model(made.model_id, "READY")


def write_model(
    folder: Path,
    program: Program,
    knobs: Mapping[str, Any],
    row: dspy.Example,
    model: Any = None,
) -> None:
    """A model's folder; model: what is known of it so far.

    MLflow's own `save_model` looks through every installed package for the one requirement there
    is, which takes seconds, and exports the project of whoever uses uv.
    """
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema

    model = model or Model()
    task, example = program.task, files.plain(dict(row.inputs()))
    write_project(folder / "data", program, knobs)
    needs = [f"optimize-workbench=={__version__}"]
    python = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    for name, text in {
        "requirements.txt": "\n".join(needs) + "\n",
        "python_env.yaml": json.dumps(python),  # JSON is YAML
        "input_example.json": json.dumps(example),
        "serving_input_example.json": json.dumps({"inputs": example}),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    model.saved_input_example_info = {
        "artifact_path": "input_example.json",
        "serving_input_path": "serving_input_example.json",
        "type": "json_object",
    }
    model.signature = ModelSignature(
        Schema([column(*field) for field in task.signature.input_fields.items()]),
        Schema([column(*field) for field in task.signature.output_fields.items()]),
    )
    pyfunc.add_to_model(model, LOADER, data="data", python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))


def refusal(why: str, clients: bool) -> Any:
    """What a served model raises for MLflow to tell whoever asked. clients: the fault is theirs."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

    return MlflowException(why, INVALID_PARAMETER_VALUE if clients else INTERNAL_ERROR)


def column(name: str, field: FieldInfo) -> Any:
    """A field of the task as MLflow describes it: a ColSpec."""
    from mlflow.types.schema import ColSpec

    schema = TypeAdapter(field_type(field)).json_schema()
    return ColSpec(_type(schema, schema.get("$defs", {})), name, required=not is_optional(field))


def _type(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """A JSON Schema as MLflow's type; `AnyType` for what it has no other for."""
    from mlflow.types.schema import AnyType, Array, DataType, Object, Property

    if reference := schema.get("$ref"):
        return _type(known[reference.rpartition("/")[2]], known)
    if some := schema.get("anyOf"):
        real = [one for one in some if one.get("type") != "null"]
        return _type(real[0], known) if len(real) == 1 else AnyType()
    kind = schema.get("type")
    if kind in SCALARS:
        return DataType[SCALARS[kind]]
    if kind == "array" and schema.get("items"):
        return Array(_type(schema["items"], known))
    if kind == "object" and schema.get("properties"):
        needed = schema.get("required", ())
        return Object(
            [
                Property(name, _type(part, known), required=name in needed)
                for name, part in schema["properties"].items()
            ]
        )
    return AnyType()
