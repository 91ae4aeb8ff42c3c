"""The tokenizer of the larger sandbox model: byte-level BPE, trained on what the model will read.

As in the bundled one, a space belongs to the word before it and a newline stands alone. Digits and
capitals are tokens of their own, so that a made-up name such as `QKRTB` is spelled the same
wherever it stands, and copying it is copying letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ttt_core.sandbox.larger.config import LargerConfig
from ttt_core.sandbox.larger.lessons import Lessons
from ttt_core.sandbox.larger.source_text import modules
from ttt_core.sandbox.tokenizer import chat_tokenizer
from ttt_core.sandbox.words import adjectives, nouns, places

PIECES = r"\p{Lu}?\p{Ll}+ ?|\p{L}|\p{N}|[^\s\p{L}\p{N}]+ ?|\n| +|\s"
"""Words of lower case, with one capital at most; else letters, digits, punctuation, newlines."""

_LESSONS = 400
_MOST_REPEATS = 1000
_CHARS_A_REPEAT = 500
"""The words of keys and values come once for so many characters of sources, so that they become
tokens."""


def train_tokenizer(config: LargerConfig) -> PreTrainedTokenizerFast:
    """Train it; the same settings on the same Python give the same one."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_texts(config), trainer)
    return chat_tokenizer(core, model_max_length=config.data.max_position)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read back what was saved."""
    loaded = AutoTokenizer.from_pretrained(folder)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def _texts(config: LargerConfig) -> Iterator[str]:
    """Yield sources, lessons and the sandbox's words."""
    for lines in modules(config.data.source_chars):
        yield "\n".join(lines)
    lessons = Lessons(config.data, Random(config.data.seed))
    for _ in range(_LESSONS):
        lesson = lessons.draw(1.0)
        yield lesson.example.document
        yield from (question.text for question in lesson.example.questions)
        yield from lesson.answers
    repeats = min(_MOST_REPEATS, config.data.source_chars // _CHARS_A_REPEAT)
    for word in (*adjectives(), *nouns(), *places()):
        yield f"{word} " * repeats
        yield f"{word}\n" * repeats
