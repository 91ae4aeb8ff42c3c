"""A folder that `peft_export` wrote, back to an adapter of the store; see `peft_folder`.

Trusts nothing: not the folder's files, their sizes, or what they say of each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from pydantic import ValidationError

from ttt_core.config import Settings
from ttt_core.locks import OPEN_FLAGS
from ttt_core.namespace import Namespace
from ttt_core.store.format import FormatError, StoredAdapter, check_shapes
from ttt_core.store.peft_folder import (
    ABOUT_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    PEFTConfig,
    QTTTFolder,
    check_finite,
    checksum_of,
    modules_of,
    store_errors,
    targets_of,
)

if TYPE_CHECKING:
    import torch

MAX_JSON_BYTES = 8 << 20
MAX_WEIGHTS_BYTES = 4 << 30
"""More than rank 256 takes in the largest models."""

_Loaded = TypeVar("_Loaded", bound=Settings)


def import_adapter(folder: Path) -> tuple[StoredAdapter, QTTTFolder]:
    """Read an adapter that `peft_export.export_adapter` wrote.

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
    with store_errors(f"cannot import {folder}"):
        if not folder.is_dir():
            raise FormatError("it is no folder" if folder.exists() else "there is no such folder")
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


def _check_about(about: QTTTFolder) -> None:
    """Refuse what is damaged, what is no LoRA as it was trained, and what contradicts itself."""
    report, recipe = about.report, about.identity.config
    if about.checksum != checksum_of(about):
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
    if config.layers_to_transform != recipe.layers_to_transform:
        raise FormatError(f"layers_to_transform in {CONFIG_FILE} are not those of the recipe")
    invocation = about.alora and about.alora.invocation_tokens
    if config.alora_invocation_tokens != invocation:
        raise FormatError(f"{CONFIG_FILE} and {ABOUT_FILE} name different invocation tokens")


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
        if config.target_modules != targets_of(modules_of(shapes, config.r)):
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
    check_finite(weights)
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
