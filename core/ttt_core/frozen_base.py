"""The base model behind a document, for supervisions that ask it something before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ttt_core.chat import as_messages
from ttt_core.config import GenerationConfig
from ttt_core.errors import PromptTooLongError
from ttt_core.generate import Request, Row
from ttt_core.lazy import lazy_property
from ttt_core.output import OutputReader
from ttt_core.packed import PackedBatch
from ttt_core.progress import Progress, ProgressCallback, ignore_progress
from ttt_core.scheduler import Scheduler

if TYPE_CHECKING:
    from ttt_core.chat import PromptPrefix
    from ttt_core.loaded import LoadedModel
    from ttt_core.prefix import FrozenPrefix


class FrozenBase:
    """What the base model says about a document that it has read; see `supervision.BaseReader`.

    Args:
        model: The model.
        prompt: System prompt and document.
        prefix: Their keys and values.
        chunk: Tokens per forward pass.
        on_progress: Hears of the stage `prepare`.

    Attributes:
        computed_tokens: Tokens that went through the model so far.
    """

    def __init__(
        self,
        model: LoadedModel,
        prompt: PromptPrefix,
        prefix: FrozenPrefix,
        *,
        chunk: int,
        on_progress: ProgressCallback = ignore_progress,
    ) -> None:
        self.computed_tokens = 0
        self._on_progress = on_progress
        self._model = model
        self._prompt = prompt
        self._prefix = prefix
        self._chunk = chunk

    def token_losses(self) -> torch.Tensor:
        """Loss at each position, nats, fp32 on the CPU, shape (n_tokens,); NaN at the last."""
        return self._scores[0]

    def token_entropies(self) -> torch.Tensor:
        """Entropy of the next token at each position; as `token_losses`."""
        return self._scores[1]

    def answers(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """Answer user messages behind the document, greedily; "" where the window has no room."""
        answers = [""] * len(prompts)
        rows = {i: self._row(prompt, max_new_tokens) for i, prompt in enumerate(prompts)}
        fitting = {i: row for i, row in rows.items() if row is not None}
        self._run(list(fitting.values()), max_new_tokens)
        for index, row in fitting.items():
            answer = row.whole_answer()
            self.computed_tokens += answer.usage.computed_tokens
            answers[index] = answer.text
        return answers

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones."""
        return self._model.chat.encode_literal(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        return str(self._model.tokenizer.decode(list(ids), skip_special_tokens=True))

    def chat_tail(self, prompt: str) -> list[int]:
        """The tokens between the document and an answer to the user message `prompt`.

        Raises:
            PromptTooLongError: They and a token of an answer do not fit the window.
        """
        tail = self._tail(prompt)
        if self._room(tail) < 1:
            raise PromptTooLongError(
                prefix=len(self._prefix),
                suffix=len(tail),
                max_new_tokens=1,
                window=self._model.runtime.architecture.window,
            )
        return tail

    def _tail(self, prompt: str) -> list[int]:
        tail = self._model.chat.suffix(self._prompt, as_messages(prompt))
        return [*tail, *self._no_thought]

    def _room(self, tail: Sequence[int]) -> int:
        """Tokens of the window that are left for an answer."""
        return self._model.runtime.architecture.window - len(self._prefix) - len(tail)

    @lazy_property
    def _no_thought(self) -> list[int]:
        """What ends the thinking of models whose prompts begin it: there is no room for it here."""
        chat = self._model.chat
        if chat.thinking_tags is None or not chat.begins_thinking(enable_thinking=False):
            return []
        end = f"\n{chat.thinking_tags.end}\n\n"
        return list(self._model.tokenizer.encode(end, add_special_tokens=False))

    @lazy_property
    def _scores(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses and entropies of the whole prefix, one pass over it."""
        losses, entropies = [], []
        for loss, entropy in self._scored_chunks():
            losses.append(loss)
            entropies.append(entropy)
        last = torch.tensor([torch.nan])
        return torch.cat([*losses, last]), torch.cat([*entropies, last])

    def _scored_chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        ids = torch.tensor(self._prefix.input_ids)
        runtime = self._model.runtime
        for start in range(0, len(ids) - 1, self._chunk):
            at = torch.arange(start, min(start + self._chunk, len(ids) - 1))
            batch = PackedBatch(ids[at], at, ids[at + 1], segment_ids=None)
            with runtime.turn() as model, torch.no_grad():
                logits = runtime.attention.forward_batch(model, self._prefix, batch)
                labels = batch.targets.to(logits.device)
                loss = functional.cross_entropy(logits, labels, reduction="none")
                log = logits.log_softmax(-1)
                entropy = -(log.exp() * log).nan_to_num().sum(-1)
            self.computed_tokens += len(at)
            self._on_progress(Progress("prepare", start + len(at), len(ids) - 1))
            yield loss.cpu(), entropy.cpu()

    def _run(self, rows: Sequence[Row], max_new_tokens: int) -> None:
        """Let the model write, saying so at each step: who hears it may cancel."""
        if not rows:
            return
        total, last = len(rows) * max_new_tokens, len(rows)
        self._on_progress(Progress("prepare", 0, total))
        for index, _ in Scheduler(len(rows)).stream(rows):
            if index <= last:
                self._on_progress(Progress("prepare", sum(len(row.ids) for row in rows), total))
            last = index
        self._on_progress(Progress("prepare", total, total))

    def _row(self, prompt: str, max_new_tokens: int) -> Row | None:
        """Return what is to be decoded; None: the window has no room for it."""
        model, tail = self._model, self._tail(prompt)
        room = self._room(tail)
        if room < 1:
            return None
        request = Request(
            runtime=model.runtime,
            prefix=self._prefix,
            adapter=None,
            decode=model.chat.decoder(set(model.chat.thinking_tags or ())),
            eos_token_ids=model.eos_token_ids,
        )
        reader = OutputReader(model.chat.thinking_tags)
        config = GenerationConfig(max_new_tokens=max_new_tokens)
        return Row(request, tail, config, min(max_new_tokens, room), reader=reader)
