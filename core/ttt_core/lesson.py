"""What one adaptation is given, on what it trains, and what it minimises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ttt_core.adapter import QueryAdapter
from ttt_core.objectives import (
    AttentionObjective,
    Objective,
    attention_batch,
    next_token_loss,
    supervised_layer,
)
from ttt_core.supervision import Given, Passage, TokenizedDocument, get_supervision

if TYPE_CHECKING:
    import torch

    from ttt_core.config import AdaptationConfig
    from ttt_core.frozen_base import FrozenBase
    from ttt_core.packed import PackedBatch
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.runtime import Runtime


@dataclass(frozen=True)
class Task:
    """What is adapted to what, fixed for one adaptation.

    Attributes:
        runtime: The model.
        prefix: The document's keys and values.
        document: The document's tokens and passages.
        generic: Tokenised generic questions for the drift.
        config: The recipe.
        base: The base model behind the document.
        chunk: Tokens per forward and backward pass.
        question: What will be asked; None: anything.
        start: Weights to begin with, those that the document alone taught; None: no change.
    """

    runtime: Runtime
    prefix: FrozenPrefix
    document: TokenizedDocument
    generic: Sequence[Sequence[int]]
    config: AdaptationConfig
    base: FrozenBase
    chunk: int = 1024
    question: str | None = None
    start: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)

    def new_adapter(self) -> QueryAdapter:
        """Return what training begins with."""
        adapter = QueryAdapter.create(self.runtime.architecture.projections, self.config)
        if self.start is not None:
            adapter.load_state_dict(self.start)
        return adapter


class Lesson:
    """The batches of one adaptation, and the objective that goes with them.

    Args:
        task: The task.
        held_out: Passages that are not trained on, unless it is for a question.
    """

    def __init__(self, task: Task, held_out: Sequence[Passage]) -> None:
        self._task = task
        if task.config.needs_question:
            held_out = ()  # The passages that answer it may be among them; see `ttt_core.gate`.
        given = Given(task.document, held_out, task.config, task.question, task.base)
        self._supervision = get_supervision(task.config.supervision)(given)
        self.objective: Objective = next_token_loss
        self._asked: PackedBatch | None = None  # The question that is taught where to look.
        self._blind_layer: int | None = None
        if task.config.objective == "attention":
            self._teach_attention()

    @property
    def fallback(self) -> bool:
        """Whether the supervision found nothing of its own, and trains on something simpler."""
        return bool(getattr(self._supervision, "fallback", False))

    @property
    def nothing(self) -> str:
        """Why there are no batches, where there are none."""
        name = self._task.config.supervision
        if self._blind_layer is not None:
            return (
                f"the question sees nothing of what {name} supervision selected: the sliding "
                f"window of layer {self._blind_layer}, which would be taught to look there, "
                f"does not reach so far"
            )
        if self._task.config.objective == "attention":
            return f"{name} supervision selected nothing in the document for this question"
        return f"the document is too short or too uniform for {name} supervision"

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches without end, or none if there is nothing to train on."""
        if self._task.config.objective == "next_token":
            yield from self._supervision.batches()
        while self._asked is not None:
            yield self._asked

    def _teach_attention(self) -> None:
        """Prepare to teach where to look, if there is something to look at."""
        task, n_tokens = self._task, len(self._task.prefix)
        selected: Sequence[Passage] = getattr(self._supervision, "selected", ())
        if not selected:
            return
        windows = task.runtime.architecture.layer_windows
        layer = supervised_layer(windows, task.config.layers_to_transform)
        objective = AttentionObjective(selected, layer=layer, n_tokens=n_tokens)
        asked = attention_batch(task.base.chat_tail(task.question or ""), start=n_tokens)
        if not len(objective.taught(asked, windows[layer])):
            self._blind_layer = layer
            return
        self.objective, self._asked = objective, asked
