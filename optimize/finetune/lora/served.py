"""The LM that is to be tuned, where it is served: the tokens it reads, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.finetune.epoch import Sample, Say
from optimize.finetune.lora.adapter_gguf import ELSEWHERE
from optimize.finetune.lora.cut import CutModel, EncodedRow, autocast
from optimize.gguf_header import read_header
from optimize.lm import embedded
from optimize.turns import my_turn

ASKED = 4  # prompts
FEWEST = 20  # rows that must be readable, where there are so many
TOLD = 400  # characters of a sample's prompt, from its end
APART = 1.0  # nats of the likeliest token, in the mean; a row order gone wrong makes it 5 and more


class ServedLM:
    """The engine's own chat template and tokenizer: what is learned is what it will read."""

    def __init__(self, path: Path, context: int | None = None) -> None:
        """context: tokens that it may read, as where it answers."""
        self.path = path
        self._endpoint = embedded.serve(path, None, context)
        self._end = int(read_header(path).values["tokenizer.ggml.eos_token_id"])

    def rows(self, row: dict[str, Any]) -> list[EncodedRow]:
        """A chat row as one row of token ids, a preference as two: the chosen answer, then the
        rejected one.
        """
        if "messages" in row:
            return [self.encode(row["messages"])]
        return [self.encode([*row["prompt"], *row[side]]) for side in ("chosen", "rejected")]

    def encode(self, messages: Sequence[dict[str, str]]) -> EncodedRow:
        """Prompt, answer and end of turn, split where the assistant's turn begins."""
        *asked, answer = messages
        prompt = self._endpoint.post("/apply-template", {"messages": asked})["prompt"]
        ids, both = self._tokens(prompt), self._tokens(prompt + answer["content"])
        if both[: len(ids)] != ids:  # a token would lie across the border
            both = ids + self._tokens(answer["content"], begins=False)
        return EncodedRow((*both, self._end), len(ids))

    def _tokens(self, text: str, begins: bool = True) -> list[int]:
        body = {"content": text, "add_special": begins, "parse_special": True}
        return list(self._endpoint.post("/tokenize", body)["tokens"])

    def samples(self, model: CutModel, rows: Sequence[EncodedRow]) -> list[Sample]:
        """What the model in training says to these rows, as texts."""
        return [
            Sample(
                asked=self._text(row.ids[: row.prompt])[-TOLD:],
                gold=self._text(self._turn(row.answer)),
                said=self._text(self._turn(said)),
            )
            for row, said in zip(rows, model.said(rows), strict=True)
        ]

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._endpoint.post("/detokenize", {"tokens": list(tokens)})["content"])

    def _turn(self, tokens: Sequence[int]) -> Sequence[int]:
        """Up to the end of the assistant's turn."""
        return tokens[: tokens.index(self._end)] if self._end in tokens else tokens

    def check_same(self, model: Any, rows: Sequence[EncodedRow]) -> None:
        """Ask the served LM and the model to be trained for the answers' first tokens.

        Raises WorkbenchError where they answer differently: loading has lost something that the
        weights do not tell, such as how positions are scaled.
        """
        prompts = sorted((row.ids[: row.prompt] for row in rows), key=len)
        apart = []
        for prompt in prompts[:: -(-len(prompts) // ASKED)]:
            body = {"prompt": list(prompt), "n_predict": 1, "n_probs": 1, "temperature": 0}
            told = self._endpoint.post("/completion", body).get("completion_probabilities")
            if told:  # the engine says nothing of a token that is half a character
                ours = _next(model, prompt)
                apart.append(abs(told[0]["logprob"] - ours[told[0]["id"]].item()))
        if (mean := sum(apart) / max(1, len(apart))) > APART:
            raise WorkbenchError(
                f"The base weights, loaded by transformers, answer otherwise than {self.path.name} "
                f"does where it is served: next tokens lie {mean:.1f} nats apart. {ELSEWHERE}"
            )


def readable(
    engine: ServedLM, rows: Sequence[dict[str, Any]], context: int, kind: str, say: Say
) -> list[tuple[dict[str, Any], list[EncodedRow]]]:
    """The rows, each with its token ids, without those that the LM could not read where it is
    served.

    Raises WorkbenchError where hardly any are left.
    """
    found = [(row, engine.rows(row)) for row in rows]
    sizes = [max(map(len, read)) for _, read in found]
    fitting = [one for one, size in zip(found, sizes, strict=True) if size <= context]
    if left := len(found) - len(fitting):
        told = (
            f"{left} of {len(found)} {kind} rows are longer than the {context} tokens that the LM "
            f"may read (the longest has {max(sizes)})"
        )
        if not fitting:
            raise WorkbenchError(f"All {told}. Allow more by --context, or shorten the rows.")
        if len(fitting) < FEWEST <= len(found):
            raise WorkbenchError(
                f"{told}, and {len(fitting)} are too few. Allow more by --context, "
                "or shorten the rows."
            )
        say(f"{told}: they are left out of the training. --context allows more.")
    return fitting


def _next(model: Any, prompt: Sequence[int]) -> Any:
    """Log-probabilities of the next token, in nats."""
    import torch

    with my_turn(), torch.inference_mode(), autocast(model.device.type):
        ids = torch.tensor([prompt], device=model.device)
        logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits
    return logits[0, -1].float().log_softmax(-1)
