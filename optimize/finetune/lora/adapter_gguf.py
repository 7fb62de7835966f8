"""A LoRA's weights as a GGUF file that llama.cpp serves beside the base weights. Knows GGUF alone.

Which tensor a module is, gguf's own map of names says; in which order its rows lie, the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.gguf_header import read_header, read_tensors

SAME = 0.5  # of a tensor's norm: the coarsest quantization loses less, other weights differ by 1.4
ELSEWHERE = "Name its original weights by --finetune-base FOLDER, or use --finetune bundle."
# scaled positions that transformers does not read from a GGUF file
UNREAD = ("rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class Place:
    """tensor: its name in the served file. order: which of the module's outputs each of its rows
    is; None: the same.
    """

    tensor: str
    order: Any = None


class Served:
    """The tensors of the GGUF file that is served."""

    def __init__(self, path: Path) -> None:
        # gguf's own reader takes seconds for the words of a vocabulary, which are not needed here
        self.path, self.architecture = path, read_header(path).architecture
        self._tensors = read_tensors(path)

    def values(self, tensor: str) -> Any:
        """De-quantized; None where the file has no such tensor."""
        import gguf
        import numpy as np

        found = self._tensors.get(tensor)
        if found is None:
            return None
        kind = gguf.GGMLQuantizationType(found.kind)
        shape = gguf.quant_shape_to_byte_shape(found.shape, kind)
        return gguf.dequantize(np.memmap(self.path, np.uint8, "r", found.offset, shape), kind)

    def check_positions(self) -> None:
        """Raises WorkbenchError for positions scaled in a way that loading the file would lose."""
        scaling = read_header(self.path).values.get(f"{self.architecture}.rope.scaling.type")
        if scaling not in (None, "none") or any(name in self._tensors for name in UNREAD):
            raise WorkbenchError(
                f"{self.path.name} scales its positions ({scaling or 'longrope'}), which "
                f"transformers does not read from a GGUF file. {ELSEWHERE}"
            )

    def places(self, modules: Mapping[str, Any], blocks: int, width: int) -> dict[str, Place]:
        """{module: where it is} for those of the model's linear modules that the file has.

        modules: {name in transformers: weights, outputs × inputs, as float32 numpy}. width: of a
        head. Of modules that lie in several blocks the first is compared with the file. Raises
        WorkbenchError where their weights differ, or the file has none of them.
        """
        import gguf

        known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
        names = gguf.get_tensor_name_map(known[self.architecture], blocks)
        found: dict[str, Place] = {}
        orders: dict[str, Any] = {}
        for module, weights in modules.items():
            tensor = f"{names.get_name(module)}.weight"
            if tensor not in self._tensors:
                continue
            kind = tensor.split(".", 2)[-1]
            if kind not in orders:
                orders[kind] = self._order(tensor, module, weights, width)
            found[module] = Place(tensor, orders[kind])
        if not found:
            raise WorkbenchError(
                f"{self.path.name} has none of the tensors that a LoRA would adapt. {ELSEWHERE}"
            )
        return found

    def _order(self, tensor: str, module: str, weights: Any, width: int) -> Any:
        """In which order the file has the module's rows: as transformers, or, where llama.cpp
        interleaves the halves that rotate together, in that one.
        """
        import numpy as np

        stored = self.values(tensor)
        if stored.shape == weights.shape:
            for order in _orders(len(weights), width):
                ours = weights if order is None else weights[order]
                if np.linalg.norm(stored - ours) < SAME * np.linalg.norm(stored):
                    return order
        raise WorkbenchError(
            f"{module} of the base weights is not {tensor} of {self.path.name}: a LoRA trained on "
            "these weights could not be served. Are they of the same model?"
        )


def _orders(outputs: int, width: int) -> Iterator[Any]:
    import numpy as np

    yield None
    if outputs % width == 0:
        yield np.arange(outputs).reshape(-1, 2, width // 2).swapaxes(1, 2).reshape(-1)


def write_adapter(
    path: Path, architecture: str, weights: Sequence[tuple[Place, tuple[Any, Any]]], alpha: float
) -> None:
    """Write pairs (A of rank × inputs, B of outputs × rank), float32 numpy arrays, at their places.

    Where the served file has a module's rows in another order, so are those of its B.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for place, (a, b) in weights:
        b = b if place.order is None else b[place.order]
        writer.add_tensor(f"{place.tensor}.lora_a", np.ascontiguousarray(a, dtype=np.float32))
        writer.add_tensor(f"{place.tensor}.lora_b", np.ascontiguousarray(b, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_architecture(name: str) -> None:
    """Raises WorkbenchError, before any training, for an architecture whose tensors are unknown."""
    import gguf

    if name not in gguf.MODEL_ARCH_NAMES.values():
        raise WorkbenchError(
            f"LoRA training knows no tensors of the architecture {name!r}. Use `--finetune bundle` "
            "and a trainer of your choice."
        )
