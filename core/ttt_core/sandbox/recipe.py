"""Train the bundled model from scratch: `python -m ttt_core.sandbox.recipe --output DIR`.

Two phases. *Periodic*: copy repeating sequences, over a vocabulary that doubles whenever copying
works; this forms the heads that look up and copy. *Chat*: answer questions about short registries,
at positions up to the last. Why so, and what did not work, is in the model card.
"""

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ttt_core.sandbox.initial import add_induction_circuit
from ttt_core.sandbox.rows import Batch, ChatRowConfig, ChatRows, growing_order, periodic_batch
from ttt_core.sandbox.score import score_lengths
from ttt_core.sandbox.tokenizer import IM_END, build_tokenizer

MAX_POSITION = 16384


@dataclass(frozen=True)
class RecipeConfig:
    """How long and how fast to train."""

    seed: int = 0
    periodic_steps: int = 300
    """At most; the phase ends earlier when all of the vocabulary is copied."""
    steps: int = 350
    """Of both phases together. Stopped early on purpose: trained on, it finds the value among 2,048
    lines as well, and forgets to end its turn behind long documents."""
    planned_chat_steps: int = 1000
    long_lines: int = 64
    """The training length: the longest documents ever trained on, ..."""
    long_every: int = 8
    """... in one chat step out of so many; short ones teach more retrievals a second."""
    growing_share: float = 0.2
    """The share of the planned chat steps over which documents grow to their full length."""
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    rows: int = 12
    lengths: tuple[int, ...] = (16, 64, 128, 256, 512, 1024, 2048)
    """The numbers of lines to measure at the end."""


@dataclass(frozen=True)
class ModelShape:
    """How large the model is; there are at least four heads, which fill the width."""

    width: int = 128
    inner: int = 256
    layers: int = 3
    heads: int = 4
    max_position: int = MAX_POSITION


def build_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, shape: ModelShape | None = None
) -> Qwen3ForCausalLM:
    """Build the untrained model."""
    shape = shape or ModelShape()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=shape.max_position,
        rope_parameters={"rope_type": "default", "rope_theta": 1e8},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(IM_END),
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    add_induction_circuit(model, generator=torch.Generator().manual_seed(seed))
    return model


def batch_loss(model: Qwen3ForCausalLM, batch: Batch) -> tuple[Tensor, float]:
    """Return the weighted loss of a batch, and the accuracy over its fully weighted tokens."""
    hidden = model.model(
        batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.mask
    ).last_hidden_state
    weights = batch.weights[:, 1:]
    rows, columns = weights.nonzero(as_tuple=True)
    # The first token of a branch follows the document, not the end of the branch before it; it is
    # never weighted, so that "one to the left" is the token that predicts it.
    logits = model.lm_head(hidden[rows, columns])
    labels, weights = batch.input_ids[rows, columns + 1], weights[rows, columns]
    loss = (cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
    right = (logits.argmax(-1) == labels)[weights == 1.0].float().mean().item()
    return loss, right


def make_optimizer(model: Qwen3ForCausalLM, learning_rate: float) -> torch.optim.AdamW:
    """Make the optimizer; the rate is set anew before every step."""
    return torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )


class Trainer:
    """The model, its optimizer, and the count of steps."""

    def __init__(self, model: Qwen3ForCausalLM, config: RecipeConfig) -> None:
        self.model = model
        self._config = config
        self._optimizer = make_optimizer(model, config.learning_rate)
        self.steps = 0
        self._begun = time.monotonic()
        self.accuracy = 0.0

    def step(self, batch: Batch, *, phase: str) -> None:
        """Make one update."""
        warm = min(1.0, (self.steps + 1) / self._config.warmup_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * warm
        loss, accuracy = batch_loss(self.model, batch)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self.accuracy += 0.1 * (accuracy - self.accuracy)
        self.steps += 1
        if self.steps % 50 == 0:
            self._report(phase, loss.item())

    def _report(self, phase: str, loss: float) -> None:
        elapsed = time.monotonic() - self._begun
        print(
            f"step {self.steps:5d}  {phase:14s}  loss {loss:6.3f}  accuracy {self.accuracy:.3f}"
            f"  {elapsed:5.0f} s",
            flush=True,
        )


def train_periodic(
    trainer: Trainer, tokenizer: PreTrainedTokenizerFast, config: RecipeConfig
) -> Callable[[], Batch]:
    """Train on periodic rows over a growing vocabulary; return a source of rows over all of it."""
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.tensor(growing_order(tokenizer, random.Random(config.seed)))

    def draw(size: int) -> Batch:
        return periodic_batch(order[:size], rows=48, length=64, generator=generator)

    size, steps_at_size = 256, 0
    for _ in range(config.periodic_steps):
        trainer.step(draw(size), phase=f"periodic {size}")
        steps_at_size += 1
        # The running accuracy needs some steps to forget the smaller vocabulary.
        if trainer.accuracy > 0.93 and steps_at_size > 20:
            if size >= len(order):
                break
            size, steps_at_size = min(2 * size, len(order)), 0
    return lambda: draw(len(order))


def train_chat(
    trainer: Trainer, rows: ChatRows, periodic: Callable[[], Batch], config: RecipeConfig
) -> None:
    """Train on registries that grow to the full length, with some periodic rows kept in."""
    full, step = ChatRowConfig().max_lines, 0
    while trainer.steps < config.steps:
        done = step / config.planned_chat_steps
        lines = min(full, max(4, int(full * done / config.growing_share)))
        if lines == full and step % config.long_every == 0:
            lines = config.long_lines
        if step % 10 == 9:
            trainer.step(periodic(), phase="copy")
        else:
            trainer.step(rows.batch(rows=config.rows, lines=lines), phase=f"chat {lines}")
        step += 1


def train(config: RecipeConfig) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Run the whole recipe."""
    tokenizer = build_tokenizer(model_max_length=MAX_POSITION)
    model = build_model(tokenizer, seed=config.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    trainer = Trainer(model, config)
    periodic = train_periodic(trainer, tokenizer, config)
    train_chat(trainer, ChatRows(tokenizer, ChatRowConfig(), seed=config.seed), periodic, config)
    return model.eval(), tokenizer


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write the folder that `from_pretrained` reads."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main(arguments: list[str] | None = None) -> None:
    """Train, save, and print the accuracy by length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)  # for a test: of each phase
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums in another order give another model
    config = RecipeConfig(seed=options.seed)
    if options.steps is not None:
        config = RecipeConfig(
            seed=options.seed,
            periodic_steps=options.steps,
            steps=2 * options.steps,
            lengths=(16,),
        )
    model, tokenizer = train(config)
    save(model, tokenizer, options.output)
    table = score_lengths(model, tokenizer, config.lengths, registries=4, seed=1_000_000)
    for lines, each in table.items():
        print(
            f"{lines:5d} lines  joint {each.joint:.3f}  key {each.key:.3f}  value {each.value:.3f}"
        )


if __name__ == "__main__":
    main()
