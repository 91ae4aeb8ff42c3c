"""Checkpoints: weights and optimizer as safetensors, the rest as JSON. Nothing is pickled.

A checkpoint is a folder that appears under its name when it is complete; an older one is removed
only then.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen3ForCausalLM

from ttt_core.errors import ConfigError, ModelLoadError
from ttt_core.sandbox.larger.config import LargerConfig
from ttt_core.sandbox.larger.state import TrainState

_PARTIAL = ".partial"


def save_checkpoint(
    folder: Path,
    model: Qwen3ForCausalLM,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    config: LargerConfig,
) -> None:
    """Write a checkpoint into `folder`, then remove the older ones."""
    older = _found(folder)
    name = f"step-{state.steps:08d}"
    partial = folder / f"{name}{_PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_on_cpu(model.state_dict()), partial / "model.safetensors")
    save_file(_on_cpu(_moments(optimizer)), partial / "optimizer.safetensors")
    text = json.dumps({"state": asdict(state), "config": asdict(config)}, indent=2)
    (partial / "state.json").write_text(text, encoding="utf-8")
    shutil.rmtree(folder / name, ignore_errors=True)
    os.replace(partial, folder / name)
    for each in older:
        if each.name != name:
            shutil.rmtree(each)


def load_checkpoint(
    folder: Path,
    model: Qwen3ForCausalLM,
    optimizer: torch.optim.Optimizer,
    config: LargerConfig,
) -> TrainState:
    """Read the newest checkpoint into model and optimizer; return where training was.

    Raises:
        ModelLoadError: There is none.
        ConfigError: It is of a run with other settings.
    """
    found = _found(folder)
    if not found:
        raise ModelLoadError(f"expected a checkpoint in {folder}, found none: leave out --resume")
    text = (found[-1] / "state.json").read_text(encoding="utf-8")
    read = json.loads(text)
    if read["config"] != json.loads(json.dumps(asdict(config))):
        raise ConfigError(
            f"the checkpoint in {folder} is of a run with other settings: give the same --size, "
            f"--seed and --steps, or another --output"
        )
    model.load_state_dict(load_file(found[-1] / "model.safetensors"))
    _restore(optimizer, load_file(found[-1] / "optimizer.safetensors"))
    return TrainState(**read["state"])


def _found(folder: Path) -> list[Path]:
    """List complete checkpoints, the oldest first."""
    return sorted(each for each in folder.glob("step-*") if each.suffix != _PARTIAL)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name the optimizer's tensors, `3.exp_avg` being that of the fourth parameter."""
    return {
        f"{parameter}.{name}": tensor
        for parameter, tensors in optimizer.state_dict()["state"].items()
        for name, tensor in tensors.items()
    }


def _restore(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
