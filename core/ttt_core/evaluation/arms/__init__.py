"""Ways to answer, by name: `qttt`, or `qttt:supervision=recurrence,gate=false`.

Light to import: an arm's module is loaded when the arm is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError
from ttt_core.evaluation.arms.base import Arm
from ttt_core.evaluation.arms.options import make_options, split_spec

_ARMS = {
    "in-context": ("in_context", "InContext"),
    "thinking": ("thinking", "Thinking"),
    "self-consistency": ("self_consistency", "SelfConsistency"),
    "bm25": ("bm25", "Bm25"),
    "bm25-only": ("bm25", "Bm25Only"),
    "qttt": ("qttt", "Qttt"),
    "qttt+thinking": ("qttt", "QtttAndThinking"),
    "lr-zero": ("lr_zero", "LearningRateZero"),
    "chance": ("in_context", "Chance"),
}
"""Module and class of each arm."""

_SYNONYMS = {
    "base": "in-context",
    "icl": "in-context",
    "none": "in-context",
    "ttt": "qttt",
    "adapted": "qttt",
    "rag": "bm25",
    "retrieval": "bm25",
    "cot": "thinking",
    "scratchpad": "thinking",
    "sc": "self-consistency",
    "majority": "self-consistency",
    "random": "chance",
    "guess": "chance",
    "noop": "lr-zero",
    "zero": "lr-zero",
}


def arm_names() -> tuple[str, ...]:
    """Return the names of all arms."""
    return tuple(_ARMS)


def arm_description(name: str) -> str:
    """Return what an arm does, in one line.

    Raises:
        ConfigError: There is no such arm.
    """
    return str(_kind(name).description)


def parse_arm(spec: str) -> Arm:
    """Return the arm that is typed so: a name, or `name:option=value,option=value`.

    Raises:
        ConfigError: There is no such arm or option, or the option cannot have that value.
    """
    name, given = split_spec(spec)
    return make_arm(name, given)


def make_arm(name: str, given: Mapping[str, str]) -> Arm:
    """Return an arm by name with options as they are typed; errors as for `parse_arm`."""
    kind = _kind(name)
    return cast("Arm", kind(make_options(kind.options_kind, name, dict(given))))


def _kind(name: str) -> Any:
    if name not in _ARMS:
        raise ConfigError(unknown_name("arm", name, _ARMS, "the arms are", _SYNONYMS))
    module, kind = _ARMS[name]
    return getattr(import_module(f"{__name__}.{module}"), kind)


__all__ = ["Arm", "arm_description", "arm_names", "make_arm", "parse_arm"]
