"""Is everything here that a run needs? Each check ends, whatever hangs; at most one LM call an
address.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version

from pydantic import SecretStr

from optimize import __version__, usercode
from optimize import lm as lms
from optimize.catalogue import EMBEDDED, EMBEDDERS, MODELS, in_catalogue
from optimize.config import RunConfig, is_local, is_project, load_config, state_dir
from optimize.errors import LmRefused, StoreFailed, WorkbenchError
from optimize.finetune.trl.launch import gpus_here
from optimize.lm import answers, weights
from optimize.lm.addresses import addresses, is_group
from optimize.lm.kept import Kept
from optimize.lm.meter import Meter
from optimize.lm.reach import check_reachable, check_reachable_embedder
from optimize.lm.thinking import room_to_think
from optimize.report.checkup import Check, Checkup, Status
from optimize.store.champion import champion
from optimize.store.listing import listed
from optimize.store.open import client, has_store, shown_uri
from optimize.store.read import NoRun
from optimize.task import task_names

SECONDS = 20.0  # that a check may take
LM_SECONDS = 90.0  # that the LM may take to answer: a local one is loaded first
LITTLE, NOTHING = 5e9, 1e9  # bytes of disk from which on it is told
ROOM = 16  # tokens of the answer
LORA = ("torch", "transformers", "peft")
TRL = ("trl", "accelerate")
TOLD_THERE = "The provider, or its server, says why."
Found = tuple[Status, str, str]  # status, what was found, what to do


def checkup(root: Path, call: bool = True, **knobs: object) -> Checkup:
    """All checks. call: ask the LM once, which may cost what one short call costs. knobs: in place
    of the project's own, such as another LM.
    """
    lms.configure(root)
    checks = [
        _checked("versions", _versions),
        _checked("project", lambda: _project(root)),
        _checked("store", lambda: _store(root)),
        _checked("disk", lambda: _disk(root)),
        _checked("answers", lambda: _answers(root)),
        _checked("models", _models),
        _checked("lora", _lora),
        _checked("trl", _trl),
    ]
    try:
        config = load_config(root, None, **knobs)
    except WorkbenchError as error:
        return Checkup(
            checks=[*checks, Check(name="knobs", status="fail", found=str(error), remedy="")]
        )
    if config.embedder:
        checks.append(_checked("embedder", lambda: _embedder(config)))
    checks.append(_checked("retirement", lambda: _retirement(root, config)))
    checks.append(_checked("LM", lambda: _lm(config, call), LM_SECONDS))
    return Checkup(checks=checks)


def _checked(name: str, check: Callable[[], Found], seconds: float = SECONDS) -> Check:
    """What the check found, or what it failed by, or that it did not end."""
    found: list[Found] = []

    def work() -> None:
        try:
            found.append(check())
        except (WorkbenchError, StoreFailed, LmRefused) as error:
            found.append(("fail", str(error), ""))
        except Exception as error:
            found.append(("fail", usercode.told(error), ""))

    thread = threading.Thread(target=work, daemon=True)  # a process does not wait for it to end
    thread.start()
    thread.join(seconds)
    slow: Found = "fail", f"no answer within {seconds:.0f} seconds", "Is the machine busy?"
    status, text, remedy = found[0] if found else slow
    return Check(name=name, status=status, found=text, remedy=remedy)


def _versions() -> Found:
    parts = [f"optimize {__version__}", f"Python {python_version()}"]
    return (
        "ok",
        ", ".join([*parts, *(f"{name} {version(name)}" for name in ("dspy", "mlflow"))]),
        "",
    )


def _project(root: Path) -> Found:
    if not is_project(root):
        return "fail", f"{root} is no project", "optimize init DIR writes one."
    if names := task_names(root):
        return "ok", f"{root}, tasks: {', '.join(names)}", ""
    return "warn", f"{root} has no task", "optimize new NAME writes one."


def _store(root: Path) -> Found:
    if not has_store(root):
        return "ok", "no run yet; the first one makes it", ""
    client(root)
    return "ok", f"{shown_uri(root)}, runs: {len(listed(root))}", ""


def _disk(root: Path) -> Found:
    free = {place: _free(place) for place in (root, weights.cache_dir())}
    place, least = min(free.items(), key=lambda found: found[1])
    told = f"{least / 1e9:.0f} GB free at {place}"
    if least > LITTLE:
        return "ok", told, ""
    remedy = "Free some, or set OPTIMIZE_CACHE to a folder on another disk."
    return ("warn" if least > NOTHING else "fail"), told, remedy


def _free(place: Path) -> int:
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    return shutil.disk_usage(there).free


def _answers(root: Path) -> Found:
    path = state_dir(root) / answers.FILE
    if not path.is_file():
        return "ok", "none kept yet", ""
    kept = Kept(path)
    return "ok", f"{kept.count()} kept, {kept.size() / 1e6:.1f} MB (optimize cache)", ""


def _models() -> Found:
    known = [*MODELS.values(), *EMBEDDERS.values()]
    here = [model.name for model in known if weights.path_of(model).is_file()]
    told = f"{', '.join(here) or 'none'} of {len(known)} in {weights.cache_dir()}"
    return "ok", told, "" if here else "optimize lm pull fetches the one that runs by default."


def _lora() -> Found:
    missing = [name for name in LORA if not find_spec(name)]
    if not missing:
        return "ok", ", ".join(f"{name} {_version(name)}" for name in LORA), ""
    told = f"{', '.join(missing)} missing: no fine-tuning on this machine"
    return "warn", told, "pip install 'optimize-workbench[lora]'; all else works without."


def _trl() -> Found:
    if missing := [name for name in (*LORA, *TRL) if not find_spec(name)]:
        told = f"{', '.join(missing)} missing: no `--backend trl` (pip install "
        return "ok", f"{told}'optimize-workbench[trl]'), which trains on GPUs", ""
    driver = shutil.which("nvidia-smi")  # importing torch to count none takes seconds
    gpus = gpus_here() if driver else 0
    if not gpus:
        on = "no GPU: it trains on the processor"
    else:
        four = "base in 4 bits" if find_spec("bitsandbytes") else "no bitsandbytes: base in bf16"
        on = f"{gpus} GPU{'s' * (gpus > 1)}, {four}"
    return "ok", f"{', '.join(f'{name} {_version(name)}' for name in TRL)}; {on}", ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _embedder(config: RunConfig) -> Found:
    name = str(config.embedder)
    if name in EMBEDDERS:
        weights.find_embedder(name)
    elif not is_local(name):
        check_reachable_embedder(config)
    return "ok", f"{name} can be reached; not asked", ""


def _retirement(root: Path, config: RunConfig) -> Found:
    """Of the project's LMs, and of those that the best programs run on."""
    used = dict.fromkeys(config.lms)
    for task in task_names(root) if has_store(root) else ():
        with suppress(NoRun):
            run = champion(root, task)
            known = run.store.get_run(run.id).data.params
            used[known.get("lm", ""), known.get("api_base")] = None
    days = {name: day for name, base in used if (day := lms.retires(name, base))}
    if not days:
        return "ok", "no LM in use is known to be switched off", ""
    told = ", ".join(f"{name} is switched off on {day}" for name, day in days.items())
    remedy = "optimize recheck TASK --lm OTHER says whether another one holds the target."
    return "warn", told, remedy


def _lm(config: RunConfig, call: bool) -> Found:
    check_reachable(config)
    model = in_catalogue(config.lm)
    if model and not weights.path_of(model).is_file():
        status: Status = "warn" if config.lm == EMBEDDED else "fail"
        remedy = f"optimize lm pull {model.name} fetches it ({model.size / 1e6:.0f} MB)."
        return status, f"{config.lm} is not on this machine yet", remedy
    if not call:
        return "ok", f"{config.lm} is configured; not asked (--no-call)", ""
    if config.api_base and is_group(config.api_base):
        return _group(config)
    said, problem = _one_call(config)
    if problem:
        return "fail", f"{config.lm} did not answer: {problem}", TOLD_THERE
    return "ok", f"{config.lm} answered {said}: one question", ""


def _group(config: RunConfig) -> Found:
    """Each address of the LM, asked once, all at the same time."""
    places = addresses(str(config.api_base))
    patience = min(config.timeout, LM_SECONDS / 2)  # the others are told of where one hangs
    keys = [SecretStr(place.key) if place.key else config.api_key for place in places]
    ones = [
        config.model_copy(update={"api_base": place.url, "api_key": key, "timeout": patience})
        for place, key in zip(places, keys, strict=True)
    ]
    with ThreadPoolExecutor(len(ones)) as pool:
        asked = dict(zip((place.url for place in places), pool.map(_one_call, ones), strict=True))
    bad = [f"{url} did not answer: {problem}" for url, (_, problem) in asked.items() if problem]
    good = [f"{url} {said}" for url, (said, problem) in asked.items() if not problem]
    told = f"{config.lm} answered at {len(good)} of {len(asked)} addresses, one question each: "
    status: Status = "ok" if not bad else "warn" if good else "fail"
    return status, told + "; ".join([*bad, *good]), TOLD_THERE if bad else ""


def _one_call(config: RunConfig) -> tuple[str, str]:
    """In what time and for how many tokens the LM answered, or by what it failed."""
    meter = Meter(2)  # one that thinks is asked again, with room for that
    lm = lms.task_lm(config, meter, ROOM).copy(cache=False, num_retries=0)
    began = time.perf_counter()
    try:
        lm("Say yes.")
    except (*usercode.LM_FAILURES, LmRefused) as error:
        return "", usercode.told(error)
    usage, seconds = meter.usage(), time.perf_counter() - began
    thinks = ", it thinks first" if room_to_think(lm) else ""
    return f"in {seconds:.1f} s, {usage.tokens_in} tokens in, {usage.tokens_out} out{thinks}", ""
