"""Frozen settings values. A typo in a name fails at once, with the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Parametrization = Literal["lora", "full"]
SupervisionName = Literal[
    "cloze",
    "recurrence",
    "random_span",
    "high_loss",
    "high_entropy",
    "self_study",
    "mixture",
    "evidence",
    "retrieved",
]
Objective = Literal["next_token", "attention"]
OptimizerName = Literal["adamw", "sgd"]
QUESTION_SUPERVISIONS = ("evidence", "retrieved")
"""Supervisions that train for one question, and cannot do without."""
TAKE_QUESTION = (*QUESTION_SUPERVISIONS, "mixture")
"""Supervisions that can make use of a question."""

Overflow = Literal["error", "keep_start", "keep_end"]
DEFAULT_ANSWER_TOKENS = 256
"""Most tokens of an answer where nobody said how many."""

AttentionName = Literal["auto", "model", "reference", "cpu_flash", "cuda_flash", "cuda_efficient"]


def unknown_name(
    what: str,
    name: str,
    known: Iterable[str],
    lead: str,
    synonyms: Mapping[str, str] | None = None,
) -> str:
    """Say that nothing has such a name, which one was probably meant, and which there are.

    Args:
        what: What was to have it, such as `option`.
        name: The one that was given.
        known: Those that there are.
        lead: What stands before their list.
        synonyms: What others call them.
    """
    names = sorted(known)
    meant = (synonyms or {}).get(str(name))
    close = [meant] if meant else difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {name!r}; {hint}{lead}: {', '.join(names)}"


class Settings(BaseModel):
    """Base of all settings: immutable, and closed to unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_options(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name in values.keys() - cls.model_fields.keys():
                raise ValueError(
                    unknown_name("option", name, cls.model_fields, f"{cls.__name__} takes")
                )
        return values


class AdaptationConfig(Settings):
    """How the queries are trained on one document. Part of the stored adapter's identity."""

    parametrization: Parametrization = "lora"
    """`lora` trains a low-rank change of W_Q (megabytes, worth storing); `full` trains all of W_Q,
    as the paper does (Bansal et al., arXiv 2512.13898)."""
    r: int = Field(default=16, ge=1)
    """LoRA rank (PEFT's name)."""
    lora_alpha: int = Field(default=32, ge=1)
    """LoRA scaling numerator (PEFT's name): the change is scaled by lora_alpha / r."""
    layers_to_transform: tuple[int, ...] | None = None
    """Which layers' queries are trained (PEFT's name), counted from 0; None: all of them."""
    supervision: SupervisionName = "cloze"
    """On what to train; see `ttt_core.supervision`. `evidence` and `retrieved` need a question."""
    objective: Objective = "next_token"
    """What is minimised: the loss of the next token, or the divergence of the question's attention
    from one that looks at the passages that `evidence` or `retrieved` selected (EASE-TTT, arXiv
    2606.06906)."""
    warm_start: bool = True
    """With a question: begin with what the document alone taught, if that was adopted."""
    optimizer: OptimizerName = "adamw"
    """`sgd` is without momentum; its learning rates are other ones, so give one."""
    steps: int = Field(default=48, ge=0)
    """Most optimiser steps. Early stopping may end before; 0 leaves the base model as it is."""
    span_length: int = Field(default=128, ge=1)
    """Length of a span for `random_span` (the paper's k)."""
    positions_per_step: int | None = Field(default=None, ge=1)
    """Positions per step for `random_span` and `recurrence`; None: one span's. More spans share
    one optimiser step, which an accelerator takes in nearly the same time."""
    clozes_per_step: int = Field(default=24, ge=1)
    """Clozes per step for `cloze`."""
    learning_rate: float | Literal["auto"] = "auto"
    """A number, or `auto`: a short trial of each rung of a ladder, judged on held-out clozes."""
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gate: bool = True
    """Keep the base unless the held-out gain is significantly above zero. False adapts always."""
    significance: float = Field(default=0.05, gt=0, lt=0.5)
    """One-sided level of the gate's paired test."""
    early_stopping: bool = True
    """Stop when held-out clozes stop improving, and return to the best step."""
    held_out: int = Field(default=144, ge=2)
    """Clozes never trained on: a third chooses the learning rate and the step, the rest decide."""
    max_drift: float = Field(default=2.0, gt=0)
    """Largest allowed KL divergence from the base (nats per token) on generic questions."""
    max_ending_loss: float = Field(default=0.25, gt=0)
    """Largest allowed loss (nats) of what the base says behind a complete quote, mostly that the
    turn ends: an adapter that unlearns it makes every answer run on."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @property
    def positions(self) -> int:
        """Positions per step of training in place."""
        return self.positions_per_step or self.span_length

    @property
    def needs_question(self) -> bool:
        """Whether this recipe is about one question on the document."""
        return self.supervision in QUESTION_SUPERVISIONS

    def for_document(self) -> AdaptationConfig:
        """Return the recipe for the document alone: what a question's adapter begins with."""
        return self.model_copy(update={"supervision": "cloze", "objective": "next_token"})

    @model_validator(mode="after")
    def _check_objective(self) -> AdaptationConfig:
        if self.objective == "attention" and not self.needs_question:
            raise ValueError(
                f"objective='attention' teaches where to look for a question: it goes with "
                f"supervision {' or '.join(QUESTION_SUPERVISIONS)}, not {self.supervision}"
            )
        return self

    @model_validator(mode="after")
    def _check_optimizer(self) -> AdaptationConfig:
        if self.optimizer == "sgd" and self.learning_rate == "auto":
            raise ValueError(
                "learning_rate='auto' tries rates for adamw; give a number with optimizer='sgd'"
            )
        return self

    @model_validator(mode="after")
    def _check_layers(self) -> AdaptationConfig:
        layers = self.layers_to_transform
        if layers is not None and (
            not layers or min(layers) < 0 or list(layers) != sorted(set(layers))
        ):
            raise ValueError(
                f"layers_to_transform holds layers from 0, ascending, each once; not {layers}"
            )
        return self

    @model_validator(mode="after")
    def _check_learning_rate(self) -> AdaptationConfig:
        if self.learning_rate != "auto" and not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate must be 'auto' or between 0 and 1, not {self.learning_rate}"
            )
        return self


class GenerationConfig(Settings):
    """How an answer is decoded; the names are those of `transformers.GenerationConfig`."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most answer tokens; None means 256, or what the window still holds if that is less."""
    temperature: float = Field(default=0.0, ge=0)
    """0 decodes greedily."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Applies to the answer's own tokens only: a document's words must stay quotable."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Sampling seed; None draws one from the operating system."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are not part of it."""
    logprobs: bool = False
    """Return each answer token's log-probability under the model, before temperature and cuts."""
    top_logprobs: int = Field(default=0, ge=0, le=20)
    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which the answer is given up; None: it may take its time."""
    tools: tuple[dict[str, Any], ...] = ()
    """What the model may call, in the shape of OpenAI's and transformers' `tools`."""
    tool_choice: str = "auto"
    """`auto`, `none`, `required` (some tool), or the name of one; enforced, not asked for."""
    parallel_tool_calls: bool | None = None
    """Whether one answer may hold several calls; None: if it may hold none, too. Who has to call
    and does not know what would go on calling."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_schema", "json_schema": {"schema": ...}}`, or `{"type": "json_object"}`:
    the text of the answer is valid by construction."""
    enable_thinking: bool = False
    """Let a reasoning model think first (the templates' own switch); retrieval gains little."""
    thinking_budget: int | None = Field(default=None, ge=0)
    """Most tokens of thinking; None: half of the answer's where something is enforced behind it,
    else all."""

    @model_validator(mode="after")
    def _check_stop(self) -> GenerationConfig:
        if any(not stop for stop in self.stop):
            raise ValueError("stop holds an empty string; it would end every answer at once")
        return self


class RuntimeConfig(Settings):
    """What changes speed and memory, but neither adapters nor answers."""

    prefill_chunk: int = Field(default=512, ge=1)
    """Document tokens per forward pass while reading."""
    train_chunk: int = Field(default=1024, ge=1)
    """Tokens per forward and backward pass while training; bounds the memory of activations."""
    attention: AttentionName = "auto"
    """`auto` picks the fastest kernel that is right on this device; `reference`, `cpu_flash`,
    `cuda_flash` and `cuda_efficient` name one; `model` is the model's own attention under masks."""
    answer_reserve: int = Field(default=1024, ge=1)
    """Tokens of the window kept free for question and answer (an eighth of small windows)."""
    on_overflow: Overflow = "error"
    """What to do with a document that is longer than the window leaves room for."""
    max_kv_bytes: int | None = Field(default=None, ge=0)
    """Bytes of documents' keys and values kept on the model's device, least recently used first
    out; the document used last stays in any case. None: half of what is free there once the model
    is loaded; on a CPU, a quarter of the memory."""
    max_host_kv_bytes: int | None = Field(default=None, ge=0)
    """Bytes of those that leave an accelerator kept in host memory. None: a quarter of it."""
    max_disk_kv_bytes: int = Field(default=0, ge=0)
    """Bytes of keys and values kept on disk, beside the adapters, for later processes. 0: none,
    since keys and values, unlike adapters, hold what the document says."""
    max_adapter_bytes: int = Field(default=1 << 30, ge=0)
    """Bytes of adapters kept ready for use; the store keeps all of them."""
    adaptation_timeout: float = Field(default=3600.0, ge=0)
    """Seconds to wait while another process adapts to the same document; then this one does."""
    max_batch_size: int = Field(default=64, ge=1)
    """Questions on one document decoded together; more wait their turn."""
