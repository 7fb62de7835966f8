"""What makes bench/peers.py fair: every call is counted and capped alike, and answers are read one
way.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from bench.peers_cell import Asked, TaskRows, measured
from bench.peers_others import label_in, marked_in
from bench.peers_server import Counted
from bench.peers_server import served as counting
from optimize.lm.embedded import Endpoint
from tests.test_lm import chat_app, served

LABELS = ("credit_cards", "banking", "small_talk")


def test_calls_are_counted_with_their_tokens_and_refused_beyond_the_cap() -> None:
    app = chat_app(lambda text: 503 if text == "ill" else "banking")
    with served(app) as lm:
        counted = Counted(Endpoint(f"{lm}/v1", "secret"), "real", room=300, local=False)
        with counting(counted) as url:
            tally = counted.begin(cap=4)

            def asked(text: str, **more: object) -> httpx.Response:
                body = {"model": "x", "messages": [{"role": "user", "content": text}], **more}
                return httpx.post(f"{url}/chat/completions", json=body)

            assert asked("a", n=2, max_tokens=20).json()["model"] == "real"
            assert asked("ill").status_code == 503
            assert asked("b", max_completion_tokens=5000, stream=True).status_code == 200
            refused = asked("c")
    assert refused.status_code == 400 and "over budget" in refused.text
    assert (tally.calls, tally.failed, tally.refused) == (4, 1, 1)
    assert (tally.tokens_in, tally.tokens_out) == (14, 4)
    first, ill, last = app.state.bodies
    assert (first["max_tokens"], ill["max_tokens"]) == (20, 300)
    assert last["max_completion_tokens"] == 300 and "stream" not in last


def test_a_hosted_lm_is_not_sent_a_schema_that_it_would_refuse() -> None:
    spec = {"schema": {"enum": ["a", "b"], "type": "string"}}
    body = {"messages": [], "response_format": {"type": "json_schema", "json_schema": spec}}
    for local in (True, False):
        counted = Counted(Endpoint("http://nowhere/v1", "none"), "m", room=9, local=local)
        assert ("response_format" in counted._sent(body)) is local


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("banking", "banking"),
        (' "Banking." ', "banking"),
        ("The domain is credit_cards, I think.", "credit_cards"),
        ("banking or small_talk", None),
        ("bankings", None),
        ("", None),
    ],
)
def test_an_answer_is_read_for_the_one_label_it_names(answer: str, label: str | None) -> None:
    assert label_in(answer, LABELS) == label


def test_promptolutions_answer_stands_between_its_markers() -> None:
    assert marked_in("So: <final_answer> Banking </final_answer> .", LABELS) == "banking"
    assert marked_in("It is banking", LABELS) is None


@pytest.mark.parametrize("method", ["plain prompt", "DSPy, not optimized"])
def test_what_a_method_leaves_is_scored_on_rows_it_was_not_given(
    method: str, tmp_path: Path
) -> None:
    def answer(text: str) -> str:
        label = "banking" if "my account" in text else "small_talk"
        return f"[[ ## label ## ]]\n{label}" if "[[ ##" in text else label

    learn = [{"text": f"my account {n}", "label": "banking"} for n in range(24)]
    test = [
        {"text": f"{what} {n}", "label": "banking"}
        for n in range(4)
        for what in ("my account is empty", "nice weather")
    ]
    app = chat_app(answer)
    with served(app) as lm:
        counted = Counted(Endpoint(f"{lm}/v1", "secret"), "real", room=300, local=False)
        with counting(counted) as url:
            asked = Asked(
                counted=counted,
                url=url,
                budget=50,
                tokens=64,
                threads=4,
                minutes=2,
                python=None,
                form="chat",
                dspy_cache=False,
            )
            rows = TaskRows("talk", "Which is it?", LABELS, learn[:16], learn[16:], test)
            line = measured(asked, rows, method, 0, tmp_path)
    assert line["error"] == "" and line["scores"] == [1.0, 0.0] * 4
    assert (line["calls"], line["scoring"]["calls"]) == (0, 8)
