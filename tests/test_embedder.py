"""Rows and passages found by meaning: the real embedder of the catalogue, and an endpoint's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request, Response

from optimize import lm as lms
from optimize.catalogue import EMBEDDERS
from optimize.climb.preflight import preflight
from optimize.climb.rungs import demos
from optimize.climb.rungs.base import Context
from optimize.config import RunConfig, load_config
from optimize.data.baselines import NEAREST, NEAREST_MEANING, REGRESSION_MEANING
from optimize.data.rows import load_splits
from optimize.errors import StoreFailed, WorkbenchError
from optimize.lm import weights
from optimize.lm.embedder import Embedder, embedder_of
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.lm.vectors import VectorStore
from optimize.program.program import Program, parse_program, student, to_text
from optimize.program.retrieval import Neighbours, Passages
from optimize.task import load_task
from tests.test_climb import TASK, example
from tests.test_lm import served

PROGRAM = """
from typing import Literal
import dspy
from optimize import Score, Task

class Topic(dspy.Signature):
    text: str = dspy.InputField()
    about: Literal["pay", "go"] = dspy.OutputField()

def metric(example, prediction):
    return Score(float(example.about == prediction.about))

task = Task(signature=Topic, metric=metric)
"""
MEANT = {
    "my bank card vanished": "card",
    "I would like to fly to Oslo": "travel",
    "it will rain all afternoon": "weather",
}
ASKED = {
    "somebody stole the plastic I pay with": "card",
    "book a plane ticket to Norway": "travel",
    "are showers expected after lunch": "weather",
}


@pytest.fixture(scope="module", autouse=True)
def minilm() -> Embedder:
    weights.pull(EMBEDDERS["minilm"], print)
    return Embedder("minilm")


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    meter = Meter(9)
    lms.configure(tmp_path, meter)
    return meter


def vector(text: str) -> list[float]:
    """One number for each topic, as a word of it is there."""
    return [3.0 * sum(w in text for w in words) + 0.1 for words in (("card",), ("fly", "plane"))]


@pytest.fixture
def endpoint() -> Iterator[tuple[FastAPI, str]]:
    app = FastAPI()
    app.state.bodies, app.state.keys, app.state.most = [], [], 64

    @app.post("/v1/embeddings")
    async def embed(request: Request) -> Any:
        body = await request.json()
        app.state.bodies.append(body["input"])
        app.state.keys.append(request.headers["authorization"])
        if "refused" in str(body["input"]):
            return Response('{"error": {"message": "no such model"}}', status_code=404)
        if len(body["input"]) > app.state.most or sum(map(len, body["input"])) > 1_000_000:
            return Response('{"error": {"message": "too much"}}', status_code=422)
        data = [{"index": n, "embedding": vector(t)} for n, t in enumerate(body["input"])]
        return {"data": data, "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}

    with served(app) as url:
        yield app, url + "/v1"


def painting(embedder: Embedder | None) -> Context:
    train = tuple(example(n) for n in range(60))
    lm = MeteredLM("openai/unasked", meter=Meter(0))
    return Context(TASK, train, lm, 400, 1, 4, 0, embedder=embedder)


def near(k: int, embedder: Embedder | None) -> Neighbours:
    rows = tuple({"text": text, "about": about} for text, about in MEANT.items())
    return Neighbours(k, tuple(MEANT), rows, embedder)


@pytest.mark.lm
def test_meaning_finds_what_shares_no_word(minilm: Embedder, meter: Meter) -> None:
    assert {t: near(1, minilm).find(t)[0]["about"] for t in ASKED} == ASKED
    assert {t: near(1, None).find(t)[0]["about"] for t in ASKED} != ASKED
    assert meter.usage().embedded == 6 and meter.usage().cost_usd == 0.0
    assert meter.usage().calls == 0


@pytest.mark.lm
def test_its_vectors_are_those_of_the_model(minilm: Embedder, meter: Meter) -> None:
    """Cosines that sentence-transformers gives for all-MiniLM-L6-v2, to the engine's precision."""
    pair = minilm.vectors(["That is a happy person", "That is a very happy person"])
    assert pair.shape == (2, 384) and np.allclose(np.linalg.norm(pair, axis=1), 1)
    assert float(pair[0] @ pair[1]) == pytest.approx(0.9429, abs=0.003)


@pytest.mark.lm
def test_long_and_empty_texts_are_embedded_too(minilm: Embedder, meter: Meter) -> None:
    found = minilm.vectors(["word " * 3000, "", "é" * 2000])
    assert np.isfinite(found).all() and found.shape == (3, 384)


@pytest.mark.lm
def test_passages_are_found_by_meaning(minilm: Embedder, meter: Meter) -> None:
    folder = Path(__file__).parents[1] / "devsets" / "kb_answer"
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    asked = [(row["message"], row["reply"][:9]) for row in rows if row["reply"].startswith("[KB-")]

    def right(found: Passages) -> int:
        return sum(found.find(text)[0].startswith(passage) for text, passage in asked)

    corpus = folder / "corpus.jsonl"
    by_words, by_both = right(Passages(1, corpus)), right(Passages(1, corpus, minilm))
    assert by_both > by_words + 4 and by_both > 0.95 * len(asked)


def test_each_text_is_embedded_once_a_project(
    endpoint: tuple[FastAPI, str], meter: Meter, tmp_path: Path
) -> None:
    app, url = endpoint
    embedder = Embedder("openai/any", url)
    texts = [f"card {n}" for n in range(70)]
    first = embedder.vectors([*texts, *texts])
    assert [len(body) for body in app.state.bodies] == [64, 6]
    assert meter.usage().embedded == 70 and meter.usage().cost_usd is None, "nobody knows its price"
    lms.configure(tmp_path, meter)
    assert np.array_equal(embedder.vectors(texts), first[:70]) and len(app.state.bodies) == 2
    lms.configure(tmp_path / "other", meter)
    embedder.vectors(texts[:1])
    assert len(app.state.bodies) == 3


def test_the_key_is_sent_and_never_kept(
    endpoint: tuple[FastAPI, str], meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, url = endpoint
    monkeypatch.setenv("OPTIMIZE_API_KEY", "sk-canary")
    found = embedder_of(load_config(embedder="openai/any", embedder_api_base=url))
    assert found and "canary" not in f"{found!r}{found.knobs}"
    found.vectors(["card"])
    assert app.state.keys == ["Bearer sk-canary"]


def test_a_program_remembers_who_finds_its_rows(endpoint: tuple[FastAPI, str]) -> None:
    _, url = endpoint
    embedder = Embedder("openai/any", url)
    context = painting(embedder)
    program = demos.with_nearest(student(TASK), context, 2, embedder)
    text = to_text(program)
    again = parse_program(TASK, text, "it", lambda name: pytest.fail("not tuned"))
    assert again.neighbours and again.neighbours.embedder == embedder
    old = json.loads(text)
    del old["neighbours"]["embedder"]  # as it was saved before there were any
    again = parse_program(TASK, json.dumps(old), "it", lambda name: pytest.fail("no"))
    assert again.neighbours and again.neighbours.embedder is None


def test_the_nearest_rows_are_tried_by_words_and_by_meaning(
    endpoint: tuple[FastAPI, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Neighbours | None] = []

    def compared(context: Context, candidates: list[Program], rows: object) -> Program:
        asked.extend(candidate.neighbours for candidate in candidates)
        return candidates[0]

    monkeypatch.setattr(Context, "best", compared)
    embedder = Embedder("openai/any", endpoint[1])
    demos.nearest(student(TASK), painting(embedder))
    finders = [(k, finder) for k in demos.NEAREST for finder in (embedder, None)]
    assert {(n.k, n.embedder) for n in asked if n} == set(finders)
    asked.clear()
    demos.nearest(student(TASK), painting(None))
    assert {n.embedder for n in asked if n} == {None}


def test_baselines_know_what_an_embedder_knows(
    endpoint: tuple[FastAPI, str], tmp_path: Path
) -> None:
    """Labels that follow the embedder's vectors, in texts whose words are all different."""
    root = tmp_path
    (root / "programs").mkdir()
    (root / "programs" / "topic.py").write_text(PROGRAM)
    (root / "devsets" / "topic").mkdir(parents=True)
    words = {"pay": "xcard", "go": "xplane"}
    rows = [{"text": f"{words[about]}{n}", "about": about} for n in range(60) for about in words]
    (root / "devsets" / "topic" / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    task = load_task("topic", root)
    found = preflight(
        task, load_splits(task), RunConfig(), embedder=Embedder("openai/any", endpoint[1])
    )
    assert found.baselines[NEAREST_MEANING].score == 1.0
    assert found.baselines[REGRESSION_MEANING].score == 1.0
    assert set(found.baselines) > {NEAREST, NEAREST_MEANING}


def test_a_request_holds_what_an_endpoint_takes(
    endpoint: tuple[FastAPI, str], meter: Meter
) -> None:
    """In texts, as it says itself, and in tokens; a text of another script is cut earlier."""
    app, url = endpoint
    hosted, app.state.most = Embedder("openai/any", url), 32
    assert len(hosted.vectors([f"text {n}" for n in range(100)])) == 100
    assert [len(body) for body in app.state.bodies] == [64, 32, 32, 32, 4]
    app.state.bodies.clear()
    hosted.vectors([f"{n} " + "word " * 4_700 for n in range(60)])
    assert all(sum(map(len, body)) < 4 * 250_000 for body in app.state.bodies)
    app.state.bodies.clear()
    hosted.vectors(["漢字" * 5_000])
    assert 6_000 < len(app.state.bodies[0][0]) < 8_192


def test_a_broken_embedder_is_a_clear_error(
    endpoint: tuple[FastAPI, str], meter: Meter, tmp_path: Path
) -> None:
    _, url = endpoint
    with pytest.raises(WorkbenchError, match="'openai/any' did not answer: NotFoundError"):
        Embedder("openai/any", url).vectors(["refused"])
    lm = weights.pull_embedded(print)
    for name, base, said in (
        ("text-embedding-3-small", None, "use minilm, gguf:PATH, openai/MODEL"),
        ("voyage/voyage-3", None, "use minilm, gguf:PATH, openai/MODEL"),
        ("openai/any", "http://127.0.0.1:9/v1", "Nothing listens"),
        (f"gguf:{tmp_path}/none.gguf", None, "does not exist"),
        (f"gguf:{lm}", None, "is an LM and no embedder"),
    ):
        with pytest.raises(WorkbenchError, match=said):
            embedder_of(RunConfig(embedder=name, embedder_api_base=base))
    (tmp_path / "vectors.db").write_text("no database " * 100)
    with pytest.raises(StoreFailed, match="move it away"):
        VectorStore(tmp_path / "vectors.db")


def test_processes_share_what_is_embedded(tmp_path: Path) -> None:
    one, other = VectorStore(tmp_path / "v.db"), VectorStore(tmp_path / "v.db")
    one.put("e", {"a": np.ones(3, dtype=np.float32)})
    assert other.get("e", ["a"])["a"].tolist() == [1, 1, 1] and not other.get("f", ["a"])
    assert one.kept.count() == 1
