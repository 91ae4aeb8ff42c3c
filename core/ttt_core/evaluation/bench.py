"""What arms share: a model, the task, and the example that was read once for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ttt_core import flops
from ttt_core.config import AdaptationConfig, GenerationConfig
from ttt_core.errors import ConfigError
from ttt_core.evaluation.records import content_hash
from ttt_core.fingerprint import text_fingerprint
from ttt_core.sandbox import bundled_model_path

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.engine import TTTEngine
    from ttt_core.examples import Example, Task
    from ttt_core.generate import Answer
    from ttt_core.loaded import LoadedModel
    from ttt_core.queries import Architecture
    from ttt_core.reasoning import ThinkingTags


@dataclass
class _Read:
    """An example that was read, and how long that took."""

    content: str
    document: AdaptedDocument
    seconds: float


class Bench:
    """One model at work on one task.

    Args:
        engine: Its store keeps what is learned, so that a resumed run does not learn it again.
        task: Whose questions are answered.

    Raises:
        ConfigError: The engine would cut documents that are too long: results would not say so.
    """

    def __init__(self, engine: TTTEngine, task: Task) -> None:
        if (action := engine.runtime.on_overflow) != "error":
            raise ConfigError(
                f"evaluations ask about whole documents; make the engine with on_overflow='error', "
                f"not {action!r}"
            )
        self.engine = engine
        self.task = task
        self._read: _Read | None = None

    def read(self, example: Example) -> AdaptedDocument:
        """Return the example's document, read by the base model; once for all arms.

        Raises:
            DocumentTooLongError, OutOfMemoryError: See `TTTEngine.read`.
        """
        return self._reading(example).document

    def read_seconds(self, example: Example) -> float:
        """Seconds that reading it took, whoever of the arms was the first."""
        return self._reading(example).seconds

    def read_flops(self, example: Example) -> float:
        """FLOPs of reading it."""
        return flops.prefill_flops(self.architecture, self.read(example).n_tokens)

    def chunks(self, example: Example) -> list[str]:
        """Cut the example's document into passages for retrieval; needs no reading."""
        from ttt_core.supervision.chunks import cut_chunks
        from ttt_core.supervision.passages import TokenizedDocument

        chat, tokenizer = self._loaded.chat, self._loaded.tokenizer
        prompt = chat.prefix(example.document)
        tokens = TokenizedDocument.of(prompt, chat, tokenizer)
        return [
            chat.decode(tokens.input_ids[chunk.start : chunk.end]).strip()
            for chunk in cut_chunks(tokens)
        ]

    def rooms(self, example: Example) -> list[int]:
        """Return how many tokens the answer to each question may have."""
        own = (question.max_new_tokens for question in example.questions)
        return [self.task.max_new_tokens if room is None else room for room in own]

    def ask(
        self,
        document: AdaptedDocument | None,
        prompts: Sequence[str],
        rooms: Sequence[int],
        **options: Any,
    ) -> list[Answer]:
        """Answer prompts; those with the same room together.

        Args:
            document: What is read; None: nothing.
            prompts: The questions.
            rooms: How many tokens each answer may have.
            options: Of `GenerationConfig`; without them, greedy.

        Raises:
            PromptTooLongError, OutOfMemoryError: See `TTTEngine.generate`.
        """
        alike: dict[int, list[int]] = {}
        for index, (_, room) in enumerate(zip(prompts, rooms, strict=True)):
            alike.setdefault(room, []).append(index)
        answers: dict[int, Answer] = {}
        for room, members in alike.items():
            # A model that always thinks would spend the room for its answer on it: who is to
            # think says so.
            config = GenerationConfig(max_new_tokens=room, thinking_budget=0)
            asked = [prompts[index] for index in members]
            made = self.engine.generate_batch(document, asked, config=config, **options)
            answers |= zip(members, made, strict=True)
        return [answers[index] for index in range(len(prompts))]

    def forget(self) -> None:
        """Let go of what was read: the next example has the memory to itself."""
        self._read = None
        self.engine.reset()

    @property
    def architecture(self) -> Architecture:
        """Sizes that FLOPs are computed from."""
        return self._loaded.runtime.architecture

    @property
    def thinking_tags(self) -> ThinkingTags | None:
        """Tags that the model's own template writes around thinking; None: it knows none."""
        return self._loaded.chat.thinking_tags

    @property
    def model_name(self) -> str:
        """The Hub id, or the last part of the folder's path: the rest says where, not what."""
        if self.engine.name == str(bundled_model_path()):
            return "bundled"
        name = self.engine.name or self._loaded.name or type(self._loaded.runtime.model).__name__
        name = name.rstrip("/\\")
        is_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
        return name.replace("\\", "/").rpartition("/")[2] if is_path else name

    @cached_property
    def weights(self) -> str:
        """Hash of weights, tokenizer and chat template."""
        from ttt_core.chat import NO_PREFIX

        found = self._loaded.identity(NO_PREFIX, AdaptationConfig(), self.engine.namespace)
        return text_fingerprint(f"{found.base} {found.tokenizer} {found.template}")

    @property
    def threads(self) -> int:
        """Threads of torch."""
        import torch

        return torch.get_num_threads()

    @property
    def device(self) -> str:
        """Where the model is."""
        return str(self._loaded.runtime.model.device)

    @property
    def _loaded(self) -> LoadedModel:
        return self.engine.loaded

    def _reading(self, example: Example) -> _Read:
        content = content_hash(example)
        if self._read is None or self._read.content != content:
            started = time.perf_counter()
            document = self.engine.read(example.document)
            self._read = _Read(content, document, time.perf_counter() - started)
        return self._read
