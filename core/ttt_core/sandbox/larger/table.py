"""What the trained model scores on short documents of the tasks, in context.

Documents are of the split `tune`: whoever changes the recipe looks at this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ttt_core.chat import SEAM
from ttt_core.examples import Task
from ttt_core.sandbox.tasks import get_task

CASES: tuple[tuple[str, int], ...] = (
    ("registry", 16),
    ("registry", 64),
    ("registry", 256),
    ("transactions", 16),
    ("transactions", 25),
    ("multi-key", 100),
    ("multi-key", 400),
    ("multi-value", 100),
    ("multi-value", 400),
    ("multi-query", 100),
    ("multi-query", 400),
    ("variable-tracking", 100),
    ("variable-tracking", 400),
)
"""Task and length."""


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        task: Its name.
        length: In the task's unit.
        unit: The task's unit.
        questions: How many were asked.
        score: The mean.
        chance: What a guess scores.
    """

    task: str
    length: int
    unit: str
    questions: int
    score: float
    chance: float

    def __str__(self) -> str:
        """Write it for a terminal."""
        return (
            f"{self.task:18s} {self.length:5d} {self.unit:10s}  score {self.score:.3f}  "
            f"chance {self.chance:.3f}  ({self.questions} questions)"
        )


def score_tasks(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    cases: tuple[tuple[str, int], ...] = CASES,
    *,
    questions: int,
    say: Callable[[str], None],
) -> list[Line]:
    """Ask `questions` questions for each case, or a few more: documents are asked completely."""
    lines = []
    for name, length in cases:
        lines.append(_score(model, tokenizer, get_task(name), length, questions))
        say(str(lines[-1]))
    return lines


def _score(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    length: int,
    questions: int,
) -> Line:
    scores: list[float] = []
    chances: list[float] = []
    for example in task.examples(length, split="tune", seed=0, count=questions):
        if len(scores) >= questions:
            break
        for question in example.questions[:8]:
            prompt = f"{example.document}{SEAM}{question.text}"
            answer = reply(model, tokenizer, prompt, most=task.max_new_tokens)
            scores.append(task.score(answer, question))
            chances.append(question.chance)
    n = len(scores)
    return Line(task.name, length, task.unit, n, sum(scores) / n, sum(chances) / n)


@torch.no_grad()
def reply(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, *, most: int
) -> str:
    """Answer one user turn greedily, with at most `most` tokens."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    ids = torch.tensor([tokenizer.encode(text)], device=model.device)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most)  # type: ignore[misc]
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
