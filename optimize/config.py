"""The one list of knobs and the only home of their defaults. Imports no DSPy, no MLflow."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from optimize.catalogue import EMBEDDED, in_catalogue
from optimize.errors import WorkbenchError, did_you_mean, shown

FILE = "optimize.toml"
# the knobs that say which task LM, and how it answers
NO_ADDRESS = "none"  # as an address: the LM is its provider's
TASK_LM = ("lm", "api_base", "context", "temperature")
JUDGE_LM = ("judge_lm", "judge_api_base")
# whose file is read, while a configuration is made
_root: ContextVar[Path | None] = ContextVar("root", default=None)
Finetune = Literal["bundle", "lora", "trl", "openai", "never"]
Method = Literal["sft", "dpo", "kto", "distill"]
Lever = Literal[
    "output_format",
    "guide",
    "nearest_demos",
    "demo_search",
    "bootstrapped_demos",
    "synthetic_rows",
    "passages",
    "reasoning",
    "mipro",
    "simba",
    "gepa",
    "copro",
    "votes",
]


class RunConfig(BaseSettings):
    """Every knob of a run.

    A flag beats the environment (`OPTIMIZE_…`), which beats `optimize.toml`.
    """

    model_config = SettingsConfigDict(
        env_prefix="OPTIMIZE_",
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
    )

    lm: str = Field(
        EMBEDDED,
        description="task LM: embedded, another of `optimize lm list`, gguf:PATH, or a DSPy model "
        "string",
        min_length=1,
    )
    teacher: str | None = Field(
        None,
        description="LM that proposes and bootstraps; default: the task LM itself",
        examples=["openai/gpt-4.1"],
    )
    api_base: str | None = Field(
        None,
        description="address of the task LM's OpenAI-compatible endpoint; a list of them, or @FILE "
        "with one a line, for several that serve the same LM",
        examples=["http://127.0.0.1:8000/v1"],
    )
    teacher_api_base: str | None = Field(
        None, description="the same for the teacher", examples=["http://127.0.0.1:8001/v1"]
    )
    judge_lm: str | None = Field(
        None,
        description="LM of a task's judge; default: the one that the judge was optimized on, else "
        "the teacher, else the task LM",
        examples=["openai/gpt-4.1"],
    )
    judge_api_base: str | None = Field(
        None, description="its address", examples=["http://127.0.0.1:8003/v1"]
    )
    embedder: str | None = Field(
        None,
        description="what finds rows and passages by meaning, beside words: minilm, gguf:PATH, or "
        "openai/MODEL",
        examples=["openai/text-embedding-3-small"],
        min_length=1,
    )
    embedder_api_base: str | None = Field(
        None,
        description="address of the embedder's OpenAI-compatible endpoint",
        examples=["http://127.0.0.1:8002/v1"],
    )
    api_key: SecretStr | None = Field(
        None, description="key for these addresses; best given as OPTIMIZE_API_KEY"
    )
    target: float | None = Field(
        None, ge=0, le=1, description="score to reach; default: the task's own", examples=[0.9]
    )
    max_calls: int = Field(
        5000, ge=1, description="hard cap on LM calls that are not answered from the cache"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="the same for tokens, read and written", examples=[2_000_000]
    )
    budget_usd: float | None = Field(
        None, gt=0, description="the same for US dollars", examples=[5.0]
    )
    max_minutes: float | None = Field(
        None, gt=0, description="the same for minutes of the clock", examples=[30]
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")
    threads: int | None = Field(
        None,
        ge=1,
        le=64,
        description="LM calls in flight; default: 4 of an LM in this process, 16 of a hosted one",
        examples=[32],
    )
    timeout: float = Field(
        180.0,
        ge=1,
        le=3600,
        description="seconds a hosted LM may take to answer a call, of which up to four are tried",
    )
    val_rows: int | None = Field(
        None, ge=8, description="use at most so many val rows", examples=[100]
    )
    test_rows: int | None = Field(
        None, ge=8, description="use at most so many test rows", examples=[200]
    )
    context: int | None = Field(
        None,
        ge=512,
        description="tokens the task LM may read and write in one call; default: 4096 of a local "
        "one or what it was trained on, of others what the server says",
        examples=[8192],
    )
    temperature: float = Field(0.0, ge=0, le=2, description="of the task LM")
    repeats: int = Field(
        1,
        ge=1,
        le=20,
        description="how often each val and test row is asked, to tell the LM's noise from the "
        "sample's",
    )
    batch: bool = Field(
        False,
        description="ask the test rows through the provider's batch API: half the price, within a "
        "day",
    )
    headroom: bool = Field(
        False,
        description="after a climb short of the target: could the best of several answers, or the "
        "teacher, reach it?",
    )
    finetune: Finetune = Field("bundle", description="what to do on a plateau below target")
    waive: str | None = Field(
        None,
        description="why to tune a task that is not declared stable and owned; goes on record",
        min_length=3,
        examples=["a trial, on rows that nobody maintains"],
    )
    method: Method = Field(
        "sft",
        description="what a tuned LM learns from: gold answers, these and preferences (dpo, or kto "
        "with trl), or a teacher's answers",
    )
    replay: int | None = Field(
        None,
        ge=0,
        description="general instructions, answered by the base LM, to train on as well, against "
        "forgetting; default: 3 for 10 train rows with no_regression_on general, else none",
        examples=[100],
    )
    finetune_base: str | None = Field(
        None,
        description="the LM's weights to train on: a transformers folder or a hub name; default: "
        "its GGUF",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    )
    gpus: int | None = Field(
        None,
        ge=0,
        description="GPUs that trl trains on, 0 for the processor; default: all that are here",
        examples=[2],
    )
    no_regression_on: tuple[str, ...] = Field(
        (), description="what a tuned LM must not get worse at to be kept: general, or another task"
    )
    without: tuple[Lever, ...] = Field(
        (),
        description="levers that are not tried, since what they make would not be used or they "
        "take too long; the verdict names them",
    )
    epochs: int = Field(
        4, ge=1, le=50, description="passes over the training rows in a LoRA fine-tune"
    )
    grid: int = Field(
        1,
        ge=1,
        le=27,
        description="LoRA trainings at most, which differ in learning rate, rank and share of the "
        "blocks; val rows choose one",
    )

    @field_validator("api_base", "teacher_api_base", "judge_api_base", mode="before")
    @classmethod
    def _one_value(cls, given: object) -> object:
        """A list of addresses, as a flag that is given several times or the file has it."""
        listed = isinstance(given, list | tuple) and all(isinstance(g, str) for g in given)
        return ",".join(given) or None if listed else given  # type: ignore[arg-type]

    # the knobs that were given in place of what file or environment say
    _instead: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def lms(self) -> list[tuple[str, str | None]]:
        """Name and address of the task LM and, if there is one, of the teacher."""
        teacher = [(self.teacher, self.teacher_api_base)] if self.teacher else []
        return [(self.lm, self.api_base), *teacher]

    @property
    def in_flight(self) -> int:
        """LM calls at once; a hosted LM's endpoint is asked as many of them as it takes."""
        return self.in_flight_of(self.lm)

    def in_flight_of(self, lm: str) -> int:
        """The same for an LM of that name."""
        return self.threads or (4 if is_local(lm) else 16)

    @property
    def given(self) -> dict[str, Any]:
        """The knobs that differ from their defaults, or that were given in place of the project's
        own; never the key.
        """
        return {
            name: value
            for name, field in type(self).model_fields.items()
            if name != "api_key"
            and ((value := getattr(self, name)) != field.default or name in self._instead)
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = (_root.get() or find_root()) / FILE
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)


LIMITS = ("max_calls", "max_tokens", "budget_usd", "max_minutes")


def caps(config: RunConfig) -> list[str]:
    """The caps that are given, as flags."""
    given = {cap: getattr(config, cap) for cap in LIMITS}
    return [flag(cap, n) for cap, n in given.items() if n is not None]


def flag(knob: str, value: float) -> str:
    return f"--{knob.replace('_', '-')} {value}"


_ASKING = ("lm", "api_base", "context", *LIMITS, "threads", "timeout", "temperature", *JUDGE_LM)
_LEARNING = (
    *("method", "replay", "finetune_base", "epochs", "grid", "gpus"),
    *("no_regression_on", "waive"),
)
_TUNING = ("teacher", "teacher_api_base", "target", "seed", "repeats", *_LEARNING)
_CLIMBING = ("embedder", "embedder_api_base", "val_rows", "test_rows", "without")
# the knobs that a command which we advise takes as flags, in the order they are printed
TAKES: dict[str, tuple[str, ...]] = {
    "check": (
        *("target", "lm", "teacher", "api_base", "teacher_api_base", "context", *LIMITS),
        *JUDGE_LM,
        *("repeats",),
        *(
            "headroom",
            "finetune",
            "method",
            "replay",
            "finetune_base",
            "grid",
            "no_regression_on",
            "waive",
            *_CLIMBING,
        ),
    ),
    "run": (*_ASKING, *_TUNING, "batch", "headroom", "finetune", *_CLIMBING),
    "gate": ("target", "waive"),
    "recheck": (*_ASKING, "target", "repeats", "batch", "test_rows"),
    "monitor": (*_ASKING, "target", "seed"),
    "label": ("lm", "api_base", *LIMITS, "threads", "timeout", "seed"),
    "synthesize": ("lm", "teacher", "api_base", "teacher_api_base", "context", *LIMITS, "seed"),
    "handoff": (*_ASKING, "target", "epochs", "waive"),
    "finetune": ("finetune", *_ASKING, *_TUNING),
    "adopt": (),  # a hand-off says on which LM
}


def command_line(name: str, task: str, knobs: Mapping[str, Any]) -> str:
    """`optimize NAME TASK` with those of the knobs that this command takes, as a shell reads it."""
    words = ["optimize", name, task]
    for knob in TAKES[name]:
        value = knobs.get(knob)
        if value is None or value is False:
            continue
        renamed = name == knob == "finetune"  # that command's name says what the knob said
        flag = "--backend" if renamed else f"--{knob.replace('_', '-')}"
        values = value if isinstance(value, tuple | list) else [value]
        words += [flag] if value is True else [w for v in values for w in (flag, str(v))]
    return shlex.join(words)


def load_config(
    root: Path | None = None, recorded: Mapping[str, object] | None = None, **flags: object
) -> RunConfig:
    """The run's configuration from the flags that were given (None means not given).

    root: the project whose optimize.toml is read; default: the one around the current folder.
    recorded: knobs of an earlier run, which stand where no flag was given.
    Raises WorkbenchError naming the knob, the bad value and where knobs may be set.
    """
    root = root or find_root()
    token = _root.set(root)
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        config = RunConfig(**{**(recorded or {}), **given})  # type: ignore[arg-type]
        config._instead = _instead(config)
        _check_addresses(config, given)
        return config
    except ValidationError as error:
        first = error.errors()[0]
        knob = str(first["loc"][0])  # of a list's entry: the list
        # an unknown knob's value may be a secret
        known = knob in RunConfig.model_fields and knob != "api_key"
        value = f" (got {shown(first['input'])})" if known else ""
        unknown = first["type"] == "extra_forbidden"
        told = first["msg"].replace("valid tuple", "list, in brackets")
        near = did_you_mean(knob, RunConfig.model_fields) if unknown else ""
        raise WorkbenchError(
            f"Option {knob!r}: {told}{value}.{near} It is set by a flag, the environment "
            f"(OPTIMIZE_{knob.upper()}) or {FILE}."
        ) from None
    except SettingsError as error:
        raise WorkbenchError(
            f"{error}. A list in the environment is JSON, such as '[\"general\"]'."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
        marked = (root / FILE).read_bytes().startswith(codecs.BOM_UTF8)
        why = "it begins with a byte order mark; save it as UTF-8 without one" if marked else error
        raise WorkbenchError(f"{root / FILE} is not valid TOML: {why}.") from None
    finally:
        _root.reset(token)


def _instead(config: RunConfig) -> frozenset[str]:
    """The knobs for which file and environment say something else."""
    try:
        own = RunConfig(**dict[str, Any]())
    except (ValidationError, SettingsError):  # what was given stands for what is wrong there
        return frozenset(config.model_fields_set)
    return frozenset(n for n in config.model_fields_set if getattr(own, n) != getattr(config, n))


def _check_addresses(config: RunConfig, given: dict[str, object]) -> None:
    """An address that is given for an LM in this process would be passed over in silence."""
    for lm, base in (("lm", "api_base"), ("teacher", "teacher_api_base")):
        name = getattr(config, lm)
        if given.get(base) not in (None, NO_ADDRESS) and name and is_local(name):
            flag = base.replace("_", "-")
            raise WorkbenchError(
                f"--{flag}: {name!r} runs in this process and has no address. Name the LM that is "
                f"served there as well: --{lm} openai/MODEL."
            )


def find_root(start: Path | None = None) -> Path:
    """The project root: the nearest folder upwards that holds optimize.toml or programs/, else the
    current one.
    """
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if is_project(folder)), here)


def is_project(folder: Path) -> bool:
    return (folder / FILE).is_file() or (folder / "programs").is_dir()


def is_local(lm: str) -> bool:
    """Whether the LM of that name runs in this process."""
    return in_catalogue(lm) is not None or lm.startswith("gguf:")


def state_dir(root: Path) -> Path:
    """Where answers are cached for this project; ignored by git."""
    return root / ".optimize"
