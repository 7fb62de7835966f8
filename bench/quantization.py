"""How fast the engine answers with the package's Q4_1 weights and with the same values stored as
Q8_0.

python -m bench.quantization       # a minute; needs the network for the Q4_1 file
"""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console
from rich.table import Table

from optimize.catalogue import SMOLLM2
from optimize.lm import embedded, weights
from optimize.lm.speed import measure


def main() -> None:
    table = Table("weights", "reads tokens/s", "writes tokens/s", "ratio to Q4_1")
    packaged = replace(SMOLLM2, file="SmolLM2-135M-Instruct.Q4_1.gguf", requantized=False)
    found = {
        name: measure(embedded.serve(weights.pull(model, print)))
        for name, model in (("Q4_1", packaged), ("Q8_0", SMOLLM2))
    }
    for name, speed in found.items():
        ratio = speed.reads / found["Q4_1"].reads, speed.writes / found["Q4_1"].writes
        told = f"{ratio[0]:.2f} / {ratio[1]:.2f}"
        table.add_row(name, f"{speed.reads:.0f}", f"{speed.writes:.0f}", told)
    Console().print(table)


if __name__ == "__main__":
    main()
