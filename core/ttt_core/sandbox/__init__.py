"""The bundled sandbox: a tiny chat model, the documents it reads, and the recipe that trains it.

Light to import: nothing here loads torch.
"""

from pathlib import Path

from ttt_core.sandbox.registry import Question, Registry, is_correct, make_registry, value_correct

__all__ = [
    "Question",
    "Registry",
    "bundled_model_path",
    "is_correct",
    "make_registry",
    "value_correct",
]


def bundled_model_path() -> Path:
    """Return the folder of the bundled model, for `AutoModelForCausalLM.from_pretrained`."""
    return Path(__file__).parent / "model"
