"""Load a model and its tokenizer: a local folder, a Hub id, or the bundled model.

Importing this file is cheap: torch and transformers load when a model does.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttt_core.errors import ConfigError, ModelLoadError, TTTError
from ttt_core.sandbox import bundled_model_path

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)


def default_model() -> str:
    """`$TTT_MODEL`, or the bundled model's folder."""
    return os.environ.get("TTT_MODEL") or str(bundled_model_path())


def settled(model: str) -> str:
    """Return a folder's absolute path, so that it stays the folder that it is now; else `model`.

    The model may be loaded after this process has changed its directory, or by another process.
    """
    return os.path.abspath(model) if os.path.isdir(model) else model


def peek_window(model: str, revision: str | None = None) -> int | None:
    """Return a model's window as its config.json tells it, if that is on this machine; else None.

    Loads no weights, no transformers, and asks nobody.
    """
    file: Any = Path(model) / "config.json"
    if not file.is_file():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            file = try_to_load_from_cache(model, "config.json", revision=revision)
        except HFValidationError:  # A folder that is not there.
            return None
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        window = config.get("text_config", config)["max_position_embeddings"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return window if isinstance(window, int) else None


def load(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load weights (safetensors only) and tokenizer; run no code that comes with them.

    Raises:
        ModelLoadError: Not found, not reachable, incomplete or damaged.
        ConfigError: No such dtype or device.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"revision": revision} if revision else {}
    target, number_format = _device(device), _dtype(dtype)
    _LOG.info("loading %s", model)
    started = time.perf_counter()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **options)
        with _progress_bars_on_terminals():
            loaded = AutoModelForCausalLM.from_pretrained(
                model, dtype=number_format, use_safetensors=True, trust_remote_code=False, **options
            )
    except TTTError:
        raise
    except Exception as error:  # transformers raises a dozen types for one damaged folder.
        raise _load_error(model, error) from error
    try:
        torch.nn.Module.to(loaded, target)
    except (AssertionError, NotImplementedError) as error:  # torch was built without it.
        raise ConfigError(f"device {device!r} cannot be used here: {_first_line(error)}") from None
    _LOG.info("loaded %s in %.1f s", model, time.perf_counter() - started)
    return loaded.eval(), tokenizer


@contextmanager
def _progress_bars_on_terminals() -> Iterator[None]:
    """Keep transformers' progress bars out of logs."""
    from transformers.utils import logging

    quiet = not sys.stderr.isatty() and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if quiet:
            logging.enable_progress_bar()


def _load_error(model: str, error: Exception) -> ModelLoadError:
    path = Path(model)
    looks_local = path.is_absolute() or model.startswith((".", "~")) or path.exists()
    if looks_local and not path.is_dir():
        return ModelLoadError(
            f"there is no model folder {model}; expected a folder with config.json, "
            f"*.safetensors and a tokenizer, or the id of a model on the Hub"
        )
    if looks_local:
        return ModelLoadError(
            f"the model in {model} cannot be loaded ({type(error).__name__}: "
            f"{_first_line(error)}); expected config.json, *.safetensors and a tokenizer, undamaged"
        )
    return ModelLoadError(
        f"cannot load {model!r} from the Hub ({type(error).__name__}: {_first_line(error)}); check "
        f"the id and the connection, or pass the path of a local model folder"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]


def _device(name: str) -> torch.device:
    import torch

    _check_fork(name)
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"unknown device {name!r}; expected 'auto', 'cpu', 'cuda', 'cuda:0', 'mps', ..."
        ) from None


def _check_fork(name: str) -> None:
    """Say what to do where an accelerator's driver refuses; `auto` would silently take the CPU.

    Raises:
        ModelLoadError: The device cannot be used since this process was forked.
    """
    import torch

    for device in ("cuda", "xpu", "mps"):
        accelerator = getattr(torch, device, None)
        is_in_bad_fork = getattr(accelerator, "_is_in_bad_fork", None)
        if not name.startswith(("auto", device)) or not is_in_bad_fork or not is_in_bad_fork():
            continue
        # Builds for an accelerator say so after every fork, also where there is none to be used.
        if accelerator is not None and accelerator.device_count() > 0:
            raise ModelLoadError(
                f"this process was forked from one that had used {device!r}, and cannot use it "
                f"itself; start it with the method 'spawn' or 'forkserver' (see multiprocessing."
                f"get_context), or make the engine with device='cpu'"
            )


def _dtype(name: str) -> torch.dtype | str:
    import torch

    if name == "auto":
        return name
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(
            f"unknown dtype {name!r}; expected 'auto', 'float32', 'bfloat16' or 'float16'"
        )
    return dtype
