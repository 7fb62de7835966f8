"""Climbs of a team at once into one MLflow server on PostgreSQL: is everything there afterwards?

    python -m bench.team_server [--climbs 16] [--workers 2]

Each climb is `optimize run review` in a project folder of its own, of one task, on an LM that is
right for a share of the rows; one is right for all, and must be the champion whoever ends first.
Needs PostgreSQL and '.[postgres]'. Prints what was found, and exits with 1 where anything is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from optimize.commands.new import write_task
from optimize.store.champion import changes, present
from optimize.store.open import QUIET
from tests import team
from tests.test_lm import completion, served

BEST = 100  # percent of the rows that the best LM is right for
CALLS = 60
LATENCY = 0.05


@dataclass(frozen=True)
class Done:
    """A climb: its LM's share in percent, its exit code, what it printed, and why it failed."""

    share: int
    code: int
    report: dict[str, Any]
    said: str


def lm_app(rows: list[dict[str, str]]) -> FastAPI:
    """Model `right-P` gives the row's own label for P percent of the rows, else another."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        body = await request.json()
        await asyncio.sleep(LATENCY)
        said, share = body["messages"][-1]["content"], int(body["model"].rpartition("-")[2])
        # the row that is asked comes last
        row = max(rows, key=lambda one: said.rfind(one["text"]))
        right = zlib.crc32(row["text"].encode()) % 100 < share
        others = sorted({one["verdict"] for one in rows} - {row["verdict"]})
        verdict = row["verdict"] if right else others[0]
        if "[[ ##" in said or "[[ ##" in body["messages"][0]["content"]:
            return completion(
                body["model"], f"[[ ## verdict ## ]]\n{verdict}\n\n[[ ## completed ## ]]"
            )
        return completion(body["model"], json.dumps(verdict))

    return app


def project(folder: Path) -> list[dict[str, str]]:
    """A project with the task `review`; its rows."""
    (folder / "programs").mkdir(parents=True)
    write_task(folder, "review")
    lines = (folder / "devsets" / "review" / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def climbs(folder: Path, store: str, count: int) -> list[Done]:
    """All at once. They begin together, so that they also end together."""
    roots = [folder / f"member {n}" for n in range(count)]
    rows = [project(root) for root in roots].pop()
    shares = [BEST if n == count // 2 else 40 + 20 * n // count for n in range(count)]
    with served(lm_app(rows)) as url:
        running = []
        there = os.environ | {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": os.getcwd()}
        for share, root in zip(shares, roots, strict=True):
            flags = ["--lm", f"openai/right-{share}", "--api-base", f"{url}/v1", "--json"]
            flags += ["--finetune", "never", "--max-calls", str(CALLS)]
            words = [sys.executable, "-m", "optimize", "run", "review", *flags]
            pipe = subprocess.PIPE
            running.append(
                subprocess.Popen(words, cwd=root, env=there, stdout=pipe, stderr=pipe, text=True)
            )
        ended = [one.communicate() for one in running]
    return [
        Done(share, one.returncode, report_of(out), err)
        for share, one, (out, err) in zip(shares, running, ended, strict=True)
    ]


def report_of(out: str) -> dict[str, Any]:
    """Empty where what was printed is no report."""
    try:
        found = json.loads(out)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def lost(store: str, done: list[Done]) -> tuple[list[str], dict[str, int]]:
    """What is not there of what the climbs printed, and how much was looked at."""
    from mlflow import MlflowClient

    os.environ.update(QUIET)
    client = MlflowClient(store)
    problems = [
        f"exit {d.code}: {(re.findall('Error: .*', d.said) or [''])[-1][:400]}"
        for d in done
        if d.code not in (0, 1)
    ]
    experiment = client.get_experiment_by_name("review").experiment_id
    found = client.search_runs([experiment], max_results=5000)
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    counted = {"runs": len(parents), "nested": len(found) - len(parents), "metrics": 0, "files": 0}
    if len(parents) != len(done):
        problems.append(f"{len(parents)} runs of {len(done)} climbs")
    by_lm = {run.data.params["lm"]: run for run in parents}
    for one in done:
        run = by_lm.get(f"openai/right-{one.share}")
        if run is None or not one.report:
            problems.append(f"no run or report of right-{one.share}")
            continue
        if run.info.status != "FINISHED":
            problems.append(f"right-{one.share} is {run.info.status}")
        inner = [r for r in found if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        if len(inner) != len(one.report["attempts"]) or {r.info.status for r in inner} - {
            "FINISHED", "FAILED"
        }:  # fmt: skip
            problems.append(
                f"right-{one.share}: {len(inner)} nested runs of {len(one.report['attempts'])}"
            )
        for name in ("report.json", "history.json", "test_scores.json", "report.html"):
            try:
                path = client.download_artifacts(run.info.run_id, name)
                counted["files"] += 1
            except Exception as error:
                problems.append(f"right-{one.share}: {name}: {error}")
                continue
            if name == "report.json" and json.loads(Path(path).read_text()) != one.report:
                problems.append(f"right-{one.share}: another report is stored")
        if run.data.metrics.get("used_calls") != one.report["lm_calls"]:
            problems.append(f"right-{one.share}: used_calls {run.data.metrics.get('used_calls')}")
        counted["metrics"] += sum(len(r.data.metrics) for r in [run, *inner])
    versions = client.search_model_versions("name = 'review'")
    counted["versions"], counted["champions"] = len(versions), len(changes(client, "review"))
    if len(versions) != len(done):
        problems.append(f"{len(versions)} versions")
    best, champion = by_lm.get(f"openai/right-{BEST}"), present(client, "review")
    if not best or not champion or champion.run_id != best.info.run_id:
        problems.append(f"the champion is {champion and champion.run_id}")
    elif changes(client, "review")[-1].run != best.info.run_id:
        problems.append("the record of champions ends with another one")
    return problems, counted


def database_size(place: str) -> int:
    import psycopg2

    with psycopg2.connect(place.replace("+psycopg2", "")) as made, made.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def measured(count: int, workers: int) -> tuple[list[str], str]:
    """What is lost, and a line of figures."""
    with tempfile.TemporaryDirectory() as name, team.postgres() as database:
        folder = Path(name)
        with team.mlflow_server(database, folder / "artifacts", workers) as store:
            began = time.monotonic()
            done = climbs(folder, store, count)
            seconds = time.monotonic() - began
            problems, counted = lost(store, done)
            counted["MB of database"] = database_size(database) // 1_000_000
            files = [path for path in (folder / "artifacts").rglob("*") if path.is_file()]
            counted["artifacts"] = len(files)
            counted["KB of them"] = sum(path.stat().st_size for path in files) // 1000
        calls = sum(one.report.get("lm_calls", 0) for one in done)
        told = ", ".join(f"{n} {what}" for what, n in counted.items())
        return problems, f"{count} climbs, {calls} calls, {seconds:.0f} s: {told}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--climbs", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if problem := team.missing():
        raise SystemExit(problem)
    problems, line = measured(given.climbs, given.workers)
    print(line)
    print("\n".join(problems) or "Nothing is lost, and the champion is the right one.")
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
