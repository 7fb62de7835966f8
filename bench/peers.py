"""`optimize run` against its peers: same LM, rows, call budget and seeds; held-out score, calls,
tokens and time.

    python -m bench.peers [--lm NAME] [--budget 500] [--seeds 3] [--methods NAME …] [--sets NAME …]

Every method runs in a process of its own and talks to one address on loopback, which counts calls
and tokens, retries included, and refuses calls beyond 1.5 times the budget. Goes on where it was
stopped (peers.jsonl). docs/compared.md says what each is given.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import signal
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import peers_dspy, peers_others
from bench.peers_cell import OURS, QUIET, Asked, TaskRows, measured, python_of
from bench.peers_server import Counted, served
from bench.printed import printed
from bench.public_sets import NAMES, apart, plain_rows, public_set
from optimize import lm as lms
from optimize.catalogue import EMBEDDED
from optimize.errors import WorkbenchError
from optimize.files import read_jsonl
from optimize.lm import embedded
from optimize.lm.embedded import Endpoint
from optimize.stats.intervals import known, mean_interval, paired_gain
from optimize.task import choices

FILE = Path(__file__).parent / "peers.jsonl"
METHODS = (OURS, *peers_dspy.METHODS, *peers_others.METHODS)
OPENAI = "https://api.openai.com/v1"
# tokens of an answer that a method asks for in order to write prompts
ROOM_LOCAL, ROOM_HOSTED = 512, 8192
CONTEXT = 8192  # tokens a local LM reads and writes, so that a reflection's prompt fits
ALIKE = ("budget", "tokens", "threads", "minutes", "dspy_cache")
Done = list[dict[str, Any]]


def main() -> None:
    given = arguments()
    os.environ.update(QUIET)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no worker is left behind
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)  # of a truncated answer
    kept: Path = given.file
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    sets = [drawn(given, name) for name in given.sets]
    methods = [method for method in given.methods if there(method, given.peers_python)]
    counted = opened(given)
    with served(counted) as url:
        same = {knob: getattr(given, knob) for knob in ALIKE}
        python, form = given.peers_python, given.format
        asked = Asked(counted=counted, url=url, python=python, form=form, **same)
        for seed in range(given.seeds):
            for learn in sets:
                for method in methods:
                    which = key(given, learn.name, method, seed)
                    if any(which.items() <= line.items() for line in done):
                        continue
                    rows = split(given, learn, seed)
                    with folder(given, f"{learn.name}-{seed}-{method}") as name:
                        done.append(which | measured(asked, rows, method, seed, Path(name)))
                    with kept.open("a") as file:
                        file.write(json.dumps(done[-1]) + "\n")
                    print(progress(done[-1]), file=sys.stderr, flush=True)
    table = [row(given, done, learn.name, method) for learn in sets for method in methods]
    title = f"{given.lm}, {given.budget} calls, {given.seeds} seeds, {given.test} held-out rows"
    if any(table):
        printed([r for r in table if r], title, given.json)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--lm", default=EMBEDDED, help="a local LM by name, gguf:PATH, or openai/MODEL")
    add("--api-base", help="address of the LM's endpoint; its key is OPTIMIZE_API_KEY")
    add("--budget", type=int, default=500, help="LM calls of a method")
    add("--seeds", type=int, default=3)
    add("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    add("--sets", nargs="+", choices=NAMES, default=["clinc_domain10"])
    add("--format", choices=("chat", "compact"), default="chat", help="of DSPy's programs")
    add("--rows", type=Path, help="own rows instead of --sets: JSONL of text and label")
    add("--test-rows", type=Path, help="the same, held out; default: drawn from --rows")
    add("--question", default="Classify the text.", help="what is asked of own rows")
    add("--train", type=int, default=60)
    add("--val", type=int, default=40)
    add("--test", type=int, default=100)
    add("--tokens", type=int, default=64, help="of a task's answer")
    add("--room", type=int, help="of any answer; default: 512 of a local LM, 8192 of a hosted one")
    add("--threads", type=int, default=4)
    add("--minutes", type=float, default=240, help="after which a method is stopped")
    add("--peers-python", help="Python of an environment with the peers that are not in this one")
    add("--dspy-cache", action="store_true", help="let DSPy keep answers within a method's run")
    add("--keep", type=Path, help="keep each method's folder here: log, program or prompt")
    add("--file", type=Path, default=FILE, help="what is kept; default: bench/peers.jsonl")
    add("--json", action="store_true")
    given = parser.parse_args()
    if given.rows:
        given.sets = [re.sub(r"\W|^(?=\d)", "_", given.rows.stem)]  # a module's name
    if given.peers_python and not Path(given.peers_python).is_file():
        parser.error(f"--peers-python {given.peers_python} is not there")
    if given.train < 16 or given.val < 8:
        parser.error("--train of 16 and --val of 8 rows are the least that `optimize run` takes")
    return given


def key(given: argparse.Namespace, name: str, method: str, seed: int) -> dict[str, Any]:
    """What tells a measurement from others."""
    dspys = method in peers_dspy.METHODS
    return {
        "lm": given.lm,
        "set": name,
        "method": method,
        "seed": seed,
        "format": given.format if dspys else "own",
        "dspy_cache": given.dspy_cache and dspys,
        "budget": given.budget,
        "rows": [given.train, given.val, given.test],
        "tokens": given.tokens,
    }


def there(method: str, peers: str | None) -> bool:
    try:
        python_of(method, peers)
    except LookupError as error:
        print(f"{method} is left out: {error}.", file=sys.stderr)
        return False
    return True


def opened(given: argparse.Namespace) -> Counted:
    """The LM behind the counter."""
    if path := lms.gguf_path(given.lm):
        lm = embedded.serve(path, context=CONTEXT)
        return Counted(lm, path.stem, given.room or ROOM_LOCAL, local=True)
    provider, _, model = given.lm.partition("/")
    if not model or (provider != "openai" and not given.api_base):
        sys.exit(f"{given.lm!r}: give openai/MODEL, or PROVIDER/MODEL with --api-base.")
    # another address never gets OpenAI's key
    variable = "OPTIMIZE_API_KEY" if given.api_base else "OPENAI_API_KEY"
    lm = Endpoint((given.api_base or OPENAI).rstrip("/"), os.environ.get(variable, "none"))
    return Counted(lm, model, given.room or ROOM_HOSTED, local=False)


def drawn(given: argparse.Namespace, name: str) -> TaskRows:
    """The rows to learn from, all in `train`, and the held-out ones; none of the former is one of
    the latter.
    """
    if given.rows:
        learn, test, question = *own_rows(given), given.question
        labels = tuple(sorted({row["label"] for row in learn + test}))
    else:
        data = public_set(name)
        learn, test = plain_rows(data)
        question = data.task.signature.instructions
        labels = choices(data.task.signature.output_fields["label"].annotation)
    test = test[: given.test]
    learn = apart(learn, test)
    if len(learn) < given.train + given.val or len(test) < given.test:
        sys.exit(f"{name}: {len(learn)} rows to learn from and {len(test)} held-out ones: too few.")
    return TaskRows(name, question, labels, train=learn, val=[], test=test)


def own_rows(given: argparse.Namespace) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    def read(path: Path) -> list[dict[str, str]]:
        rows = []
        for number, row in read_jsonl(path):
            if not {"text", "label"} <= row.keys():
                sys.exit(f"{path}:{number}: a row needs `text` and `label`; it has {list(row)}.")
            rows.append({"text": str(row["text"]), "label": str(row["label"])})
        return random.Random(7).sample(rows, len(rows))

    rows = read(given.rows)
    if given.test_rows:
        return rows, read(given.test_rows)
    return rows[given.test :], rows[: given.test]


def split(given: argparse.Namespace, rows: TaskRows, seed: int) -> TaskRows:
    """A seed's train and val rows."""
    some = random.Random(seed).sample(rows.train, given.train + given.val)
    return replace(rows, train=some[: given.train], val=some[given.train :])


def folder(given: argparse.Namespace, name: str) -> Any:
    """Where a method runs."""
    if not given.keep:
        return tempfile.TemporaryDirectory()
    given.keep.mkdir(parents=True, exist_ok=True)
    safe = "".join(c if c.isalnum() or c == "-" else "_" for c in name)
    return nullcontext(tempfile.mkdtemp(prefix=f"{safe}-", dir=given.keep.resolve()))


def progress(line: dict[str, Any]) -> str:
    found = line["error"] or told(mean_interval(known(line["scores"] or [])))
    took = f"{line['calls']} calls, {line['seconds'] / 60:.1f} minutes"
    return f"{line['set']}, seed {line['seed']}, {line['method']}: {found}; {took}"


def row(given: argparse.Namespace, done: Done, name: str, method: str) -> dict[str, Any]:
    """Means over seeds, of those that ended with a program; the interval is over rows."""

    def lines(of: str) -> Done:
        keys = [key(given, name, of, seed) for seed in range(given.seeds)]
        return [line for line in done if any(k.items() <= line.items() for k in keys)]

    def by_row(of: str) -> list[float | None]:
        runs = [line["scores"] for line in lines(of) if line["scores"]]
        each = [known(scores) for scores in zip(*runs, strict=True)]
        return [fmean(scores) if scores else None for scores in each]

    runs, scores, ours = lines(method), by_row(method), by_row(OURS)
    if not runs:
        return {}
    gain = paired_gain(scores, ours) if known(scores) and known(ours) and method != OURS else None
    interval = mean_interval(known(scores)) if known(scores) else None
    over, none = (sum(bool(line[what]) for line in runs) for what in ("refused", "error"))
    notes = [f"over budget: {over} of {len(runs)}"] * bool(over)
    notes += [f"no program: {none} of {len(runs)}"] * bool(none)
    compact = given.format == "compact" and method in peers_dspy.METHODS
    answers = max(1, sum(line["scoring"]["calls"] for line in runs))
    used = sum(line["scoring"]["tokens_in"] + line["scoring"]["tokens_out"] for line in runs)
    return {
        "set": name,
        "method": f"{method}, compact" if compact else method,
        "test score": told(interval),
        f"{OURS} minus this": told(gain, "+"),
        "calls": round(fmean(line["calls"] for line in runs)),
        "k tokens in, out": ", ".join(
            f"{fmean(line[side] for line in runs) / 1000:.0f}"
            for side in ("tokens_in", "tokens_out")
        ),
        "minutes": f"{fmean(line['seconds'] for line in runs) / 60:.1f}",
        "tokens a call in use": round(used / answers),
        "": "; ".join(notes),
    }


def told(found: Any, sign: str = "") -> str:
    if not found:
        return ""
    return f"{found.mean:{sign}.2f} [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


if __name__ == "__main__":
    try:
        main()
    except WorkbenchError as error:
        sys.exit(str(error))
