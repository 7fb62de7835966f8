"""A hand-off that comes back: served elsewhere by vLLM's API, or as a file; what is refused before
the first call; and that it is judged as what was tuned here.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from optimize.climb.observer import Observer
from optimize.commands import adopt as adopting
from optimize.commands.handoff import handoff_last
from optimize.commands.load import load_program
from optimize.commands.run import run
from optimize.commands.session import open_session
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune.handoff.manifest import read, record, verify
from optimize.finetune.handoff.returned import _texts
from optimize.report.record import Report
from optimize.store.open import client
from optimize.store.read import last_run
from tests import tiny_lm
from tests.test_cli import optimize
from tests.test_fallback import PROGRAM
from tests.test_lm import served
from tests.test_openai_job import COLOURS, coloured
from tests.vllm_server import vllm_app

pytestmark = pytest.mark.slow  # a climb, on a scripted LM

BASE, TUNED = "painter-1b", "paint-lora"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "x"}


def paint(messages: list[dict[str, str]], tuned: bool) -> str:
    """The colour hangs on the length of the text: prompts do not teach that, the adapter knows."""
    return coloured(messages[-1]["content"].split("## thing ## ]]\n")[-1].split("\n")[0], tuned)


@pytest.fixture(scope="module")
def vllm() -> Iterator[tuple[FastAPI, str]]:
    app = vllm_app(BASE, paint)
    with served(app) as url:
        yield app, url + "/v1"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, vllm: tuple[FastAPI, str]) -> Path:
    """A climb on the base LM that has plateaued, with its hand-off."""
    root, rng = tmp_path_factory.mktemp("project"), random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz "
    things = ["".join(rng.choices(letters, k=rng.randint(12, 24))).strip() for _ in range(240)]
    rows = [{"thing": thing, "colour": COLOURS[len(thing) % 3]} for thing in things]
    general = [
        {"question": f"What is {n} + {n}?", "check": "number", "expected": [2 * n], "skill": "sums"}
        for n in range(1, 5)
    ]
    (root / "programs").mkdir()
    (root / "programs" / "paint.py").write_text(PROGRAM)
    for name, lines in (("paint", rows), ("general", general)):
        (root / "devsets" / name).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / "devsets" / name / "rows.jsonl").write_text(text)
    config = RunConfig(lm=f"openai/{BASE}", api_base=vllm[1])
    report = run(open_session(root, "paint", config, Observer()))
    assert (report.verdict, report.gate.open) == ("plateau", True), report.gate.reasons
    return root


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    """A copy of the hand-off, as it went out."""
    return Path(shutil.copytree(project / "mlruns" / "handoff" / "paint", tmp_path / "back"))


def adopt(root: Path, folder: Path, adapter: Path | None = None, lm: str = "", **flags: Any) -> Any:
    found = adopting.returned(root, str(folder), adapter, lm or None)
    config = adopting.config_of(root, found, flags)
    return adopting.adopt(open_session(root, found.manifest.task, config, Observer()), found)


def test_an_lm_that_vllm_serves_beside_its_base_is_judged_as_one_tuned_here(
    project: Path, folder: Path, vllm: tuple[FastAPI, str]
) -> None:
    app, url = vllm
    before = len(app.state.asked)
    with pytest.raises(WorkbenchError, match=r"does not answer at .*--lora-modules NAME=PATH"):
        adopt(project, folder, lm=f"openai/{TUNED}")
    assert len(app.state.asked) == before, "a name that is not served costs no answer"
    trained = folder / "out" / "trl_sft"
    trained.mkdir(parents=True)
    (trained / "adapter_config.json").write_text(json.dumps(CONFIG))
    body = {"lora_name": TUNED, "lora_path": str(trained)}
    assert httpx.post(f"{url}/load_lora_adapter", json=body).status_code == 200
    ids = [one["id"] for one in httpx.get(f"{url}/models").json()["data"]]
    assert ids == [BASE, TUNED]
    report: Report = adopt(project, folder, lm=f"openai/{TUNED}")
    assert report.decision and report.decision.accepted and report.decision.tuned == "adopted"
    assert report.test.tuned and report.test.tuned.score == 1.0 and report.target_met
    assert {a.rung for a in report.attempts} > {"adopted", "adopted, best prompt"}
    assert report.forgetting and report.effects and report.effects.brier_change is None
    assert report.effects.train_seconds is None and report.effects.pays_after is None
    assert report.lm == f"openai/{BASE}", "the LM of the record is the base"
    assert json.loads((project / report.program).read_text())["tuned"] == TUNED
    _, found = last_run(project, "paint")
    assert "adopt" in client(project).get_run(found.id).data.tags["command"]
    asked = len(app.state.asked)
    program = load_program(str(project / report.program), root=project)
    assert program(thing="abcd").colour == COLOURS[1]
    assert app.state.asked[asked:] == [TUNED], "the program asks the tuned LM by its name"


def changed(folder: Path) -> None:
    chat = folder / "chat" / "train.jsonl"
    chat.write_text(chat.read_text().replace("red", "blue", 1))


def mended(folder: Path) -> None:
    """A test row among the train rows, by someone who mends the hashes as well."""
    held = (folder / "chat" / "val.jsonl").read_text().splitlines()[0]
    (folder / "more.jsonl").write_text(json.dumps({"text": "x"}) + "\n" + held + "\n")


def of_another_task(folder: Path) -> None:
    found = read(folder)
    text = found.model_copy(update={"lm": "openai/another"}).model_dump_json()
    (folder / "manifest.json").write_text(text)


def with_fewer_rows(folder: Path) -> None:
    found = read(folder)
    counts = {**found.rows, "train": 7}
    text = found.model_copy(update={"rows": counts}).model_dump_json()
    (folder / "manifest.json").write_text(text)


def of_other_rows(folder: Path) -> None:
    found = read(folder)
    text = found.model_copy(update={"data_hash": "0" * 64}).model_dump_json()
    (folder / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed, "chat/train.jsonl was changed after it was written. What was trained"),
        (lambda f: (f / "chat" / "train.jsonl").unlink(), "chat/train.jsonl is missing"),
        (mended, r"more.jsonl:2 is a val row of 'paint'"),
        (of_another_task, "a climb on 'openai/another', the last climb of 'paint' was on"),
        (with_fewer_rows, "knows 7 train rows of 'paint', now there are"),
        (of_other_rows, "not those of the hand-off any more"),
        (lambda f: (f / "manifest.json").unlink(), "is no hand-off"),
    ],
)
def test_a_handoff_that_is_not_as_it_went_out_is_refused_before_any_call(
    project: Path,
    folder: Path,
    vllm: tuple[FastAPI, str],
    change: Callable[[Path], object],
    told: str,
) -> None:
    asked = len(vllm[0].state.asked)
    change(folder)
    with pytest.raises(WorkbenchError, match=told):
        adopt(project, folder, lm=f"openai/{TUNED}")
    assert len(vllm[0].state.asked) == asked


def test_a_test_row_among_the_train_rows_is_found_in_every_form(
    project: Path, folder: Path
) -> None:
    session = open_session(
        project, "paint", RunConfig(lm=f"openai/{BASE}", api_base="http://127.0.0.1:9"), Observer()
    )
    thing = session.splits.test[0].thing
    like = json.loads((folder / "chat" / "train.jsonl").read_text().splitlines()[0])
    system, user, answer = like["messages"]
    completion = json.loads((folder / "completion" / "train.jsonl").read_text().splitlines()[0])
    asked = user["content"].replace(_thing(user["content"]), thing)
    prompt = completion["prompt"].replace(user["content"], asked)
    assert asked != user["content"] and prompt != completion["prompt"]
    for form, row in {
        "chat": {"messages": [system, user | {"content": asked}, answer]},
        "completion": completion | {"prompt": prompt},
    }.items():
        path, whole = folder / form / "train.jsonl", (folder / "manifest.json").read_text()
        kept = path.read_text()
        path.write_text(kept + json.dumps(row) + "\n")
        found = read(folder)
        name = f"{form}/train.jsonl"
        files = found.files | {name: record(path)}
        text = found.model_copy(update={"files": files}).model_dump_json()
        (folder / "manifest.json").write_text(text)
        assert verify(folder) == [], "every hash holds"
        with pytest.raises(WorkbenchError, match=rf"{name}:\d+ is a test row"):
            adopt(project, folder, lm=f"openai/{TUNED}")
        path.write_text(kept)
        (folder / "manifest.json").write_text(whole)


def _thing(asked: str) -> str:
    return max((line.split(": ", 1)[-1] for line in asked.splitlines()), key=len)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "has no trained weights"),
        (("--lm", "embedded"), "name the tuned LM as openai/NAME"),
        (("--lm", "openai/x", "--adapter", "y"), "give one of them"),
        (("--adapter", "nowhere"), "--adapter nowhere does not exist"),
    ],
)
def test_the_command_says_what_is_wrong(
    project: Path, folder: Path, words: tuple[str, ...], told: str
) -> None:
    done = optimize(project, "adopt", str(folder), *words)
    assert done.returncode == 2 and told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_weights_in_two_places_and_weights_for_a_hosted_lm_are_told(
    project: Path, folder: Path
) -> None:
    for name in ("trl_sft", "trl_sft/checkpoint-2"):
        (folder / "out" / name).mkdir(parents=True)
        (folder / "out" / name / "adapter_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(WorkbenchError, match=r"hosted: .*trl_sft cannot be tried in this process"):
        adopt(project, folder)
    (folder / "merged.gguf").write_bytes(b"GGUF")
    with pytest.raises(WorkbenchError, match=r"in 2 places: .*--adapter"):
        adopt(project, folder)


@pytest.fixture
def local(project: Path, tmp_path: Path) -> tuple[Path, Path, Any]:
    """The same project as if its climb had been on a tiny LM in this process, its hand-off, and
    that LM in transformers.
    """
    pytest.importorskip("peft", reason="the lora extra is not installed")
    root = Path(shutil.copytree(project, tmp_path / "local"))
    model = tiny_lm.tiny_model("llama")
    model.config.max_position_embeddings = 4096  # its tokens are bytes, and the prompt has demos
    base = tiny_lm.write_gguf("llama", model, tmp_path / "base.gguf")
    report, found = last_run(root, "paint")
    store = client(root)
    again = store.create_run(
        store.get_experiment_by_name("paint").experiment_id,
        tags={"verdict": report.verdict, "task": "paint"},
    ).info.run_id
    climbed = report.model_copy(
        update={"lm": f"gguf:{base}", "knobs": {"lm": f"gguf:{base}"}, "decision": None}
    )
    store.log_text(again, climbed.model_dump_json(), "report.json")
    store.log_text(again, found.text("prompt_program.json"), "prompt_program.json")
    store.set_terminated(again, "FINISHED")
    config = RunConfig(lm=f"gguf:{base}", context=4096)
    folder, _, _ = handoff_last(open_session(root, "paint", config, Observer()), pairs=False)
    return root, folder, model


def peft_adapter(model: Any, folder: Path, **options: Any) -> Any:
    """As peft itself makes and saves one, with weights that matter."""
    import peft
    import torch

    options = {"target_modules": "all-linear", **options}
    config = peft.LoraConfig(r=4, lora_alpha=16, **options)
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(folder)
    return adapted


def test_an_adapter_of_peft_is_judged_in_this_process(local: tuple[Path, Path, Any]) -> None:
    root, folder, model = local
    peft_adapter(model, folder / "out" / "trl_sft")
    report: Report = adopt(root, folder, context=4096)
    assert report.decision and not report.decision.accepted, "its weights are random"
    assert report.decision.tuned.startswith("adopted") and report.test.tuned
    assert report.final is report.test.prompt, "the best prompt program stays"
    (kept,) = (root / "mlruns" / "adapters" / "paint").glob("*.gguf")
    _, found = last_run(root, "paint")
    assert kept.name in [f.path for f in client(root).list_artifacts(found.id)]


def test_a_tuned_lm_that_is_served_is_held_against_a_base_in_this_process(
    local: tuple[Path, Path, Any], vllm: tuple[FastAPI, str]
) -> None:
    root, folder, _ = local
    vllm[0].state.loaded[TUNED] = str(folder)
    report: Report = adopt(root, folder, lm=f"openai/{TUNED}", api_base=vllm[1], context=4096)
    assert report.decision and report.decision.accepted and report.lm.startswith("gguf:")
    program = load_program(str(root / report.program), root=root)
    assert program(thing="abcd").colour == COLOURS[1], "where it was asked, it is asked again"
    assert load_program("paint", root=root)(thing="abc").colour == COLOURS[0]


def test_an_answer_that_is_what_another_row_asks_is_no_test_row() -> None:
    """As where names are spelt out: IBM is the answer to one row, and the input of another."""
    chat = {"messages": [{"role": "user", "content": "Intl Business Machines"},
                         {"role": "assistant", "content": "IBM"}]}  # fmt: skip
    pair = {"prompt": chat["messages"][:1], "chosen": "IBM", "rejected": "Intel"}
    for row in (chat, pair, {"prompt": "Intl Business Machines", "completion": "IBM"}):
        assert set(_texts(row)) - {"user"} == {"Intl Business Machines"}
