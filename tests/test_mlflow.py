"""What a person finds in MLflow: runs by their scores, a model that can be served, prompts that can
be told apart.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dspy
import pytest
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from optimize.commands.new import write_task
from optimize.commands.serve import Served, _load_pyfunc
from optimize.program.program import student
from optimize.program.template import templates
from optimize.store.experiment import COLUMNS, RUNS, VIEW, addresses, experiment
from optimize.store.model import column
from optimize.store.open import client, tracking_uri
from optimize.task import load_task
from tests.browser import BROWSER, browsing
from tests.faulty_server import faulty_app
from tests.stored import stored_run
from tests.test_lm import served
from tests.test_ui import within

KEY = "sk-never-in-a-file"


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[str, list[Any]]]:
    """An LM's address, and what it was asked."""
    app = faulty_app(
        lambda text: "Hm." if "mumble" in text else "positive",
        lambda asked: "echo" if "forbidden" in asked.text else "",
    )
    with served(app) as url:
        yield f"{url}/v1", app.state.log


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, asked: tuple[str, list[Any]]) -> Path:
    """Two runs of one task and one of another."""
    root = tmp_path_factory.mktemp("store") / "first place"
    (root / "programs").mkdir(parents=True)
    for name in ("review", "refund"):
        write_task(root, name)
    (root / "wording.py").write_text("POLITE = True\n")
    task = root / "programs" / "review.py"
    task.write_text(
        f"import sys; sys.path.append({str(root)!r})\nimport wording\n{task.read_text()}"
    )
    stored_run(root, "review", 6, api_base=asked[0], api_key=KEY)
    stored_run(root, "review", 8, api_base=asked[0], seed=1)
    stored_run(root, "refund", 4, api_base=asked[0])
    moved = root.with_name("next place")
    root.rename(moved)
    client(moved)
    return moved


def runs(root: Path, task: str) -> tuple[list[Any], list[Any]]:
    """The task's runs, newest first, and those inside the newest."""
    store = client(root)
    found = store.search_runs([store.get_experiment_by_name(task).experiment_id])
    whole = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    inner = [r for r in found if r.data.tags.get("mlflow.parentRunId") == whole[0].info.run_id]
    return whole, inner[::-1]


def test_a_run_is_called_by_its_result_and_its_levers_can_be_told_apart(root: Path) -> None:
    whole, inner = runs(root, "review")
    assert [r.info.run_name for r in whole] == ["plateau 0.80 of 0.90", "plateau 0.60 of 0.90"]
    assert [r.info.run_name for r in inner] == [
        "zero_shot",
        "output_format",
        "nearest_demos",
        "passages (skipped)",
    ]
    zero, best, near, skipped = (run.data for run in inner)
    assert (zero.params["format"], best.params["format"]) == ("chat", "compact")
    assert (best.params["demos_nearest"], near.params["demos_nearest"]) == ("0", "4")
    assert near.params["seed"] == "1" and near.params["teacher"] == "the task LM itself"
    assert skipped.metrics == {} and skipped.tags["mlflow.note.content"].endswith("corpus.jsonl")
    for run in (*whole, *inner[:3]):
        assert next(iter(run.data.metrics)) == min(run.data.metrics) == "score"


def test_what_a_view_shows_as_columns_is_there(root: Path) -> None:
    store = client(root)
    whole, inner = runs(root, "review")
    tags = store.get_experiment_by_name("review").tags
    for view, found in ((RUNS, whole[0]), ("rungs", inner[1])):
        state = json.loads(json.loads(tags[VIEW + view])["state"])
        assert tuple(state["selectedColumns"]) == COLUMNS[view]
        known = {"metrics": found.data.metrics, "params": found.data.params}
        known |= {"tags": found.data.tags}
        for column_name in set(COLUMNS[view]) - {"metrics.`used_usd`"}:
            kind, _, name = column_name.partition(".")
            assert name.strip("`") in known[kind], column_name
    assert set(addresses(root, "http://127.0.0.1:1")) == {"review", "refund"}


def test_an_older_versions_view_is_renewed_unless_somebody_has_changed_it(root: Path) -> None:
    store = client(root)
    name = VIEW + RUNS

    def renewed(**changes: int) -> bool:
        view = json.loads(store.get_experiment_by_name("review").tags[name])
        old = json.dumps(view | {"state": "{}"} | changes)
        found = experiment(store, root, "review")
        store.set_experiment_tag(found, name, old)
        experiment(store, root, "review")
        return bool(store.get_experiment_by_name("review").tags[name] != old)

    assert not renewed(updatedAt=1)
    assert renewed(createdAt=1)


def test_the_champion_is_served_with_its_code_and_a_key_from_the_environment(
    root: Path, asked: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    store = client(root)
    version = store.get_model_version_by_alias("review", "champion")
    assert (int(version.version), version.tags["score"]) == (2, "0.8")
    assert sorted(version.tags).index("score_low") < sorted(version.tags).index("version_of_rows")
    assert root.as_posix() in version.source.replace("%20", " "), "a moved store is followed"
    folder = Path(store.download_artifacts(version.run_id, "", None)).parents[2] / "models"
    assert not [path for path in folder.rglob("*.pkl")]
    assert not [p for p in folder.rglob("*") if p.is_file() and KEY in p.read_text("utf-8")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    monkeypatch.setenv("OPTIMIZE_API_KEY", "sk-of-the-service")
    (root / "programs" / "review.py").rename(root / "programs" / "gone.txt")  # it has its own
    try:
        model = pyfunc.load_model("models:/review@champion")
    finally:
        (root / "programs" / "gone.txt").rename(root / "programs" / "review.py")
    assert model.metadata.signature.inputs.to_dict() == [
        {"type": "string", "name": "text", "required": True}
    ]
    example = model.input_example
    assert model.predict(example) == [{"verdict": "positive"}]
    assert asked[1][-1].key == "Bearer sk-of-the-service"
    assert model.predict([{"text": "One."}, {"text": "Two."}]) == [{"verdict": "positive"}] * 2


def test_prompts_have_a_version_each_time_they_change(root: Path) -> None:
    store = client(root)
    first, second = (store.load_prompt("review.prompt", version=n) for n in (1, 2))
    with pytest.raises(MlflowException):  # the same text is the same version
        store.load_prompt("review.prompt", version=3)
    assert first.commit_message == "zero_shot: 0.38 on val"
    assert second.commit_message == "output_format: 0.75 on val"
    assert second.format(text="Fine.")[-1] == {"role": "user", "content": "Fine."}
    assert store.get_prompt_version_by_alias("review.prompt", "champion").version == 2
    whole, inner = runs(root, "review")
    linked = {r.info.run_name: r.data.tags.get("mlflow.linkedPrompts") for r in (whole[0], *inner)}
    versions = {name: [p["version"] for p in json.loads(v or "[]")] for name, v in linked.items()}
    assert list(versions.values()) == [["1", "2"], ["1"], ["2"], [], []]


def test_a_template_has_a_place_for_what_is_looked_up(root: Path) -> None:
    from optimize.program.guide import Guide
    from optimize.program.retrieval import Neighbours

    program = student(load_task("review", root))
    program.neighbours = Neighbours(3, ("a",), ({"text": "a", "verdict": "positive"},))
    program.guide = Guide("- Praise is positive.\n- Irony is negative.", k=1)
    (messages,) = templates(program).values()
    told = json.dumps(messages)
    assert "{{nearest_3_rows}}" in told and "{{rules}}" in told and "Irony" not in told
    program.guide = Guide("- Praise is positive.\n- Irony is negative.")
    assert "Irony" in json.dumps(templates(program))


class Line(BaseModel):
    drink: str
    count: int | None = None


class Order(dspy.Signature):
    """Read the order."""

    lines: list[Line] = dspy.InputField()
    total: float | None = dspy.InputField()
    other: dict[str, int] = dspy.InputField()
    paid: bool = dspy.OutputField()


def test_a_field_of_any_type_is_described() -> None:
    found = {name: column(name, field) for name, field in Order.input_fields.items()}
    assert str(found["lines"].type) == "Array({count: long (optional), drink: string (required)})"
    assert found["total"].to_dict() == {"type": "double", "name": "total", "required": False}
    assert found["other"].to_dict()["type"] == "any"


@pytest.fixture
def served_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The champion as MLflow loads it, after somebody has switched DSPy's cache on."""
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    source = client(root).get_model_version_by_alias("review", "champion").source
    return _load_pyfunc(f"{source.removeprefix('file://').replace('%20', ' ')}/data")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (7, "Field 'text': 7 does not fit"),
        ("mumble", "the LM's answer is none of the task's outputs"),
        ("forbidden", "the LM did not answer: "),
    ],
)
def test_what_a_served_model_cannot_answer_is_told_without_our_paths(
    served_model: Served, text: Any, says: str
) -> None:
    with pytest.raises(MlflowException) as told:
        served_model.predict([{"text": text}])
    assert told.value.message.startswith(says)
    assert told.value.__cause__ is told.value.__context__ is None
    assert "stack_trace" not in told.value.serialize_as_json()


@pytest.mark.parametrize("text", ["Fine.", "mumble"])
def test_a_served_model_keeps_no_answer(
    served_model: Served, asked: tuple[str, list[Any]], text: str
) -> None:
    took = []
    for _ in range(2):
        before = len(asked[1])
        with suppress(MlflowException):
            served_model.predict([{"text": text}])
        took.append(len(asked[1]) - before)
    assert took[0] == took[1] > 0


COLUMN = """(() => {
    const cells = [...document.querySelectorAll('[role=gridcell]')];
    const found = cells.filter(e => (e.getAttribute('col-id') || '').includes('`NAME`'));
    return found.length >= 2 && found.map(e => e.innerText.trim());
})()"""


ORDER = ["score", "target", "score_zero_shot", "score_without_lm"]
ORDERED = f"""(() => {{
    const left = (name) => {{
        const found = [...document.querySelectorAll('[role=columnheader]')]
          .find(e => (e.getAttribute('col-id') || '').endsWith('`' + name + '`'));
        return found ? found.getBoundingClientRect().left : 0;
    }};
    const places = {json.dumps(ORDER)}.map(left);
    return places[0] > 0 && places.every((place, n) => n === 0 || place > places[n - 1]);
}})()"""


@pytest.fixture
def ui(root: Path) -> Iterator[str]:
    """The address of `optimize ui` on the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "optimize", "ui", "--port", str(port)]
    running = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    try:
        assert within(180, port, True), "it never answered"
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_that_never_saw_it_shows_scores(root: Path, ui: str) -> None:
    """The list of runs, the view of scores, the comparison of levers, the champion."""
    whole, inner = runs(root, "review")
    experiment = whole[0].info.experiment_id
    with browsing() as page:
        page.open(f"{ui}/#/experiments/{experiment}/runs")
        page.shows("plateau 0.80 of 0.90", "plateau 0.60 of 0.90")
        page.open(addresses(root, ui)["review"])
        page.shows("plateau 0.80 of 0.90", "Model registry")  # not the tools for traces
        page.until(ORDERED)
        # by column: a slow browser puts them into the view's order late or not at all
        for name, values in {"score": ["0.8", "0.6"], "score_low": ["0.7", "0.5"]}.items():
            assert page.until(COLUMN.replace("NAME", name)) == values
        ids = json.dumps([run.info.run_id for run in inner[:3]])
        page.open(f"{ui}/#/compare-runs?runs={ids}&experiments=[%22{experiment}%22]")
        page.shows("Comparing 3 Runs", "output_format")
        chosen = page.until(
            "(() => { const found = [...document.querySelectorAll('.ant-select-selection-item, "
            "[class*=select-selection-item]')].map(e => e.innerText.trim()).filter(Boolean); "
            "return found.length >= 3 && found; })()"
        )
        assert [name for name in dict.fromkeys(chosen)] == [
            "demos_nearest",
            "format",
            "rung",
            "score",
        ]
        page.open(f"{ui}/#/models/review")
        page.shows("Version 2", "champion")
        page.open(f"{ui}/#/prompts/review.prompt")
        page.shows("Version 2", "output_format: 0.75 on val")
        # MLflow asks for users, which only its servers with accounts know
        assert [e for e in page.errors if "users/current" not in e] == []
