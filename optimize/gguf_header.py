"""What a GGUF file says of its model and where its weights lie. Knows the file format alone.

The gguf package reads the whole vocabulary into arrays of objects, which takes seconds a file;
here lists are stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from optimize.errors import WorkbenchError

# the format's value types by their numbers: docs/gguf.md of github.com/ggml-org/ggml
SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
STRING, LIST = 8, 9
MOST = 1 << 20  # entries, or bytes of a key: more is no header
HALF = 2  # bytes of a number in the cache of keys and values


@dataclass(frozen=True)
class Header:
    """values: the file's metadata, without its lists. architecture: llama, qwen2, …

    context: tokens the model was trained to read. token_bytes: what a token it has read takes in
    memory, in the cache of keys and values.
    """

    values: dict[str, Any]

    @property
    def architecture(self) -> str:
        return str(self.values["general.architecture"])

    @property
    def embeds(self) -> bool:
        """Whether it gives a text's vector instead of writing on."""
        return bool(self._of("pooling_type", 0))

    @property
    def adapts(self) -> bool:
        """Whether it is an adapter, and no model of its own."""
        return self.values.get("general.type") == "adapter"

    @property
    def context(self) -> int:
        return int(self._of("context_length", 2048))

    @property
    def width(self) -> int:
        """Numbers of a hidden state."""
        return int(self._of("embedding_length", 0))

    @property
    def token_bytes(self) -> int:
        heads = int(self._of("attention.head_count", 1))
        each = self.width // max(1, heads)  # no attention in state-space models
        keys = self._of("attention.key_length", each) + self._of("attention.value_length", each)
        shared = int(self._of("attention.head_count_kv", heads))
        return int(HALF * self._of("block_count", 0) * shared * keys)

    def _of(self, name: str, default: float) -> Any:
        return self.values.get(f"{self.architecture}.{name}", default)


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: the number of its type in ggml, its shape, outermost dimension first,
    and the byte at which it begins.
    """

    kind: int
    shape: tuple[int, ...]
    offset: int


@cache
def read_header(path: Path) -> Header:
    """Raises WorkbenchError for what is no GGUF file."""
    with _opened(path) as file:
        return _header(file)[0]


def read_tensors(path: Path) -> dict[str, Stored]:
    """{name: where it is stored}. Raises WorkbenchError for what is no GGUF file."""
    with _opened(path) as file:
        header, tensors = _header(file)
        found = {}
        for _ in range(tensors):
            name, (dimensions,) = _text(file), _numbers(file, "I")
            shape = _numbers(file, "Q" * min(dimensions, MOST))
            kind, offset = _numbers(file, "IQ")
            found[name] = Stored(kind, shape[::-1], offset)
        align = int(header.values.get("general.alignment", 32))
        start = -(-file.tell() // align) * align
    return {name: replace(one, offset=start + one.offset) for name, one in found.items()}


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise WorkbenchError(
            f"{path} is no GGUF file that can be read: {str(error).strip() or 'it is cut short'}"
        ) from None


def _header(file: BinaryIO) -> tuple[Header, int]:
    """What comes before the list of tensors, and how many they are."""
    if file.read(4) != b"GGUF":
        raise ValueError("it does not begin as one")
    _version, tensors, entries = _numbers(file, "IQQ")
    if max(entries, tensors) > MOST:
        raise ValueError("its header is damaged")
    found = {}
    for _ in range(entries):
        key, (kind,) = _text(file), _numbers(file, "I")
        value = _value(file, kind)
        if value is not None:
            found[key] = value
    if "general.architecture" not in found:
        raise ValueError("it does not tell its architecture")
    return Header(found), tensors


def _numbers(file: BinaryIO, kinds: str) -> tuple[Any, ...]:
    layout = struct.Struct(f"<{kinds}")
    return layout.unpack(file.read(layout.size))


def _text(file: BinaryIO) -> str:
    (length,) = _numbers(file, "Q")
    if length > MOST:
        raise ValueError("its header is damaged")
    return file.read(length).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    """The value at hand; None for a list, which is stepped over."""
    if kind == STRING:
        return _text(file)
    if kind != LIST:
        return _numbers(file, SCALARS[kind])[0]
    inner, length = _numbers(file, "IQ")
    if inner in SCALARS:
        file.seek(length * struct.calcsize(f"<{SCALARS[inner]}"), 1)
    else:
        for _ in range(length):
            if inner == STRING:
                file.seek(_numbers(file, "Q")[0], 1)
            else:
                _value(file, inner)
    return None
