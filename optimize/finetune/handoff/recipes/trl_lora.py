"""A LoRA on this hand-off's rows, with TRL: python recipes/trl_lora.py --base MODEL

SFT first; then, where there are preference pairs, DPO or KTO on the same adapter:
python recipes/trl_lora.py --base MODEL --method dpo --adapter out/sft

Needs trl, peft and datasets; with CUDA and bitsandbytes the base is read in 4 bits (QLoRA). On
several GPUs: accelerate launch recipes/trl_lora.py --base MODEL. The loss is on the answers only.
The epoch that answers most val rows word for word is kept, of equals the one with the lowest loss;
two epochs without a better one end the training. Stopped or killed, the same command goes on from
its last whole epoch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HANDOFF = Path(__file__).resolve().parents[1]
RANK, ALPHA, BATCH, LONGEST, PATIENCE = 16, 32, 8, 2048, 2
LORA = {"r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
TIMES, SHORT = (15, 10), 100  # rates of full tuning that a LoRA of fewer, or of more steps takes
DPO_RATE = 0.05  # of SFT's rate
WARMUP = 0.1  # of the steps
SHOWN, TOLD = 5, 400  # val rows whose answers are written down, letters of their prompts
METHODS = ("sft", "dpo", "kto")
PRECISIONS = ("auto", "float32", "bf16", "4bit")
Encoded = tuple[list[int], int]  # a row's token ids, and how many of them are the prompt
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
STARTED, PROGRESS, STATE = "training.json", "progress.jsonl", "trainer_state.json"


def main() -> None:
    manifest = json.loads((HANDOFF / "manifest.json").read_text(encoding="utf-8"))
    args = parsed(manifest)
    if args.attached:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    out = Path(args.out)
    if args.check:
        print(json.dumps(checked(args)))
    elif (out / WEIGHTS).is_file() and same(out, args):
        print(f"{out} is trained already.")
    else:
        note_start(out, args)
        train(args, out)


def parsed(manifest: dict[str, Any], words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. manifest: of the hand-off, whose base, epochs and seed it knows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    base = manifest["base"]
    told = "hub name, folder or GGUF file of the base model"
    parser.add_argument("--base", default=base, required=not base, help=told)
    parser.add_argument("--method", choices=METHODS, default="sft")
    parser.add_argument("--adapter", help="LoRA that dpo and kto go on from", type=Path)
    parser.add_argument("--out", default=None, help="default: out/METHOD")
    parser.add_argument("--epochs", type=int, help="default: the manifest's; of dpo and kto 1")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a step, over all GPUs")
    told = "run a step one after the other in so many pieces, which take less memory"
    parser.add_argument("--pieces", type=int, default=1, help=told)
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--max-length", type=int, default=LONGEST, help="tokens of a row")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--seed", type=int, default=manifest["seed"])
    told = "construct everything, for so many GPUs, and train nothing"
    parser.add_argument("--check", nargs="?", const=1, default=0, type=int, help=told)
    parser.add_argument("--attached", action="store_true", help="end when standard input ends")
    args = parser.parse_args(words)
    args.out = args.out or f"out/{args.method}"
    if args.epochs is None:
        args.epochs = manifest["epochs"] if args.method == "sft" else 1
    if args.method == "sft" or args.check:
        return args
    if not (args.adapter and (args.adapter / CONFIG).is_file()):
        parser.error(f"--method {args.method} needs --adapter FOLDER, a LoRA that was tuned by sft")
    if not (HANDOFF / "preferences" / "train.jsonl").is_file():
        parser.error("this folder has no preferences/train.jsonl: hand off with --pairs")
    return args


def end_with_stdin() -> None:
    """Whoever started this holds the other end, which closes when that process dies."""
    while os.read(0, 1):  # not by `sys.stdin`, whose lock would be held at the end
        pass
    os._exit(1)


# --- what is trained on ---------------------------------------------------------------------------


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (HANDOFF / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def encoded(tokenizer: Any, messages: Sequence[dict[str, str]]) -> Encoded:
    """A conversation's token ids, up to the end of the answer's turn; how many are the prompt."""
    plain = {"tokenize": True, "return_dict": False}
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **plain)
    whole = list(tokenizer.apply_chat_template(messages, **plain))
    ends = [n for n in range(len(prompt), len(whole)) if whole[n] == tokenizer.eos_token_id]
    return whole[: ends[0] + 1] if ends else whole, len(prompt)


def taught(args: argparse.Namespace, tokenizer: Any) -> tuple[list[dict[str, Any]], int]:
    """The method's train rows as TRL takes them, and how many longer ones were left out."""
    if args.method == "sft":
        found = rows_of("chat/train.jsonl")
        asked = [(row["messages"], [row["messages"]]) for row in found]
        given = [{"prompt": m[:-1], "completion": m[-1:]} for m, _ in asked]
    else:
        given = rows_of("preferences/train.jsonl")
        asked = [(g["prompt"], [g["prompt"] + g[s] for s in ("chosen", "rejected")]) for g in given]
    longest = [max(len(encoded(tokenizer, one)[0]) for one in texts) for _, texts in asked]
    kept = [row for row, size in zip(given, longest, strict=True) if size <= args.max_length]
    if given and not kept:
        raise SystemExit(f"All {len(given)} rows are longer than {args.max_length} tokens.")
    if args.method == "kto":  # it learns from single answers, called good or bad
        kept = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in kept
            for side in ("chosen", "rejected")
        ]
        random.Random(args.seed).shuffle(kept)
    return kept, sum(size > args.max_length for size in longest)


def judged_rows(args: argparse.Namespace, tokenizer: Any) -> list[Encoded]:
    found = [encoded(tokenizer, row["messages"]) for row in rows_of("chat/val.jsonl")]
    kept = [row for row in found if len(row[0]) <= args.max_length]
    if found and not kept:
        raise SystemExit(f"All {len(found)} val rows are longer than {args.max_length} tokens.")
    return kept


# --- one training, gone on with -------------------------------------------------------------------


def identity(args: argparse.Namespace) -> dict[str, Any]:
    """What a training is made of: one that was begun goes on with the same alone."""
    names = ["chat/train.jsonl", "chat/val.jsonl"]
    names += ["preferences/train.jsonl"] if args.method != "sft" else []
    files = {name: (HANDOFF / name).read_bytes() for name in names}
    told = {n: getattr(args, n) for n in ("base", "method", "epochs", "max_steps", "batch", "seed")}
    told |= {"max_length": args.max_length, "learning_rate": args.learning_rate}
    told |= {"adapter": str(args.adapter) if args.adapter else None}
    return told | {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def same(out: Path, args: argparse.Namespace) -> bool:
    """Whether the training in that folder is this one. Ends the process where it is another."""
    if not (out / STARTED).is_file():
        return False
    begun, now = json.loads((out / STARTED).read_text(encoding="utf-8")), identity(args)
    changed = sorted(name for name in {*begun, *now} if begun.get(name) != now.get(name))
    if changed:
        raise SystemExit(
            f"{out} holds a training that differs in {', '.join(changed)}. Delete that folder, or "
            "name another by --out."
        )
    return True


def note_start(out: Path, args: argparse.Namespace) -> None:
    if not same(out, args) and main_process():
        out.mkdir(parents=True, exist_ok=True)
        part = out / f"{STARTED}.part"  # another process may read it meanwhile
        part.write_text(json.dumps(identity(args), indent=1) + "\n", encoding="utf-8")
        part.replace(out / STARTED)


def main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def checkpoint(out: Path) -> str | None:
    """The last whole one: its state is written last."""
    found = [path.parent for path in out.glob(f"checkpoint-*/{STATE}")]
    return str(max(found, key=lambda path: int(path.name.split("-")[1]))) if found else None


# --- how it is trained ----------------------------------------------------------------------------


def precision(args: argparse.Namespace) -> str:
    """What the base's weights are read in, where nobody says."""
    import torch

    if args.precision != "auto":
        return str(args.precision)
    if not torch.cuda.is_available():
        return "bf16" if fast_bf16() else "float32"
    return "4bit" if find_spec("bitsandbytes") and not Path(args.base).is_file() else "bf16"


def fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16; elsewhere it is slower than float32."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.is_file() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def options(args: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Of a trainer's configuration, whatever the method."""
    import torch

    gpus, processes = torch.cuda.is_available(), args.check or int(os.environ.get("WORLD_SIZE", 1))
    rows = args.batch // processes
    return {
        "output_dir": args.out,
        "num_train_epochs": args.epochs,
        "max_steps": args.max_steps,
        "learning_rate": rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        # kto compares a row with its neighbour
        "per_device_train_batch_size": max(1 + (args.method == "kto"), rows // args.pieces),
        "gradient_accumulation_steps": args.pieces,
        "max_length": None,  # longer rows were left out: none is cut
        "bf16": precision(args) != "float32",
        "use_cpu": not gpus,
        "gradient_checkpointing": gpus,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "metric_for_best_model": "kept",
        "greater_is_better": True,
        "eval_on_start": args.method != "sft",
        "logging_steps": 1,
        "logging_first_step": True,
        "disable_tqdm": True,
        "seed": args.seed,
        "report_to": "none",
    } | ({"train_sampling_strategy": "group_by_length"} if args.method == "sft" else {})


def rate_of(width: int, rows: int, epochs: int) -> float:
    """SFT's learning rate, to two digits: by the width of the base's hidden states and the steps
    that so many rows take (Schulman et al. 2025, LoRA Without Regret).
    """
    full = 5e-5 * (2000 / width) ** 0.78
    steps = epochs * -(-rows // BATCH)
    return float(f"{full * TIMES[steps >= SHORT]:.1e}")


def configured(args: argparse.Namespace, known: Any, rows: int) -> Any:
    """TRL's own configuration of the method. known: the base's."""
    import trl

    kinds = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "kto": trl.KTOConfig}
    width = known.get_text_config().hidden_size
    rate = rate_of(width, rows, args.epochs) * (1 if args.method == "sft" else DPO_RATE)
    return kinds[args.method](**options(args, args.learning_rate or rate))


def place(base: str) -> tuple[str, dict[str, Any]]:
    """How transformers is told where the base is."""
    file = Path(base)
    return (str(file.parent), {"gguf_file": file.name}) if file.is_file() else (base, {})


def tokenizer_of(base: str) -> Any:
    from transformers import AutoTokenizer

    where, more = place(base)
    found = AutoTokenizer.from_pretrained(where, **more)
    if not found.chat_template:
        raise SystemExit(f"{base} has no chat template: choose an instruction-tuned base.")
    found.pad_token = found.pad_token or found.eos_token
    return found


def model_of(args: argparse.Namespace) -> Any:
    """The base model; in 4 bits where its precision says so (QLoRA: Dettmers et al. 2023)."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    where, more = place(args.base)
    read = precision(args)
    half = torch.cuda.is_available() and read != "float32"
    if read == "4bit":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_quant_storage=torch.bfloat16,  # so that FSDP can shard it
        )
        if os.environ.get("ACCELERATE_USE_FSDP") != "true":
            more["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    kind = torch.bfloat16 if half else torch.float32
    model = AutoModelForCausalLM.from_pretrained(where, dtype=kind, **more)
    if "gguf_file" in more:  # its values are plain numbers by now, only the mark is left
        model.hf_quantizer = None
        model.config.__dict__.pop("quantization_config", None)
        model.is_quantized = False
    model.config.use_cache = False
    model.config._name_or_path = args.base
    return model


def train(args: argparse.Namespace, out: Path) -> None:
    import datasets
    import trl
    from peft import LoraConfig, PeftModel

    datasets.disable_progress_bars()
    tokenizer, model = tokenizer_of(args.base), model_of(args)
    rows, left = taught(args, tokenizer)
    val = judged_rows(args, tokenizer)
    if left:
        tell(out, note=f"{left} train rows are longer than {args.max_length} tokens: left out.")
    config = configured(args, model.config, len(rows) + left)
    data = datasets.Dataset.from_list(rows)
    given: dict[str, Any] = {"args": config, "train_dataset": data, "processing_class": tokenizer}
    # `evaluate` below asks the val rows; transformers wants some rows to be named all the same
    given["eval_dataset"] = data.select(range(1))
    if args.method == "sft":
        given |= {"model": model, "peft_config": LoraConfig(**LORA)}
    else:
        given["model"] = PeftModel.from_pretrained(model, str(args.adapter), is_trainable=True)
    kinds = {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer, "kto": trl.KTOTrainer}
    trainer = judging(kinds[args.method], val, out)(**given)
    trainer.train(resume_from_checkpoint=checkpoint(out))
    if trainer.is_world_process_zero():
        finish(args, out)


def finish(args: argparse.Namespace, out: Path) -> None:
    """The adapter of the epoch that is kept; where no epoch of preferences was better than what
    they began with, that.
    """
    found = epochs(out)
    best = found[kept(found)]
    begun = best["step"] == 0
    source = args.adapter if begun else out / f"checkpoint-{best['step']}"
    shutil.copyfile(source / CONFIG, out / CONFIG)
    shutil.copyfile(source / WEIGHTS, out / f"{WEIGHTS}.part")
    (out / f"{WEIGHTS}.part").replace(out / WEIGHTS)
    for old in out.glob("checkpoint-*"):
        shutil.rmtree(old)
    told = "what it began with" if begun else f"of step {best['step']}"
    print(f"{out}: kept {told}; val answers right {best['val_right']:.0%}")


# --- what is told on the way ----------------------------------------------------------------------


def tell(out: Path, **line: Any) -> None:
    if main_process():
        with (out / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def epochs(out: Path) -> list[dict[str, Any]]:
    """What was told of each epoch, in order; step 0: before the first."""
    path = out / PROGRESS
    # another process may be writing the last line
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    found = {one["step"]: one for line in lines if "val_loss" in (one := json.loads(line))}
    return [found[step] for step in sorted(found)]


def kept(found: Sequence[dict[str, Any]]) -> int:
    """The number of the epoch with most val answers right, of equals the lowest loss, the first."""
    order = [(one["val_right"], -one["val_loss"]) for one in found]
    return order.index(max(order))


def memory() -> int:
    """Bytes held at most so far, by this process or on its GPU."""
    import resource

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def judging(kind: Any, val: list[Encoded], out: Path) -> Any:
    """A TRL trainer that asks the val rows after each epoch, whatever its own evaluation is."""

    known = epochs(out)  # of a training that is gone on with

    class Judging(kind):
        control: Any
        judged = known
        began = time.perf_counter()
        seen = tokens = 0

        def log(self, logs: dict[str, float], *more: Any) -> None:
            super().log(logs, *more)
            if "loss" in logs and self.state.global_step > self.seen:
                now, total = time.perf_counter(), int(logs.get("num_tokens", 0))
                told = {"step": self.state.global_step, "of": self.state.max_steps}
                told |= {"loss": logs["loss"], "tokens": total - self.tokens, "memory": memory()}
                tell(out, **told, seconds=now - self.began)
                self.began, self.tokens, self.seen = now, total, self.state.global_step

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            start = time.perf_counter()
            before = [one for one in self.judged if one["step"] < self.state.global_step]
            last = before[-1]["step"] if before else 0
            losses = [e for e in self.state.log_history if "loss" in e and e["step"] > last]
            right, loss, said = answered(self, val)
            found = {"step": self.state.global_step, "val_right": right, "val_loss": loss}
            if main_process():
                found |= {"train_loss": sum(e["loss"] for e in losses) / max(1, len(losses))}
                found |= {"epoch": round(self.state.epoch or 0)}
                found |= {"samples": samples(self.processing_class, val, said)}
                tell(out, **found, seconds=time.perf_counter() - start)
            self.began = time.perf_counter()
            self.judged = [*before, found]
            if len(before) - kept(self.judged) >= PATIENCE:
                self.control.should_training_stop = True
            # as `kept` orders them, in one number
            metrics = {"eval_kept": round(right * len(val)) * 1000.0 - loss}
            handler = self.callback_handler
            self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    return Judging


def answered(trainer: Any, val: list[Encoded]) -> tuple[float, float, list[list[int]]]:
    """(share of answers given word for word, mean loss of their tokens, the likeliest token at each
    place of the first answers).

    Every process asks all rows, as a sharded model must be run by all at once.
    """
    import torch

    model, right, losses = trainer.model_wrapped, 0, []
    said: list[list[int]] = []
    model.eval()
    for start in range(0, len(val), BATCH):
        batch = val[start : start + BATCH]
        with torch.no_grad(), trainer.compute_loss_context_manager():
            for logits, gold in logits_of(model, batch, trainer):
                losses.append((float(torch.nn.functional.cross_entropy(logits, gold)), len(gold)))
                likeliest = logits.argmax(-1)
                right += bool((likeliest == gold).all())
                said += [likeliest.tolist()] if len(said) < SHOWN else []
    model.train()
    return right / len(val), sum(n * x for x, n in losses) / sum(n for _, n in losses), said


def logits_of(model: Any, batch: Sequence[Encoded], trainer: Any) -> Iterator[tuple[Any, Any]]:
    """Each row's logits of its answer, and the answer. Padded on the left, so that only the last
    places are spread out over the vocabulary.
    """
    import torch

    longest = max(len(ids) for ids, _ in batch)
    last = 1 + max(len(ids) - prompt for ids, prompt in batch)
    pad = trainer.processing_class.pad_token_id
    device = trainer.accelerator.device
    ids = torch.tensor([[pad] * (longest - len(i)) + i for i, _ in batch], device=device)
    mask = torch.tensor([[0] * (longest - len(i)) + [1] * len(i) for i, _ in batch], device=device)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    asked = {"attention_mask": mask, "position_ids": places, "logits_to_keep": last}
    logits = model(input_ids=ids, use_cache=False, **asked).logits
    for row, (tokens, prompt) in zip(logits, batch, strict=True):
        answer = len(tokens) - prompt
        yield row[-answer - 1 : -1].float(), torch.tensor(tokens[prompt:], device=device)


def samples(tokenizer: Any, val: list[Encoded], said: list[list[int]]) -> list[dict[str, str]]:
    def text(ids: Sequence[int]) -> str:
        end = tokenizer.eos_token_id
        return str(tokenizer.decode(ids[: ids.index(end)] if end in ids else ids))

    return [
        {"asked": str(tokenizer.decode(ids[:prompt]))[-TOLD:], "gold": text(ids[prompt:])}
        | {"said": text(one)}
        for (ids, prompt), one in zip(val, said, strict=False)
    ]


def checked(args: argparse.Namespace) -> dict[str, Any]:
    """All but the training: rows read by the base's tokenizer, TRL's and PEFT's configurations
    constructed.
    """
    import torch
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM

    where, more = place(args.base)
    known = AutoConfig.from_pretrained(where, **more)
    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(known).parameters())
    LoraConfig(**LORA)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        from accelerate import FullyShardedDataParallelPlugin

        FullyShardedDataParallelPlugin()  # as it is in the environment
    tokenizer = tokenizer_of(args.base)
    there = args.method == "sft" or (HANDOFF / "preferences" / "train.jsonl").is_file()
    rows, left = taught(args, tokenizer) if there else ([], 0)
    config = configured(args, known, len(rows) + left)
    told = {"config": type(config).__name__, "precision": precision(args), "weights": weights}
    told |= {"rows": len(rows), "left_out": left, "val": len(judged_rows(args, tokenizer))}
    return told | {
        "learning_rate": config.learning_rate,
        "batch": config.per_device_train_batch_size,
    }


if __name__ == "__main__":
    main()
