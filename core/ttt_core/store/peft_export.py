"""An adapter of the store to a folder that PEFT loads; see `peft_folder`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.config import Settings
from ttt_core.errors import ConfigError
from ttt_core.files import sync_folder, write_synced
from ttt_core.namespace import Namespace
from ttt_core.store.factors import Factors, as_factors
from ttt_core.store.format import FormatError, StoredAdapter
from ttt_core.store.peft_folder import (
    FILES,
    ALoRA,
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
    with store_errors(f"cannot write {folder}"):
        _check_place(folder, overwrite)
        check_finite(entry.weights)
        factors = as_factors(entry, rank)
        config = PEFTConfig(
            base_model_name_or_path=entry.base_model or None,
            r=factors.rank,
            lora_alpha=factors.alpha,
            target_modules=targets_of(modules_of(_shapes_of(factors.weights), factors.rank)),
            layers_to_transform=entry.identity.config.layers_to_transform,
            alora_invocation_tokens=None if alora is None else alora.invocation_tokens,
        )
        weights = _saved(factors.weights)
        about = _about(entry, namespace, factors, weights, alora)
        contents = zip(FILES, (_json(config), weights, _json(about)), strict=True)
        _publish(contents, folder, overwrite)
    return ExportReport(
        folder=folder,
        key=about.key,
        rank=factors.rank,
        exact=about.exact,
        relative_error=about.relative_error,
        relative_errors=about.relative_errors,
    )


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
    return about.model_copy(update={"checksum": checksum_of(about)})


def _alora(tokens: Sequence[int] | None) -> ALoRA | None:
    if tokens is None:
        return None
    if not tokens or any(type(token) is not int or token < 0 for token in tokens):
        raise ConfigError("alora_invocation_tokens takes one or more token ids")
    return ALoRA(invocation_tokens=tuple(tokens))


def _shapes_of(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


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
    if not found <= set(FILES):
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
        try:
            with suppress(FileNotFoundError):
                # An empty folder is removed, not moved: another writer may have filled it by now.
                folder.rename(old) if overwrite else folder.rmdir()
            new.rename(folder)
        except BaseException:  # Ctrl-C, too: what is in `old` goes with this block.
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
    sync_folder(folder.parent)
