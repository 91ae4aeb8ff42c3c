"""An adapter as a folder that PEFT loads: its files, and what they say.

    adapter_config.json          PEFT's: the rank, the scaling, which modules
    adapter_model.safetensors    PEFT's: the factors of LoRA, fp32
    qttt.json                    ours: what the adapter belongs to, and that it needs base K,V

The first two are an ordinary LoRA: PEFT and vLLM load them, and then read the document with the
adapter on, which is not what was trained. The third says so. No file holds the document, but its
hash is there, and in a namespace without a secret anyone who has the document can tell it.

Written by `peft_export`, read by `peft_import`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ttt_core.config import Settings
from ttt_core.errors import StoreError
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import NAME
from ttt_core.report import AdaptationReport
from ttt_core.store.factors import MODULE_PATH
from ttt_core.store.format import FormatError, QueryRows

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ABOUT_FILE = "qttt.json"
FILES = (CONFIG_FILE, WEIGHTS_FILE, ABOUT_FILE)

_FACTOR = re.compile(MODULE_PATH + r"\.lora_(?P<factor>[AB])\.weight", re.ASCII)

_BASE_KV = (
    "The document's keys and values have to be computed by the base model with the adapter off, "
    "and the adapter to be on for everything behind the document; a server that reads the "
    "document with the adapter on computes something else."
)
_ALORA = (
    "Equals that only if the invocation tokens stand where the document ends and the question "
    "begins, and nowhere later: the adapter is on from the start of their last occurrence. A "
    "forward pass that does not contain them, as each of a decoding loop, needs alora_offsets."
)


class PEFTConfig(Settings):
    """What `adapter_config.json` says, in PEFT's names; PEFT takes its defaults for the rest.

    Written here and not by PEFT, whose own file grows a field or two with every version and then
    cannot be read by earlier ones. As it is closed, nothing else of LoRA can come in by an import.
    """

    peft_type: Literal["LORA"] = "LORA"
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    inference_mode: Literal[True] = True
    base_model_name_or_path: str | None = None
    """vLLM finds an adapter only if this is its `--model`, letter by letter; it may be edited."""
    r: int = Field(ge=1)
    lora_alpha: int = Field(ge=1)
    target_modules: tuple[str, ...]
    """Last parts of the modules' names, ascending."""
    layers_to_transform: tuple[int, ...] | None = None
    """None: all layers."""
    alora_invocation_tokens: tuple[int, ...] | None = None
    """None, unless asked for: vLLM refuses adapters that have them."""
    bias: Literal["none"] = "none"
    lora_bias: Literal[False] = False
    use_dora: Literal[False] = False
    use_rslora: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    modules_to_save: None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict, max_length=0)
    alpha_pattern: dict[str, int] = Field(default_factory=dict, max_length=0)


class ALoRA(Settings):
    """That the adapter turns itself on behind the document, as an Activated LoRA does."""

    invocation_tokens: tuple[int, ...]
    condition: str = _ALORA
    """When that equals what `requires_base_kv` asks for."""


class QTTTFolder(Settings):
    """What `qttt.json` says. Holds hashes and counts of the document only."""

    format: Literal["context-ttt adapter for PEFT"] = "context-ttt adapter for PEFT"
    format_version: Literal[1] = 1
    key: str = Field(pattern="^[0-9a-f]{64}$")
    """Under which the adapter was stored."""
    namespace: str = Field(pattern=f"^{NAME.pattern}$")
    sealed: bool
    """Whether the namespace has a secret; who does not know it cannot tell what the key is of."""
    base_model: str
    """Hub id or path of the base model, for people; `identity.base` tells models apart."""
    identity: AdapterIdentity
    document_tokens: int = Field(ge=0)
    """Tokens of system prompt and document: so many are for the base model to read."""
    requires_base_kv: Literal[True] = True
    meaning: str = _BASE_KV
    """What that asks of a server."""
    exact: bool
    """False: the factors approximate what was trained, and cannot be imported under its key."""
    relative_error: float = Field(ge=0)
    """Frobenius norm of all that the factors miss, over that of the trained change."""
    relative_errors: dict[str, float] = Field(default_factory=dict)
    """Likewise by module; empty where the factors are what was trained."""
    report: AdaptationReport
    query_rows: dict[str, QueryRows] = Field(default_factory=dict)
    """See `StoredAdapter`."""
    created: datetime
    sha256: str
    """Of `adapter_model.safetensors`."""
    alora: ALoRA | None = None
    checksum: str
    """SHA-256 of all of the above; against damage, since anyone can compute it."""


def modules_of(shapes: Mapping[str, tuple[int, ...]], rank: int) -> list[str]:
    """Return the names of the modules that a LoRA changes.

    Args:
        shapes: Of its weights.
        rank: Its rank.

    Raises:
        FormatError: There is another weight, or not both factors of a module.
    """
    found = {}
    for name, shape in shapes.items():
        match = _FACTOR.fullmatch(name)
        if match is None or len(shape) != 2 or 0 in shape:
            raise FormatError("it holds a weight that is no factor of a LoRA")
        if shape[match["factor"] == "B"] != rank:
            raise FormatError(f"it holds a factor that is not of rank {rank}")
        found[match["module"], match["factor"]] = shape
    modules = sorted({module for module, _ in found})
    if not modules or len(found) != 2 * len(modules):
        raise FormatError("it has one factor of a LoRA without the other, or none at all")
    return modules


def targets_of(modules: Iterable[str]) -> tuple[str, ...]:
    """Return what PEFT calls modules: the last parts of their names, ascending."""
    return tuple(sorted({module.rpartition(".")[2] for module in modules}))


def check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        FormatError: One is infinite, or not a number.
    """
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise FormatError("its weights are not all finite")


def checksum_of(about: QTTTFolder) -> str:
    """Return what the field of that name has to hold."""
    said = about.model_dump(mode="json", exclude={"checksum"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@contextmanager
def store_errors(failed: str) -> Iterator[None]:
    """Translate what the block raises about files and the disk; `failed` says what it was at."""
    try:
        yield
    except FormatError as error:
        raise StoreError(f"{failed}: {error}") from None
    except OSError as error:
        raise StoreError(f"{failed}: {error.strerror or 'it failed'}") from None
