"""An adapter as a folder that PEFT loads, and back.

    adapter_config.json          PEFT's: the rank, the scaling, which modules
    adapter_model.safetensors    PEFT's: the factors of LoRA, fp32
    qttt.json                    ours: what the adapter belongs to, and that it needs base K,V

The first two are an ordinary LoRA: PEFT and vLLM load them, and then read the document with the
adapter on, which is not what was trained. The third says so. No file holds the document, but its
hash is there, and in a namespace without a secret anyone who has the document can tell it.

Importing trusts nothing: not the folder's files, their sizes, or what they say of each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from pydantic import Field, ValidationError

from ttt_core.config import Settings
from ttt_core.errors import ConfigError, StoreError
from ttt_core.files import sync_folder, write_synced
from ttt_core.identity import AdapterIdentity
from ttt_core.locks import OPEN_FLAGS
from ttt_core.namespace import NAME, Namespace
from ttt_core.report import AdaptationReport
from ttt_core.store.factors import MODULE_PATH, Factors, as_factors
from ttt_core.store.format import FormatError, QueryRows, StoredAdapter, check_shapes

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ABOUT_FILE = "qttt.json"

MAX_JSON_BYTES = 8 << 20
MAX_WEIGHTS_BYTES = 4 << 30
"""More than rank 256 takes in the largest models."""

_FILES = (CONFIG_FILE, WEIGHTS_FILE, ABOUT_FILE)
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

_Loaded = TypeVar("_Loaded", bound=Settings)


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


class ExportReport(Settings):
    """What an export wrote; see `QTTTFolder` for what the names mean."""

    folder: Path
    key: str
    rank: int
    exact: bool
    relative_error: float
    relative_errors: dict[str, float]


def export_adapter(
    entry: StoredAdapter,
    folder: Path,
    *,
    namespace: Namespace,
    rank: int | None = None,
    alora_invocation_tokens: Sequence[int] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write `entry` to a folder that `PeftModel.from_pretrained` loads.

    A LoRA is written as it is. Of a dense change the closest matrices of a rank are written.

    Args:
        entry: What to write.
        folder: Appears whole, or not at all; others than its owner cannot look into it.
        namespace: Whose it is; gives the key.
        rank: Of a dense change, at most that of its largest module; None: that, or 64 if less.
        alora_invocation_tokens: Makes it an aLoRA, which is on from these tokens onwards.
        overwrite: Replace an earlier export.

    Raises:
        ConfigError: There are no weights, or the rank or the tokens cannot be.
        StoreError: The entry is damaged, or the folder is not empty or cannot be written.
    """
    if not entry.weights:
        raise ConfigError("the base model was kept for this document: there is nothing to export")
    folder = Path(os.path.realpath(folder))
    alora = _alora(alora_invocation_tokens)
    with _store_errors(f"cannot write {folder}"):
        _check_place(folder, overwrite)
        _check_finite(entry.weights)
        factors = as_factors(entry, rank)
        config = PEFTConfig(
            base_model_name_or_path=entry.base_model or None,
            r=factors.rank,
            lora_alpha=factors.alpha,
            target_modules=_targets(_modules(_shapes_of(factors.weights), factors.rank)),
            alora_invocation_tokens=None if alora is None else alora.invocation_tokens,
        )
        weights = _saved(factors.weights)
        about = _about(entry, namespace, factors, weights, alora)
        contents = zip(_FILES, (_json(config), weights, _json(about)), strict=True)
        _publish(contents, folder, overwrite)
    return ExportReport(
        folder=folder,
        key=about.key,
        rank=factors.rank,
        exact=about.exact,
        relative_error=about.relative_error,
        relative_errors=about.relative_errors,
    )


def import_adapter(folder: Path) -> tuple[StoredAdapter, QTTTFolder]:
    """Read an adapter that `export_adapter` wrote.

    Whether the key is the identity's is checked here only if the namespace has no secret; whoever
    knows the secret has to compare `identity.key(namespace)` with `key`.

    Args:
        folder: Its folder.

    Returns:
        The entry, and all that `qttt.json` says.

    Raises:
        StoreError: A file is missing, damaged, or says what the others do not.
    """
    folder = Path(folder)
    with _store_errors(f"cannot import {folder}"):
        about = _load(QTTTFolder, folder / ABOUT_FILE)
        config = _load(PEFTConfig, folder / CONFIG_FILE)
        _check_about(about)
        _check_config(config, about)
        weights = _load_weights(folder / WEIGHTS_FILE, config, about)
    entry = StoredAdapter(
        identity=about.identity,
        report=about.report,
        weights=weights,
        base_model=about.base_model,
        query_rows=about.query_rows,
        created=about.created,
    )
    return entry, about


# ---------------------------------------------------------------- what the files say


def _about(
    entry: StoredAdapter,
    namespace: Namespace,
    factors: Factors,
    weights: bytes,
    alora: ALoRA | None,
) -> QTTTFolder:
    about = QTTTFolder(
        key=entry.identity.key(namespace),
        namespace=namespace.name,
        sealed=namespace.secret is not None,
        base_model=entry.base_model,
        identity=entry.identity,
        document_tokens=entry.report.document_tokens,
        exact=factors.relative_errors is None,
        relative_error=factors.relative_error,
        relative_errors=dict(factors.relative_errors or {}),
        report=entry.report,
        query_rows=dict(entry.query_rows),
        created=entry.created or datetime.now(timezone.utc).replace(microsecond=0),
        sha256=hashlib.sha256(weights).hexdigest(),
        alora=alora,
        checksum="",
    )
    return about.model_copy(update={"checksum": _checksum(about)})


def _alora(tokens: Sequence[int] | None) -> ALoRA | None:
    if tokens is None:
        return None
    if not tokens or any(type(token) is not int or token < 0 for token in tokens):
        raise ConfigError("alora_invocation_tokens takes one or more token ids")
    return ALoRA(invocation_tokens=tuple(tokens))


def _check_about(about: QTTTFolder) -> None:
    """Refuse what is damaged, what is no LoRA as it was trained, and what contradicts itself."""
    report, recipe = about.report, about.identity.config
    if about.checksum != _checksum(about):
        raise FormatError(f"the checksum of {ABOUT_FILE} is wrong")
    if not about.exact or about.relative_error or about.relative_errors:
        raise FormatError(
            f"it approximates a dense change with a relative error of {about.relative_error:.2g}; "
            f"its key promises the change itself"
        )
    if {recipe.parametrization, report.parametrization} != {"lora"}:
        raise FormatError("its recipe trains no LoRA, but a LoRA is what it holds")
    if report.decision != "adapted":
        raise FormatError("its report says that the base model was kept")
    if about.document_tokens != report.document_tokens:
        raise FormatError("it gives two lengths of the document")
    if not about.sealed and about.key != about.identity.key(Namespace(about.namespace)):
        raise FormatError("its key is not the one of its identity")


def _check_config(config: PEFTConfig, about: QTTTFolder) -> None:
    recipe = about.identity.config
    if (config.r, config.lora_alpha) != (recipe.r, recipe.lora_alpha):
        raise FormatError(f"r or lora_alpha in {CONFIG_FILE} are not those of the recipe")
    invocation = about.alora and about.alora.invocation_tokens
    if config.alora_invocation_tokens != invocation:
        raise FormatError(f"{CONFIG_FILE} and {ABOUT_FILE} name different invocation tokens")


def _modules(shapes: Mapping[str, tuple[int, ...]], rank: int) -> list[str]:
    """Return the names of the modules that a LoRA changes, if it has both factors of each."""
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


def _targets(modules: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({module.rpartition(".")[2] for module in modules}))


def _shapes_of(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise FormatError("its weights are not all finite")


def _checksum(about: QTTTFolder) -> str:
    said = about.model_dump(mode="json", exclude={"checksum"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------- reading


def _load(kind: type[_Loaded], path: Path) -> _Loaded:
    with _opened(path, MAX_JSON_BYTES) as (file, size):
        text = file.read(size)
    try:
        json.loads(text, object_pairs_hook=_without_duplicates)
        return kind.model_validate_json(text)
    except FormatError as error:
        raise FormatError(f"{path.name} {error}") from None
    except ValidationError as error:
        # Only the names of our own fields come first: the rest is anybody's text.
        places = {str(where["loc"][0]) for where in error.errors() if where["loc"]}
        fields = ", ".join(sorted(places & kind.model_fields.keys())) or "what is not known"
        raise FormatError(f"{path.name} cannot be accepted for {fields}") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{path.name} is no JSON") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FormatError("says something twice")
    return found


def _load_weights(path: Path, config: PEFTConfig, about: QTTTFolder) -> dict[str, torch.Tensor]:
    with _opened(path, MAX_WEIGHTS_BYTES) as (file, size):
        shapes = check_shapes(file, size)
        if config.target_modules != _targets(_modules(shapes, config.r)):
            raise FormatError(f"target_modules in {CONFIG_FILE} are not those of the weights")
        if not about.query_rows.keys() <= shapes.keys():
            raise FormatError("it has query rows of weights that are not there")
        file.seek(0)
        data = file.read(size)
    if hashlib.sha256(data).hexdigest() != about.sha256:
        raise FormatError(f"{WEIGHTS_FILE} is not the one that {ABOUT_FILE} is about")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights: dict[str, torch.Tensor] = load(data)
    except (SafetensorError, ValueError):
        raise FormatError(f"{WEIGHTS_FILE} cannot be read") from None
    _check_finite(weights)
    return weights


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file of a plausible size, and no link to one."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # Not every system can refuse links on opening.
            raise FormatError(f"{path.name} is no regular file")
        descriptor = os.open(path, OPEN_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(f"there is no {path.name}") from None
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise FormatError(f"{path.name} is too large: {size:,} bytes")
        yield file, size


# ---------------------------------------------------------------- writing


def _json(said: Settings) -> bytes:
    return json.dumps(said.model_dump(mode="json"), indent=2).encode() + b"\n"


def _saved(weights: Mapping[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: w.contiguous() for name, w in weights.items()}, {"format": "pt"})


def _check_place(folder: Path, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier export."""
    try:
        found = set(os.listdir(folder))
    except FileNotFoundError:
        return
    if found and not overwrite:
        raise FormatError("it is not empty; pass another folder, or overwrite=True")
    if not found <= set(_FILES):
        raise FormatError("it holds other files than an export's, which are not overwritten")


def _publish(contents: Iterable[tuple[str, bytes]], folder: Path, overwrite: bool) -> None:
    """Write a folder beside its place, then rename it there.

    Nobody sees part of it, even after a power cut; while an earlier one is replaced, there is for
    a moment none. What a killed writer leaves is named `.export-*.tmp`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=".export-", suffix=".tmp", ignore_cleanup_errors=True
    ) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir(mode=0o700)
        for name, data in contents:
            write_synced(new / name, data)
        sync_folder(new)
        with suppress(FileNotFoundError):
            # An empty folder is removed and not moved: another writer may have filled it by now.
            folder.rename(old) if overwrite else folder.rmdir()
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    sync_folder(folder.parent)


@contextmanager
def _store_errors(failed: str) -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise StoreError(f"{failed}: {error}") from None
    except OSError as error:
        raise StoreError(f"{failed}: {error.strerror or 'it failed'}") from None
