"""The addresses of one LM, as `--api-base` and optimize.toml give them: one, several after commas,
or @FILE with one a line. Knows no LM.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from optimize.errors import WorkbenchError
from optimize.files import read_text

# of an address's own key; a file may name no other secret of the environment
VARIABLE = re.compile(r"OPTIMIZE_API_KEY_[A-Z0-9_]+")


@dataclass(frozen=True)
class Address:
    """key: its own one, where the file names a variable for it; None: that of all addresses."""

    url: str
    key: str | None = field(default=None, repr=False)


def addresses(base: str) -> list[Address]:
    """What an `api_base` names, each once, in its order.

    Raises WorkbenchError for a file that cannot be read, a line of it that is no address, a key
    whose variable is not set, or no address at all.
    """
    found: dict[str, Address] = {}
    for part in filter(None, map(str.strip, base.split(","))):
        some = _of_file(Path(part[1:]).expanduser()) if part.startswith("@") else [Address(part)]
        for one in some:
            found.setdefault(one.url.rstrip("/"), Address(one.url.rstrip("/"), one.key))
    if not found:
        raise WorkbenchError(f"--api-base {base!r} holds no address; write http://HOST:PORT/v1.")
    return list(found.values())


def is_group(base: str | None) -> bool:
    """Whether several addresses may serve the LM, so that its name and no address tells it apart
    from others. A file is a group whatever it holds today.
    """
    return base is not None and (base.startswith("@") or "," in base)


def check_single(base: str | None, what: str) -> None:
    """Raises WorkbenchError where only one address will do. what: for which work."""
    if is_group(base):
        raise WorkbenchError(
            f"{what} needs one address, and --api-base {base} names a group. Give one of them."
        )


def check_apart(lms: Iterable[tuple[str, str | None]]) -> None:
    """Raises WorkbenchError where one name stands for two groups of addresses: what one answers
    would count as the other's.
    """
    known: dict[str, str] = {}
    for name, base in lms:
        if base and is_group(base) and known.setdefault(name, base) != base:
            raise WorkbenchError(
                f"{name!r} is given with two groups of addresses, {known[name]} and {base}. "
                "Servers of one name count as one LM: serve one of the two under another name."
            )


def check_url(url: str, name: str) -> None:
    """Raises WorkbenchError for what is no address of an LM of that name."""
    address = urlsplit(url)
    plain = url.isprintable() and " " not in url  # urlsplit drops line ends
    try:
        host, _ = address.hostname, address.port  # a port beyond 65535 raises
    except ValueError:
        host = None
    if address.scheme not in ("http", "https") or not host or not plain:
        raise WorkbenchError(
            f"The address {url!r} of LM {name!r} is none; write it as http://HOST:PORT/v1."
        )


def _of_file(name: Path) -> list[Address]:
    """The nearest file of that name here or in a folder above, as optimize.toml is found."""
    above = [folder / name for folder in (Path.cwd(), *Path.cwd().parents)]
    path = next((path for path in above if path.is_file()), name)
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            found.append(_of_line(words, f"{path}:{number}"))
    if not found:
        raise WorkbenchError(f"{path} holds no address; write one a line.")
    return found


def _of_line(words: list[str], where: str) -> Address:
    if not words[0].startswith(("http://", "https://")) or len(words) > 2:
        raise WorkbenchError(
            f"{where}: a line is an address such as http://HOST:PORT/v1 and, where it has a key of "
            "its own, the name of the environment variable that holds it."
        )
    if len(words) == 1:
        return Address(words[0])
    if not VARIABLE.fullmatch(words[1]):  # it may be the key itself, which is not repeated here
        raise WorkbenchError(
            f"{where}: what follows the address names the environment variable with its key: "
            "OPTIMIZE_API_KEY_ and more capital letters. A key itself has no place in the file."
        )
    if not (key := os.environ.get(words[1])):
        raise WorkbenchError(f"{where}: {words[1]} is not set in the environment. No call made.")
    return Address(words[0], key)
