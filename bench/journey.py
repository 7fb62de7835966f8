"""A newcomer's way with a public set, from the installed wheel to a drifted sample, in one go.

    python -m bench.journey [--max-calls 600] [--rows 10000] [--distinct 1000]
    python -m bench.journey --folder DIR [--only monitor promote]

Each step is a command of the documentation, run in a project of its own against two local LMs that
are served over HTTP. It says what was seen, and ends with 1 where something was not as it must be.
Most of its time an LM answers: some forty minutes on two quiet cores. With --scripted the LMs are
served as well, and say the label of the most similar train row they know: what hangs on the
commands alone is seen in minutes. A folder that is kept can be gone on with, by names of steps.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.printed import printed
from bench.public_sets import read_set

HERE = Path(__file__).resolve().parents[1]
STEPS = ("project", "run", "export", "apply", "serve", "recheck", "monitor", "promote")
SIDES = ("train", "dev", "test")
FIRST, OTHER = "smollm2-135m", "qwen2.5-coder-0.5b"
SERVED = """
import sys, time
from optimize.lm import gguf_path
from optimize.lm.embedded import serve
found = serve(gguf_path(sys.argv[1]))
print(found.url, found.key, flush=True)
time.sleep(1e6)
"""
SCRIPTED = """
import sys, time
from bench.journey import nearest
from tests.faulty_server import faulty_app
from tests.test_lm import served
with served(faulty_app(nearest(int(sys.argv[1])), lambda asked: "")) as url:
    print(f"{url}/v1", "none", flush=True)
    time.sleep(1e6)
"""
ROWS_KNOWN = {FIRST: 200, OTHER: 60}  # of the scripted LMs that stand in for these
PROGRAM = '''from typing import Literal

import dspy

from optimize import Score, Task


class Domain(dspy.Signature):
    """Name the domain of the request."""

    text: str = dspy.InputField()
    label: Literal[{labels}] = dspy.OutputField()


def metric(example, prediction) -> Score:
    right = prediction.label == example.label
    return Score(float(right), "" if right else f"The right domain is {{example.label}}.")


task = Task(signature=Domain, metric=metric, target=0.6, max_tokens=24)
'''


class Journey:
    """A project, the installed `optimize`, and what was seen so far."""

    def __init__(self, root: Path) -> None:
        self.root, self.seen, self.wrong = root, list[dict[str, str]](), 0
        self.env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.there: tuple[str, ...] = ()  # flags: where the LM of the runs is served now

    def step(self, name: str, *command: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        """Its standard output; noted as wrong where it ends with another code."""
        start = time.monotonic()
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
        )
        right = done.returncode in codes
        told = f"exit code {done.returncode}"
        self.note(name, right, told, time.monotonic() - start)
        if not right:
            print(done.stderr[-2000:], file=sys.stderr)
        return done.stdout

    def note(self, name: str, right: bool, told: str, seconds: float = 0.0) -> None:
        self.wrong += not right
        took = f"{seconds:.0f}" if seconds else ""
        self.seen.append({"step": name, "right": "yes" if right else "NO", "seen": told, "s": took})
        print(f"{name}: {told} {took}", file=sys.stderr, flush=True)


def nearest(rows: int) -> Callable[[str], str]:
    """What a scripted LM says: the label of the most similar of so many train rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = read_set("clinc_domain10", "train")[:rows]
    words = TfidfVectorizer(stop_words="english").fit([row["text"] for row in known])
    table = words.transform([row["text"] for row in known])

    def answer(text: str) -> str:
        found = (table @ words.transform([text]).T).toarray().argmax()
        label = str(known[found]["label"])
        chat = "[[ ##" in text
        return f"[[ ## label ## ]]\n{label}\n\n[[ ## completed ## ]]" if chat else label

    return answer


@contextmanager
def endpoint(name: str, scripted: bool) -> Iterator[tuple[str, str]]:
    """Address and key of an LM behind HTTP, in a process of its own."""
    code = [SCRIPTED, str(ROWS_KNOWN[name])] if scripted else [SERVED, name]
    running = subprocess.Popen([sys.executable, "-c", *code], stdout=subprocess.PIPE)
    try:
        assert running.stdout
        url, key = running.stdout.readline().decode().split()
        yield url, key
    finally:
        running.kill()
        running.wait()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def installed(way: Journey) -> Path:
    """The command of a fresh environment that holds the wheel and what it depends on."""
    folder = way.root / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    quiet = ("install", "--quiet", "--disable-pip-version-check")
    way.step("build the wheel", python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", HERE)
    (wheel,) = way.root.glob("*.whl")
    way.step("pip install", python, "-m", "pip", *quiet, wheel)
    return folder / "bin" / "optimize"


def project(way: Journey, optimize: Path) -> None:
    """A task on the public set, in the folder of the journey."""
    way.step("init", optimize, "init")
    rows = {side: read_set("clinc_domain10", side) for side in SIDES}
    labels = ", ".join(repr(name) for name in sorted({row["label"] for row in rows["train"]}))
    (way.root / "programs" / "domain.py").write_text(PROGRAM.format(labels=labels))
    folder = way.root / "devsets" / "domain"
    folder.mkdir(parents=True)
    for side, some in (("train", 200), ("dev", 60), ("test", 100)):
        write_rows(folder / f"{side}.jsonl", rows[side][:some])
    way.step("check", optimize, "check", "domain", codes=(0, 1))


def exported(way: Journey, optimize: Path) -> None:
    """The champion in an environment that holds what its own requirements name."""
    way.step("export", optimize, "export", "domain", "exported")
    venv.create(way.root / "alone", with_pip=True)
    python = way.root / "alone" / "bin" / "python"
    needs = way.root / "exported" / "requirements.txt"
    quiet = ("install", "--quiet", "--disable-pip-version-check")
    way.step("its requirements", python, "-m", "pip", *quiet, "-r", needs)
    has = subprocess.run([python, "-c", "import mlflow"], capture_output=True).returncode == 0
    way.note("the workbench is not there", not has, "no mlflow" if not has else "mlflow found")
    way.step("its three golden rows", python, "exported/test_predict.py")
    asked = json.dumps({"text": "how much is my electricity bill"})
    print(way.step("predict.py", python, "exported/predict.py", asked), file=sys.stderr)


def applied(way: Journey, optimize: Path, rows: int, distinct: int) -> None:
    """All rows with a kill -9 in between, and once more without, from the same answers: an LM that
    answers several calls side by side is not the same to the word each time.
    """
    texts = [r["text"] for r in read_set("banking77", "train_pool")][:distinct]
    many = [{"id": str(n), "text": texts[n % len(texts)]} for n in range(rows)]
    write_rows(way.root / "many.jsonl", many)
    out, whole = way.root / "answered.jsonl", way.root / "whole.jsonl"
    command = (str(optimize), "apply", "domain", "many.jsonl", *way.there, "--out")
    quiet = {"cwd": way.root, "env": way.env, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen((*command, out.name), **quiet)
    while running.poll() is None and not (out.exists() and out.stat().st_size > 100 * distinct):
        time.sleep(0.05)
    running.kill()
    running.wait()
    before = len(out.read_bytes().splitlines()) if out.exists() else 0
    way.note("apply, kill -9", 0 < before < rows, f"{before} rows were written")
    way.step("the same command goes on", *command, out.name)
    way.step("undisturbed", *command, whole.name)
    same, lines = filecmp.cmp(out, whole, shallow=False), len(whole.read_bytes().splitlines())
    told = f"{lines} rows, {'equal' if same else 'NOT equal'} to those of an undisturbed run"
    way.note("its output", same and lines == rows, told)


def loaded(way: Journey, optimize: Path, texts: list[str]) -> None:
    """The service under eight clients, stopped while they ask."""
    port = "5761"
    command = [str(optimize), "serve", "domain", "--port", port, *way.there]
    running = subprocess.Popen(command, cwd=way.root, env=way.env, stderr=subprocess.DEVNULL)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        for _ in range(600):
            try:
                client.get("/health").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)

        def ask(text: str) -> tuple[int, float]:
            start = time.monotonic()
            try:
                code = client.post("/predict", json={"text": text}).status_code
            except httpx.ConnectError:
                code = 0  # the door is closed
            return code, time.monotonic() - start

        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(ask, texts))
            late = [pool.submit(ask, text) for text in texts[:16]]
            time.sleep(0.5)
            running.send_signal(signal.SIGTERM)
            end = [job.result()[0] for job in late]
    code = running.wait(timeout=120)
    times = sorted(seconds for _, seconds in first)
    answered = sum(status == 200 for status, _ in first)
    told = f"{answered} of {len(texts)} answered, p50 {times[len(times) // 2]:.2f} s, "
    told += f"p95 {times[int(len(times) * 0.95)]:.2f} s"
    way.note("serve, 8 clients", answered == len(texts), told)
    told = f"{end.count(200)} answered, {end.count(0) + end.count(503)} told that it closes"
    fine = set(end) <= {200, 0, 503} and end.count(200) > 0 and code == 0
    way.note("SIGTERM while 16 are asked", fine, f"{told}; exit code {code}")


def watched(way: Journey, optimize: Path, fresh: list[dict[str, Any]], most: str) -> None:
    """Fresh rows, rows about other things, and rows by a new convention of labels."""
    command = (optimize, "monitor", "domain", "sample.jsonl", "--ask", most, "--json", *way.there)
    names = sorted({row["label"] for row in fresh})
    turned = dict(zip(names[:5], [*names[1:5], names[0]], strict=True))
    other = [{"text": r["text"]} for r in read_set("banking77", "test")[:150]]
    samples = {
        "fresh rows": (fresh[:150], {"ok"}),
        "rows of a bank, unlabelled": (other, {"relabel"}),
        "half of the labels by a new convention": (
            [{**row, "label": turned.get(row["label"], row["label"])} for row in fresh[150:]],
            {"re-optimize"},
        ),
    }
    for name, (rows, expected) in samples.items():
        write_rows(way.root / "sample.jsonl", rows)
        out = way.step(f"monitor: {name}", *command, codes=(0, 1))
        found = json.loads(out or "{}").get("verdict")
        way.note(f"its verdict: {name}", found in expected, str(found))


def climbed(way: Journey, optimize: Path, given: argparse.Namespace) -> None:
    """Two runs: the second one has rivals, and the first can be gone back to."""
    rows = ("--val-rows", given.val_rows, "--test-rows", given.test_rows)
    calls = ("--finetune", "never", "--max-calls", given.max_calls, *rows)
    for seed in ("0", "1"):
        command = (optimize, "run", "domain", "--seed", seed, *calls)
        way.step(f"run, seed {seed}", *command, codes=(0, 1))


def rechecked(way: Journey, optimize: Path, scripted: bool) -> None:
    """The frozen test rows, today and on another LM."""
    few, codes = (optimize, "recheck", "domain", "--test-rows", "60"), (0, 1)
    way.step("recheck, today", *few, *way.there, codes=codes)
    first = dict(way.env)
    with endpoint(OTHER, scripted) as (other, secret):
        way.env["OPTIMIZE_API_KEY"] = secret
        named = ("--lm", "openai/larger", "--api-base", other)
        way.step(f"recheck on {OTHER}", *few, *named, codes=codes)
    way.env = first


def moved(way: Journey, optimize: Path) -> None:
    """Which run's program is the champion: the other one's, and back again."""

    def champion() -> str:
        text = subprocess.run(
            [optimize, "tasks", "--json"], cwd=way.root, env=way.env, capture_output=True, text=True
        ).stdout
        found = next(t for t in json.loads(text)["tasks"] if t["task"] == "domain")
        return str(found["champion"]["run"])

    before, why = champion(), ("--reason", "to see it go back")
    found = json.loads(way.step("runs", optimize, "runs", "domain", "--json"))["runs"]
    runs = [run["id"] for run in found if run["command"] == "run"]
    other = next(run for run in runs if run != before)
    way.step("promote the other run", optimize, "promote", other, *why)
    between = champion()
    way.step("rollback", optimize, "rollback", "domain")
    told = f"champion {before[:6]}, {between[:6]}, {champion()[:6]}"
    way.note("the champion", [between, champion()] == [other, before], told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-calls", default="600")
    parser.add_argument("--val-rows", default="60")
    parser.add_argument("--test-rows", default="100")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--distinct", type=int, default=1_000, help="of these, with other texts")
    parser.add_argument("--asked", type=int, default=200, help="requests to the service")
    parser.add_argument(
        "--ask", default="400", help="rows of a drifted sample that the LM is asked"
    )
    parser.add_argument("--scripted", action="store_true", help="LMs that answer at once")
    parser.add_argument("--installed", type=Path, help="an `optimize`; default: a fresh one")
    parser.add_argument("--folder", type=Path, help="kept, to look at; default: none")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, endpoint(FIRST, given.scripted) as (url, key):
        way = Journey((given.folder or Path(folder)).resolve())
        way.env |= {
            "OPTIMIZE_API_KEY": key,
            "OPTIMIZE_API_BASE": url,
            "OPTIMIZE_LM": "openai/small",
        }
        way.there = ("--api-base", url)
        there = way.root / "venv" / "bin" / "optimize"
        optimize = given.installed or (there if there.exists() else installed(way))
        fresh = list(read_set("clinc_domain10", "test")[100:])
        steps: dict[str, Callable[[], None]] = {
            "project": lambda: project(way, optimize),
            "run": lambda: climbed(way, optimize, given),
            "export": lambda: exported(way, optimize),
            "apply": lambda: applied(way, optimize, given.rows, given.distinct),
            "serve": lambda: loaded(way, optimize, [row["text"] for row in fresh[: given.asked]]),
            "recheck": lambda: rechecked(way, optimize, given.scripted),
            "monitor": lambda: watched(way, optimize, fresh, given.ask),
            "promote": lambda: moved(way, optimize),
        }
        for name in given.only:
            steps[name]()
    lm = "scripted" if given.scripted else FIRST
    printed(way.seen, f"{lm}, clinc_domain10", given.json)
    sys.exit(bool(way.wrong))


if __name__ == "__main__":
    main()
