"""A training by the hand-off's own recipe, in processes of its own under `accelerate launch`. Knows
no rows.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.finetune.handoff.recipes.trl_lora import PROGRESS
from optimize.threads import usable_cores

RECIPE = "recipes/trl_lora.py"
SET = ("ACCELERATE_", "FSDP_")  # names of the environment that accelerate sets
CONFIG, OUTPUT = "accelerate.json", "output.txt"
LOOK = 0.5  # seconds between two looks at what a training tells
MERCY = 10.0  # seconds that it has to end
TOLD = 600  # letters of its last words
Line = dict[str, Any]
# FSDP 2: weights, gradients and optimizer are divided among the GPUs, block by block
FSDP = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "FULL_STATE_DICT",  # so that checkpoints hold one whole adapter
    "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_offload_params": False,
    "fsdp_activation_checkpointing": False,  # the trainer's own does it
}


def gpus_here() -> int:
    import torch

    return int(torch.cuda.device_count())


def precision(gpus: int, gguf: bool) -> str:
    """What the base's weights are read in: in 4 bits (QLoRA) where bitsandbytes is there, which
    does not read GGUF files.
    """
    if gpus:
        return "4bit" if find_spec("bitsandbytes") and not gguf else "bf16"
    from optimize.finetune.lora.cut import fast_bf16

    return "bf16" if fast_bf16("cpu") else "float32"


def accelerate_config(gpus: int, half: bool) -> dict[str, Any]:
    """As `accelerate config` writes one. half: computed in bfloat16."""
    found: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if gpus > 1 else "NO",
        "mixed_precision": "bf16" if half else "no",
        "num_machines": 1,
        "num_processes": max(1, gpus),
        "use_cpu": not gpus,
    }
    # port 0: one that is free
    return found | ({"fsdp_config": FSDP, "main_process_port": 0} if gpus > 1 else {})


@dataclass(frozen=True)
class Launch:
    """Trainings in one folder, which is laid out as a hand-off is. gpus: that they run on; 0: the
    processor.
    """

    folder: Path
    gpus: int
    offline: bool = True

    def command(self, *words: str) -> list[str]:
        """What is run in the folder, as a shell has it but for the interpreter's path."""
        threads = max(1, usable_cores() // max(1, self.gpus))
        own = ["--config_file", CONFIG, "--num_cpu_threads_per_process", str(threads), "--quiet"]
        return ["accelerate", "launch", *own, RECIPE, *words]

    def shown(self, *words: str) -> str:
        """The command with what it has in its environment, to be run by hand."""
        env = "".join(f"{name}={value} " for name, value in self._own_env().items())
        return env + shlex.join(self.command(*words))

    def check(self, words: Sequence[str]) -> Line:
        """Everything but the training: accelerate's own launcher reads its configuration and the
        command line; in the environment that it makes TRL's own configuration is constructed, and
        the base's tokenizer reads the rows.

        Raises WorkbenchError for what they refuse.
        """
        done = subprocess.run(
            [sys.executable, RECIPE, *words, "--check", str(max(1, self.gpus))],
            cwd=self.folder, env=self._env() | self._launched(words), capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode:
            raise WorkbenchError(f"The training cannot be set up: {_last_words(done.stderr)}")
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def _launched(self, words: Sequence[str]) -> dict[str, str]:
        """What `accelerate launch` puts into the environment of this command's processes."""
        from accelerate.commands import launch
        from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

        config = str(self.folder / CONFIG)
        command = [config if word == CONFIG else word for word in self.command(*words)[2:]]
        try:
            parsed = launch.launch_command_parser().parse_args(command)
            args, *_ = launch._validate_launch_command(parsed)
            one = self.gpus < 2
            made = prepare_simple_launcher_cmd_env(args)[1] if one else prepare_multi_gpu_env(args)
        except (ValueError, TypeError, SystemExit) as error:
            raise WorkbenchError(f"accelerate refuses {config}: {error}") from error
        return {name: text for name, text in made.items() if name.startswith(SET)}

    def run(self, out: str, words: Sequence[str], hear: Callable[[Line], None]) -> None:
        """Train to `out` in the folder, telling what it tells. Ends with this process, however that
        ends.

        Raises WorkbenchError in its last words where it fails.
        """
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *self.command(*words)[2:]]
        tail = _Tail(self.folder / out / PROGRESS)
        with (self.folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                [*launcher, "--attached"], cwd=self.folder, env=self._env(),
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                while process.poll() is None:
                    for line in tail.new():
                        hear(line)
                    time.sleep(LOOK)
            except BaseException:
                _end(process)
                raise
        for line in tail.new():
            hear(line)
        if process.returncode:
            raise WorkbenchError(self._failed(process.returncode))

    def _failed(self, code: int) -> str:
        path = self.folder / OUTPUT
        text = path.read_text(encoding="utf-8", errors="replace")
        if "out of memory" in text.lower() or code == -signal.SIGKILL or "SIGKILL" in text:
            return (
                f"TRL's training ran out of memory, or was killed. Tune a smaller LM, shorten the "
                f"longest rows, or take more GPUs by --gpus. What it said: {path}"
            )
        return (
            f"TRL's training failed: {_last_words(text)} All it said: {path}. The same command "
            "goes on from its last whole epoch."
        )

    def _env(self) -> dict[str, str]:
        # what another launcher has set is not meant for this training
        kept = {k: v for k, v in os.environ.items() if not k.startswith(SET)}
        return kept | {"TOKENIZERS_PARALLELISM": "false"} | self._own_env()

    def _own_env(self) -> dict[str, str]:
        found = {"HF_HUB_OFFLINE": "1"} if self.offline else {}
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = given.split(",") if given else [str(n) for n in range(self.gpus)]
        return found | {"CUDA_VISIBLE_DEVICES": ",".join(known[: self.gpus])}


class _Tail:
    """What is written to a file of JSON lines from now on."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, path.stat().st_size if path.is_file() else 0

    def new(self) -> list[Line]:
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.read += len(whole + newline)
        return [json.loads(line) for line in whole.splitlines() if line]


def _end(process: subprocess.Popen[bytes]) -> None:
    """The training and all it has started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(MERCY)
    process.wait()


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing.")[-TOLD:]
