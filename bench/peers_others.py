"""Prompt optimizers without DSPy programs, as their documentation shows them, each sized to a
budget of LM calls: a worker of bench/peers.py, which may run in a Python of its own.

    python bench/peers_others.py JOB.json PROMPT.json

Imports nothing of the project, so that a peer's environment need not hold it. A prompt is its
messages before the input, with {text} in the last one, and a way to read the answer.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Prompt = dict[str, Any]
BEGIN, END = "<final_answer>", "</final_answer>"  # promptolution's markers


def label_in(answer: str, labels: Sequence[str]) -> str | None:
    """The label an answer names, as somebody who wants one word back would read it: alone, or as
    the only one of them in what was written. None: no label, or several.
    """
    bare = answer.strip().strip("\"'`*.:").casefold()
    for label in labels:
        if bare == label.casefold():
            return label
    named = [x for x in labels if re.search(rf"(?<!\w){re.escape(x)}(?!\w)", answer, re.IGNORECASE)]
    return named[0] if len(named) == 1 else None


def marked_in(answer: str, labels: Sequence[str]) -> str | None:
    """What stands between promptolution's markers, as its predictor reads it."""
    found = answer.split(BEGIN)[-1].split(END)[0].strip().casefold()
    return next((label for label in labels if label.casefold() == found), None)


READERS = {"label": label_in, "marked": marked_in}


def scored(job: Job, answer: str, label: str) -> tuple[float, str]:
    """The task's metric and its words on a wrong answer, the same that DSPy's optimizers get."""
    right = label_in(answer, job["labels"]) == label
    return float(right), "" if right else f"The right label is {label!r}."


def chat(system: str, reader: str = "label") -> Prompt:
    return {"messages": [("system", system), ("user", "{text}")], "reader": reader}


def plain(job: Job) -> Prompt:
    """The prompt that all others start from."""
    return chat(job["instruction"])


def gepa_itself(job: Job) -> Prompt:
    """`gepa.optimize` with its default adapter. LiteLLM is told the address by the environment."""
    import gepa
    from gepa.adapters.default_adapter.default_adapter import DefaultAdapter, EvaluationResult

    def evaluator(data: Any, response: str) -> Any:
        return EvaluationResult(*scored(job, response or "", data["answer"]))

    def rows(side: str) -> list[Any]:
        return [
            {"input": row["text"], "additional_context": {}, "answer": row["label"]}
            for row in job[side]
        ]

    name = f"openai/{job['model']}"
    found = gepa.optimize(
        seed_candidate={"system_prompt": job["instruction"]},
        trainset=rows("train"),
        valset=rows("val"),
        adapter=DefaultAdapter(
            model=name,
            evaluator=evaluator,
            max_litellm_workers=job["threads"],
            litellm_batch_completion_kwargs={"temperature": 0.0, "max_tokens": job["tokens"]},
        ),
        reflection_lm=name,
        reflection_lm_kwargs={"temperature": 1.0, "max_tokens": job["room"]},
        max_metric_calls=job["budget"],
        seed=job["seed"],
    )
    return chat(found.best_candidate["system_prompt"])


def mlflow_gepa(job: Job) -> Prompt:
    """`mlflow.genai.optimize_prompts`. It takes train rows alone, so all rows, and a text prompt of
    its registry, whose {{text}} every proposal has to keep.
    """
    import mlflow
    import openai
    from mlflow.genai.optimize import GepaPromptOptimizer
    from mlflow.genai.scorers import scorer

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    client = openai.OpenAI()
    prompt = mlflow.genai.register_prompt(
        name="label", template=job["instruction"] + "\n\n{{text}}"
    )

    def predict(text: str) -> str:
        asked = prompt.format(text=text)
        answer = client.chat.completions.create(
            model=job["model"],
            messages=[{"role": "user", "content": asked}],
            temperature=0.0,
            max_tokens=job["tokens"],
        )
        return answer.choices[0].message.content or ""

    @scorer
    def correct(outputs: str, expectations: dict[str, Any]) -> float:
        return scored(job, str(outputs), expectations["expected_response"])[0]

    found = mlflow.genai.optimize_prompts(
        predict_fn=predict,
        train_data=[
            {"inputs": {"text": row["text"]}, "outputs": row["label"]}
            for row in job["train"] + job["val"]
        ],
        prompt_uris=[prompt.uri],
        optimizer=GepaPromptOptimizer(
            reflection_model=f"openai:/{job['model']}",
            max_metric_calls=job["budget"],
            gepa_kwargs={"seed": job["seed"]},
        ),
        scorers=[correct],
    )
    template = re.sub(r"{{\s*text\s*}}", "{text}", found.optimized_prompts[0].template)
    return {"messages": [("user", template)], "reader": "label"}


def capo(job: Job) -> Prompt:
    """promptolution's CAPO on all rows. Its own sizes, ten prompts raced on up to ten blocks of 30
    rows, take 14 × 30 calls a block; below 3000 calls four prompts are raced on blocks of ten, and
    on as many as leave room for a second step.
    """
    import pandas
    from promptolution.llms import APILLM
    from promptolution.optimizers import CAPO
    from promptolution.predictors import MarkerBasedPredictor
    from promptolution.tasks import ClassificationTask
    from promptolution.utils.callbacks import BaseCallback
    from promptolution.utils.prompt_creation import create_prompt_variation

    asked = 0

    class Counting(APILLM):
        def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
            nonlocal asked
            asked += len(prompts)
            return super()._get_response(prompts, system_prompts)

    class Spent(BaseCallback):
        """Ends before a step like the last one would go beyond the budget."""

        before = 0

        def on_step_end(self, optimizer: Any) -> bool:
            last, self.before = asked - self.before, asked
            return asked + last <= job["budget"]

    def llm(tokens: int, **options: Any) -> Any:
        return Counting(
            api_url=job["url"],
            model_id=job["model"],
            api_key="none",
            max_concurrent_calls=job["threads"],
            max_tokens=tokens,
            call_kwargs=options,
        )

    random.seed(job["seed"])
    rows = [{"x": row["text"], "y": row["label"]} for row in job["train"] + job["val"]]
    population, block = (10, 30) if job["budget"] >= 3000 else (4, 10)
    offspring = 4  # its default
    looks = job["budget"] // (2 * (population + offspring) * block)
    first = f"{job['instruction']} Give it between {BEGIN} and {END}."
    meta = llm(job["room"])
    optimizer = CAPO(
        predictor=MarkerBasedPredictor(llm(job["tokens"], temperature=0.0)),
        meta_llm=meta,
        task=ClassificationTask(
            pandas.DataFrame(rows),
            task_description=job["instruction"],
            n_subsamples=block,
            eval_strategy="sequential_block",
            seed=job["seed"],
        ),
        initial_prompts=[first, *create_prompt_variation([first] * (population - 1), meta)],
        crossovers_per_iter=offspring,
        upper_shots=min(5, len(rows) // 10),  # it takes a tenth of the rows for demos
        max_n_blocks_eval=min(10, max(1, looks)),
        callbacks=[Spent()],
    )
    best = optimizer.optimize(n_steps=max(1, job["budget"] // 50))[0]
    helpful = ("system", "You are a helpful assistant.")  # its default system prompt
    return {
        "messages": [helpful, ("user", best.construct_prompt() + "\n{text}")],
        "reader": "marked",
    }


def opik_few_shot(job: Job) -> Prompt:
    from opik_optimizer import FewShotBayesianOptimizer

    return _opik(job, FewShotBayesianOptimizer)


def opik_meta_prompt(job: Job) -> Prompt:
    from opik_optimizer import MetaPromptOptimizer

    return _opik(job, MetaPromptOptimizer)


def _opik(job: Job, optimizer: Any) -> Prompt:
    """Opik's optimizers, without a server: rows are here and scored as a list, and nothing
    is stored. A trial asks the val rows once.
    """
    from opik.evaluation.metrics.score_result import ScoreResult
    from opik_optimizer import ChatPrompt

    class Serverless(optimizer):  # type: ignore[misc]
        def evaluate_prompt(self, *args: Any, **named: Any) -> Any:
            return super().evaluate_prompt(*args, **named | {"use_evaluate_on_dict_items": True})

    def correct(dataset_item: dict[str, Any], llm_output: str) -> Any:
        value, reason = scored(job, llm_output, dataset_item["label"])
        return ScoreResult(name="correct", value=value, reason=reason)

    name = f"openai/{job['model']}"
    told = {"temperature": 0.0, "max_tokens": job["tokens"]}
    searching = Serverless(
        model=name,
        model_parameters={"max_tokens": job["room"]},
        n_threads=job["threads"],
        seed=job["seed"],
    )
    found = searching.optimize_prompt(
        prompt=ChatPrompt(
            system=job["instruction"], user="{text}", model=name, model_parameters=told
        ),
        dataset=_opik_rows("train", job["train"]),
        validation_dataset=_opik_rows("val", job["val"]),
        metric=correct,
        max_trials=max(1, job["budget"] // len(job["val"]) - 1),
    )
    messages = [(m["role"], m["content"]) for m in found.prompt.get_messages()]
    return {"messages": messages, "reader": "label"}


def _opik_rows(name: str, rows: list[dict[str, str]]) -> Any:
    import opik

    class Here(opik.Dataset):  # type: ignore[misc]
        """A dataset that is asked of no server."""

        id = name

        def get_items(self, nb_samples: int | None = None, *_: Any, **__: Any) -> list[Any]:
            return [{"id": f"{name}{n}", **row} for n, row in enumerate(rows)][:nb_samples]

    return Here(name, None, None, rest_client=None, dataset_items_count=len(rows))


Method = Callable[[Job], Prompt]
METHODS: dict[str, tuple[Method, str]] = {  # with the package that each needs
    "plain prompt": (plain, ""),
    "gepa.optimize": (gepa_itself, "gepa"),
    "MLflow optimize_prompts": (mlflow_gepa, "mlflow"),
    "CAPO (promptolution)": (capo, "promptolution"),
    "Opik few-shot Bayesian": (opik_few_shot, "opik-optimizer"),
    "Opik MetaPrompt": (opik_meta_prompt, "opik-optimizer"),
}


def main() -> None:
    job, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    method, _ = METHODS[job["method"]]
    out.write_text(json.dumps({"prompt": method(job)}))


if __name__ == "__main__":
    main()
