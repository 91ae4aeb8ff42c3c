"""One question asked behind one prefix, watched: attention on the needle, and the answer's loss."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from ttt_core.asking import encode_prompts
from ttt_core.config import GenerationConfig
from ttt_core.diagnostics.attention_mass import LayerAttention, layer_attention
from ttt_core.diagnostics.lemmas import demanded_lead
from ttt_core.errors import PromptTooLongError

if TYPE_CHECKING:
    import torch

    from ttt_core.adapter import QueryAdapter
    from ttt_core.attention.base import Seen
    from ttt_core.chat import PromptPrefix
    from ttt_core.loaded import LoadedModel
    from ttt_core.prefix import FrozenPrefix

Quantity: TypeAlias = Literal["mass", "margin", "lead", "own"]
"""What `LayerAttention` holds by head and query."""


@dataclass(frozen=True)
class Tail:
    """A question and maybe its true answer, as they stand behind a document.

    Attributes:
        question: Tokens between the document and the answer.
        answer: The true answer's tokens; empty: not known.
    """

    question: tuple[int, ...] = field(repr=False)
    answer: tuple[int, ...] = field(default=(), repr=False)

    @property
    def input_ids(self) -> tuple[int, ...]:
        """What goes through the model: the answer's last token predicts nothing of it."""
        return (*self.question, *self.answer[:-1])

    @property
    def queries(self) -> range:
        """The tokens that predict the answer: the last one before it, then its own."""
        return range(len(self.question) - 1, len(self.input_ids))


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was seen in every layer while the answer was predicted.

    Attributes:
        layers: Attention on the needle, first layer first.
        losses: Loss of each token of the true answer, nats; empty if it is not known.
        likeliest: Which of them the model would have written itself, greedily.
    """

    layers: tuple[LayerAttention, ...]
    losses: tuple[float, ...]
    likeliest: tuple[bool, ...]

    def grid(self, name: Quantity, query: int | None = None) -> torch.Tensor:
        """Return a quantity by layer and head, shape (n_layers, n_heads).

        Args:
            name: See `LayerAttention`.
            query: At which query; 0 is the last token before the answer. None: the mean over all;
                a margin that is -inf at one of them is so on average.
        """
        import torch

        values = torch.stack([getattr(layer, name) for layer in self.layers])
        return values.mean(-1) if query is None else values[..., query]

    def by_query(self) -> torch.Tensor:
        """Return the mean mass over all layers and heads at each query, shape (n_queries,)."""
        import torch

        return torch.stack([layer.mass for layer in self.layers]).mean((0, 1))

    def by_token(self) -> torch.Tensor:
        """Return the mass of each prefix token over layers, heads and queries, (n_prefix,)."""
        import torch

        return torch.stack([layer.by_token for layer in self.layers]).mean(0)

    @property
    def rivals(self) -> int:
        """The most keys besides the needle that any query sees in any layer."""
        return max(int(layer.rivals.max()) for layer in self.layers)

    def demanded(self, epsilon: float) -> float:
        """Return the lead over the best rival that is enough for mass 1 - epsilon."""
        return demanded_lead(self.rivals, epsilon)

    @property
    def loss(self) -> float | None:
        """Mean loss of the true answer, nats per token; None: it is not known."""
        return sum(self.losses) / len(self.losses) if self.losses else None


def make_tail(
    loaded: LoadedModel, prompt: PromptPrefix, question: str, answer: Sequence[int]
) -> Tail:
    """Tokenise a question behind a document.

    Args:
        loaded: The model.
        prompt: System prompt and document.
        question: What is asked.
        answer: The true answer's tokens; empty: not known.

    Raises:
        ConfigError: The question is empty.
        PromptTooLongError: Document, question and answer do not fit the window.
    """
    [asked] = encode_prompts(loaded, prompt, [question], GenerationConfig())
    window, n_prefix = loaded.runtime.architecture.window, len(prompt.input_ids)
    if n_prefix + len(asked) + max(len(answer), 1) > window:
        raise PromptTooLongError(
            prefix=n_prefix, suffix=len(asked), max_new_tokens=max(len(answer), 1), window=window
        )
    return Tail(tuple(asked), tuple(answer))


def measure(
    loaded: LoadedModel,
    prefix: FrozenPrefix,
    tail: Tail,
    needle: Collection[int],
    adapter: QueryAdapter | None,
) -> Measurement:
    """Predict the answer once and look at every layer.

    Args:
        loaded: The model.
        prefix: What was read.
        tail: What is asked.
        needle: Tokens of the prefix.
        adapter: Of this document, or of another one; None: the base model.

    Raises:
        UnsupportedModelError: The model's attention cannot be looked into.
    """
    import torch
    from torch.nn import functional

    from ttt_core.packed import IGNORE, PackedBatch

    found: list[LayerAttention] = []

    def observe(seen: Seen) -> None:
        found.append(layer_attention(seen, tail.queries, needle))

    # Without an answer the label only marks the token: 0 is some token.
    labels = [IGNORE] * tail.queries.start + list(tail.answer or (0,))
    batch = PackedBatch.of_tails([tail.input_ids], [labels], start=len(prefix))
    runtime = loaded.runtime
    with runtime.turn(adapter) as model, torch.no_grad():
        logits = runtime.attention.forward_batch(model, prefix, batch, observer=observe)
        targets = batch.targets.to(logits.device)
        losses = functional.cross_entropy(logits, targets, reduction="none").tolist()
        hits = (logits.argmax(-1) == targets).tolist()
    known = bool(tail.answer)
    return Measurement(tuple(found), tuple(losses) * known, tuple(hits) * known)
