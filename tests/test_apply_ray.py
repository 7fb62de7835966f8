"""`optimize apply --ray`: what comes out is what comes out without Ray, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import dspy
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import Result
from typer.testing import CliRunner

from optimize.cli import app as command
from optimize.commands.apply import PILOT
from optimize.commands.applying.pieces import LEAST, MOST, Piece, answer_piece, answered, pieces
from optimize.commands.init import write_project
from optimize.commands.new import write_task
from optimize.data.stream import Rows
from optimize.program.program import student
from optimize.task import Task
from tests.conftest import Says
from tests.faulty_server import faulty_app
from tests.test_apply import review, verdict
from tests.test_lm import served

ROWS, THREADS = 420, 4


def parquet(path: Path, rows: int, **options: Any) -> Path:
    table = {"id": [f"r{n}" for n in range(rows)], "text": [review(n) for n in range(rows)]}
    pyarrow.parquet.write_table(pyarrow.table(table), path, **options)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose task `review` was never run; its store takes seconds to make."""
    root = tmp_path_factory.mktemp("home")
    write_project(root, [])
    write_task(root, "review")
    return root


def given(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["apply", "review", *map(str, arguments)])


def test_rows_are_found_by_their_numbers_over_files_and_groups(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, count in (("a", 2500), ("b", 0), ("c", 70), ("d", 1)):
        parquet(folder / f"{name}.parquet", count, row_group_size=30 if name == "c" else 1700)
    rows = Rows(folder)
    whole = list(rows)
    assert len(whole) == rows.count() == 2571 and whole[2570].place == "d.parquet row 1"
    for start, stop in ((0, 2571), (0, 1), (999, 1001), (1690, 1710), (2490, 2535), (2560, 9999)):
        assert list(rows.between(start, stop)) == whole[start:stop]
    assert not list(rows.between(7, 7))


def test_pieces_cover_the_rows_that_are_left_and_keep_those_begun(tmp_path: Path) -> None:
    assert pieces(tmp_path, 0, 50, 4) == [Piece(0, LEAST), Piece(20, 40), Piece(40, 50)]
    assert {p.stop - p.start for p in pieces(tmp_path, 0, 10**6, 2)} == {MOST}
    for piece in (Piece(10, 30), Piece(60, 90), Piece(95, 110)):
        piece.path(tmp_path).touch()
    for first in (0, 10, 25, 30, 60, 100, 110, 117):
        found = pieces(tmp_path, first, 120, 1)
        covered = [n for piece in found for n in range(piece.start, piece.stop) if n >= first]
        assert covered == list(range(first, 120)), (first, found)
        begun = [p for p in (Piece(10, 30), Piece(60, 90), Piece(95, 110)) if p.stop > first]
        assert set(begun) <= set(found)


def test_a_piece_goes_on_behind_its_last_whole_record(tmp_path: Path, tiny: Any) -> None:
    task: Task = tiny()
    rows = Rows(parquet(tmp_path / "in.parquet", 10))
    path = Piece(2, 8).path(tmp_path)
    program, said = student(task), iter(["[[ ## mood ## ]]\ngood\n[[ ## completed ## ]]"] * 7)
    program.lm = dspy.LM("any/lm", engine=Says(said), cache=False)
    answer_piece(program, rows.between(2, 8), path, 1)
    whole = path.read_bytes()
    assert whole.count(b"\n") == whole.count(b'"mood": "good"') == 6
    path.write_bytes(whole[:-7])  # as kill -9 leaves it
    assert len(list(answered(program, rows.between(2, 8), path, 0))) == 5
    answer_piece(program, rows.between(2, 8), path, 1)
    assert path.read_bytes() == whole and not list(said), "seven were asked"
    found = [row.place for row, _ in answered(program, rows.between(5, 8), path, 3)]
    assert found == [f"in.parquet row {n}" for n in (6, 7, 8)]
    with pytest.raises(Exception, match=r"r2 is not in\.parquet row 4"):
        answer_piece(program, rows.between(3, 8), path, 1)


def test_a_row_that_failed_does_not_stop_those_behind_it(tmp_path: Path, tiny: Any) -> None:
    rows, path = Rows(parquet(tmp_path / "in.parquet", 4)), Piece(0, 4).path(tmp_path)
    good = "[[ ## mood ## ]]\ngood\n[[ ## completed ## ]]"
    program, said = student(tiny()), iter([good, "none", "none", good, good])
    program.lm = dspy.LM("any/lm", engine=Says(said), cache=False)
    answer_piece(program, rows.between(0, 3), path, 1)
    answer_piece(program, rows.between(0, 4), path, 1)
    told = [bool(answer.error) for _, answer in answered(program, rows.between(0, 4), path, 0)]
    assert told == [False, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["in.jsonl", "--ray"], "in.jsonl is no Parquet"),
        (["in.parquet", "--workers", "2"], "--workers and --address are for --ray"),
        (["in.parquet", "--ray", "--batch"], "give one of them"),
        (["in.parquet", "--ray", "--address", "127.0.0.1:9"], "No Ray at 127.0.0.1:9: Connection"),
        (["in.parquet", "--ray", "--address", "none.invalid:9"], "No Ray at none.invalid:9"),
        (["in.parquet", "--ray"], "pip install 'optimize-workbench[ray]'. Without --ray"),
    ],
)
def test_what_cannot_be_done_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    monkeypatch.chdir(home)
    parquet(home / "in.parquet", 210)
    (home / "in.jsonl").write_text('{"text": "good"}\n')
    if "pip install" in says:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    app = faulty_app(verdict, lambda asked: "")
    with served(app) as url:
        done = given(*arguments, "-o", "out", "--lm", "openai/any", "--api-base", f"{url}/v1")
    assert not app.state.log
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.output


def workers(pid: int) -> list[int]:
    """Ray's workers among the descendants of a process."""
    parents, names = dict[int, int](), dict[int, bytes]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
    below, found = {pid}, list[int]()
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
        found += [child for child in more if b"ray::MapWorker" in names[child]]
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_loses_no_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    monkeypatch.chdir(home)
    parquet(home / "in.parquet", ROWS)
    server = faulty_app(verdict, lambda asked: "", 0.1)
    with served(server) as url:
        flags = ["in.parquet", "--lm", "openai/any", "--api-base", f"{url}/v1"]
        flags += ["--threads", str(THREADS), "--below", "0.5"]
        words = [sys.executable, "-m", "optimize", "apply", "review", *flags, "-o", "out.parquet"]
        words += ["--ray", "--workers", "2", "--json"]

        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while running.poll() is None and len(server.state.log) < PILOT + 40:
            time.sleep(0.02)
        killed = workers(running.pid)
        os.kill(killed[0], signal.SIGKILL)
        out, said = running.communicate()
        assert running.returncode == 0, said
        told = json.loads(out)
        assert (told["answered"], told["failed"], told["rows"]) == (ROWS, 0, ROWS)
        assert told["calls"] == len(server.state.log), "also those of the killed worker"
        requests = Counter(one.text for one in server.state.log)
        assert len(requests) == ROWS and requests.total() <= ROWS + 2 * THREADS
        assert not Path(f"/proc/{killed[0]}").exists() and not list(home.glob("*.pieces"))

        plain = given(*flags, "-o", "plain.parquet")
        assert plain.exit_code == 0, plain.stderr
        assert len(server.state.log) == requests.total(), "all from the cache"
    found = pyarrow.parquet.read_table("out.parquet")
    assert found.column("row_id").to_pylist() == [f"r{n}" for n in range(ROWS)]
    assert found == pyarrow.parquet.read_table("plain.parquet")
    review_files = [Path(f"{name}.parquet.review.jsonl").read_bytes() for name in ("out", "plain")]
    assert review_files[0] == review_files[1]
