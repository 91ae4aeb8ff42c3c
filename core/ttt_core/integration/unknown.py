"""What is said about an option that does not exist, and where it belongs if it is another's."""

from __future__ import annotations

from collections.abc import Iterable

from ttt_core.config import AdaptationConfig, RuntimeConfig, unknown_name

_SYNONYMS = {
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "stop_sequences": "stop",
    "frequency_penalty": "repetition_penalty",
    "presence_penalty": "repetition_penalty",
    "reasoning": "enable_thinking",
    "reasoning_effort": "enable_thinking",
}
"""What other classes call it."""

_OF_ENGINES = ("adaptation", "runtime", "store", "template_kwargs")
"""Arguments of `TTTEngine.from_pretrained` that are no options here."""


def say_unknown(name: str, known: Iterable[str]) -> str:
    """Say what is wrong with an option, and where it belongs if it is another object's."""
    if name == "local_files_only":
        return (
            f"unknown option {name!r}; set the environment variable HF_HUB_OFFLINE=1 before the "
            f"program starts: models then come from this machine only"
        )
    if argument := _argument_of_engines(name):
        made = f"engine=TTTEngine.from_pretrained(model, {argument})"
        return f"unknown option {name!r}; it is the engine's: make the object with {made}"
    return unknown_name("option", name, known, "the options are", _SYNONYMS)


def _argument_of_engines(name: str) -> str | None:
    """How an option is passed to an engine; None: not at all."""
    if name in AdaptationConfig.model_fields:
        return f"adaptation=AdaptationConfig({name}=...)"
    if name in RuntimeConfig.model_fields:
        return f"runtime=RuntimeConfig({name}=...)"
    return f"{name}=..." if name in _OF_ENGINES else None
