"""A model that says what a script says, for tests of what only a capable model can do.

The script stands in for capability, and for nothing else. The weights are random, and keys, values
and the forward pass are really computed, by whatever drives the model (TTTEngine with its prefixes,
scheduler and sampler, or `generate()` of transformers). Only at the end of a turn's opening, and
inside an answer, is the likeliest next token made that of the script's reply. So a test with it
shows that prompts arrive and answers are understood. It shows nothing of what a model would say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from tests.conftest import ARCHITECTURES, CHATML, build_tokenizer
from ttt_core.attention.buffers import TailBuffers, Writing

Script: TypeAlias = Callable[[str], "str | None"]
"""From the rendered prompt, control tokens and all, to the whole reply; None: end at once."""

WINDOW = 8192
"""Positions; the tokenizer spends almost one a character."""

_SURE = 1000.0  # Far above any random logit; finite, and so is everything else.
_SPACE = b" \t\r\n"

CHATML_TOOLS = """\
{%- macro call(c) -%}
<tool_call>
{"name": {{ c.name | tojson }}, "arguments": \
{{ c.arguments if c.arguments is string else c.arguments | tojson }}}
</tool_call>
{%- endmacro -%}
{%- if tools %}{{ '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
{{- 'These functions can be called:\n<tools>' }}
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}
{{- '\n</tools>\n' }}
{{- 'To call one, write\n<tool_call>\n{"name": its name, "arguments": an object}\n</tool_call>' }}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- elif not (tools and loop.first and m.role == 'system') %}
{{- '<|im_start|>' + m.role + '\n' + (m.content or '') }}
{%- for c in m.tool_calls or [] %}
{{- '\n' if m.content or not loop.first }}{{ call(c.function or c) }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""ChatML with tools in the system turn, calls and results in tags, as Hermes and Qwen do it."""


def scripted_tokenizer(chat_template: str = CHATML, *, tools: bool = False) -> Any:
    """The tests' byte-level tokenizer; `tools`: with a template that knows tools."""
    tokenizer = build_tokenizer(CHATML_TOOLS if tools else chat_template)
    tokenizer.model_max_length = WINDOW
    return tokenizer


class ScriptedModel(Qwen3ForCausalLM):
    """A small Qwen3 with random weights whose answers are a script's.

    The script is asked once for each prompt, however often that is answered. An adaptation asks
    it, too: what it measures its drift by are answers. Where nobody answers, and in passes whose
    gradients are wanted, the logits are those of the random weights. Where a mask forbids what
    the reply says next, anything else that is allowed can be chosen, and spaces that the mask
    leaves out or adds do not count; after any other departure the answer ends as soon as it may.

    In the engine's shared-prefix attention, any number of conversations can be answered at once.
    Elsewhere (`generate()`, the model's own attention) it is one at a time.

    Args:
        script: What to say.
        tokenizer: A byte-level one with a chat template, such as `scripted_tokenizer()`.
        window: Most positions.
        seed: Of the weights.

    Attributes:
        script: What to say; may be replaced, which changes no reply that was given.
        prompts: What the script was asked, in order.
    """

    def __init__(
        self,
        script: Script,
        tokenizer: PreTrainedTokenizerFast,
        *,
        window: int = WINDOW,
        seed: int = 0,
    ) -> None:
        options = {**ARCHITECTURES["qwen3"][1], "max_position_embeddings": window}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(Qwen3Config(**options))
        self.script = script
        self.prompts: list[str] = []
        self._replies: dict[bytes, bytes] = {}
        self._speller = _Speller(tokenizer)
        self._end = self._speller.bytes_of[tokenizer.eos_token_id]
        self._openings = _openings(tokenizer)
        self._tails: WeakKeyDictionary[TailBuffers, dict[int, list[int]]] = WeakKeyDictionary()
        self._seen: dict[int, int] = {}  # By position: all there is to go by elsewhere.
        self.model.register_forward_pre_hook(self._see, with_kwargs=True)
        self.eval()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int | torch.Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Compute as Qwen3 does, then raise the logits of the script's tokens."""
        start = 0 if past_key_values is None else past_key_values.get_seq_length()
        out: CausalLMOutputWithPast = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **options,
        )
        if torch.is_grad_enabled():
            return out
        if position_ids is None:
            position_ids = torch.arange(start, start + input_ids.shape[1])[None]
        conversations = self._conversations(input_ids, position_ids, options.get("shared_prefix"))
        assert out.logits is not None
        out.logits = out.logits.clone()
        for row, index in enumerate(_kept(logits_to_keep, input_ids.shape[1])):
            if index in conversations:
                self._say(out.logits[0, row], conversations[index])
        return out

    def _see(self, module: torch.nn.Module, args: Any, options: dict[str, Any]) -> None:
        """Before any pass of the decoder itself: a document is read without the head."""
        ids, positions = options["input_ids"][0].tolist(), options.get("position_ids")
        if "shared_prefix" in options:  # Brings along what was read before.
            return
        if positions is None:
            cache = options.get("past_key_values")
            start = 0 if cache is None else cache.get_seq_length()
            positions = torch.arange(start, start + len(ids))[None]
        self._seen.update(zip(positions[0].tolist(), ids, strict=True))

    def _conversations(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, shared: Any
    ) -> dict[int, list[int]]:
        """All tokens up to each token of the row, by its index."""
        if len(input_ids) != 1:
            raise NotImplementedError("a ScriptedModel takes batches of one row")
        ids, positions = input_ids[0].tolist(), position_ids[0].tolist()
        if shared is None:
            return {
                index: [self._seen[p] for p in range(position + 1) if p in self._seen]
                for index, position in enumerate(positions)
            }
        if shared._layout is None:  # Tokens of the document, in their own places.
            return {}
        prefix = list(shared._prefix.input_ids)
        writing = getattr(shared._extend, "__self__", None)
        if isinstance(writing, Writing):
            segments, tails = writing.segments, self._tails.setdefault(writing.buffers, {})
        else:  # Whole tails one after another.
            starts = (position == len(prefix) for position in positions)
            segments, tails = list(accumulate(starts)), {}
        found = {}
        for index, segment in enumerate(segments):
            tail = tails.setdefault(segment, [])
            del tail[positions[index] - len(prefix) :]  # A pass that failed is made again.
            tail.append(ids[index])
            found[index] = prefix + tail
        return found

    def _say(self, logits: torch.Tensor, conversation: Sequence[int]) -> None:
        """Raise what the reply says next; `logits`, shape (vocab_size,), is written to."""
        turn = self._turn(self._speller.spell(conversation))
        if turn is None:
            return
        wanted = dict.fromkeys(self._next(self._reply(turn.prompt), turn.said))
        peak = float(logits.max())
        for rank, token in enumerate(wanted):
            logits[token] = peak + _SURE * (len(wanted) - rank)

    def _turn(self, text: bytes) -> _Turn | None:
        """Split at the last opening of an answer; None: nobody is answering."""
        openings = [(text.rfind(opening), len(opening)) for opening in self._openings]
        start, length = max(openings)
        said = text[start + length :]
        return None if start < 0 or self._end in said else _Turn(text[: start + length], said)

    def _reply(self, prompt: bytes) -> bytes:
        if prompt not in self._replies:
            self.prompts.append(prompt.decode(errors="replace"))
            self._replies[prompt] = (self.script(self.prompts[-1]) or "").encode()
        return self._replies[prompt]

    def _next(self, reply: bytes, said: bytes) -> Iterator[int]:
        """Tokens that go on with the reply, the best first."""
        rest = _rest(reply, said)
        if rest:
            yield self._speller.longest(rest)
            yield self._speller.longest(rest[:1])
        if rest and rest[:1] in _SPACE:
            yield from self._next(rest.lstrip(_SPACE), b"")
        if not rest:
            yield self._speller.longest(self._end)


class _Turn(NamedTuple):
    """A conversation that is being answered: up to where the answer begins, and the answer."""

    prompt: bytes
    said: bytes


class _Speller:
    """What each token of a byte-level tokenizer spells."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        special = {token.content for token in tokenizer.added_tokens_decoder.values()}
        byte_of = _byte_of()
        self.bytes_of = {
            token: text.encode() if text in special else bytes(byte_of[c] for c in text)
            for text, token in tokenizer.get_vocab().items()
        }
        self._token_of = {spelled: token for token, spelled in self.bytes_of.items()}
        self._longest = max(map(len, self._token_of))

    def spell(self, tokens: Iterable[int]) -> bytes:
        """What tokens spell together; those that the tokenizer does not know are nothing."""
        return b"".join(self.bytes_of.get(token, b"") for token in tokens)

    def longest(self, text: bytes) -> int:
        """The longest token with which `text` begins."""
        return next(
            self._token_of[text[:n]]
            for n in range(self._longest, 0, -1)
            if text[:n] in self._token_of
        )


def _byte_of() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes.

    Latin-1's visible characters stand for themselves; the other bytes, in order, are written as
    the characters from 256 on.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + n): b for n, b in enumerate(hidden)}


def _openings(tokenizer: PreTrainedTokenizerFast) -> set[bytes]:
    """What the template puts before an answer, with thinking and without."""
    openings = set()
    for thinking in (False, True):
        asked, opened = (
            str(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": "a"}],
                    tokenize=False,
                    add_generation_prompt=opening,
                    enable_thinking=thinking,
                )
            )
            for opening in (False, True)
        )
        openings.add(opened.removeprefix(asked).encode())
    return openings


def _kept(logits_to_keep: int | torch.Tensor, n_tokens: int) -> list[int]:
    """Indices of the tokens whose logits are returned, as transformers understands its option."""
    if isinstance(logits_to_keep, int):
        return list(range(n_tokens))[-logits_to_keep:]
    return [int(index) for index in logits_to_keep]


def _rest(reply: bytes, said: bytes) -> bytes | None:
    """What is left to say; spaces may differ. None: something else was said."""
    at = 0
    for byte in said:
        while at < len(reply) and reply[at] != byte and reply[at] in _SPACE:
            at += 1
        if at < len(reply) and reply[at] == byte:
            at += 1
        elif byte not in _SPACE:
            return None
    return reply[at:]
