"""What a tokenizer must be, and how its added tokens are written in a grammar."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from tests.constrained.writing import ends, size, token_of, tokenizer, vocabulary, write
from ttt_core.constrained import Guide, Vocabulary
from ttt_core.constrained import vocabulary as vocabulary_module
from ttt_core.errors import ConfigError


class SlowTokenizer:
    """All that is asked of one before it is refused."""

    is_fast = False


def test_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a fast tokenizer, but SlowTokenizer"):
        Vocabulary(SlowTokenizer(), vocab_size=9, eos_token_ids=frozenset([1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [frozenset(), frozenset([10**6])])
def test_model_without_an_end_is_refused(ids: frozenset[int]) -> None:
    with pytest.raises(ConfigError, match="a token that ends an answer"):
        Vocabulary(tokenizer(), vocab_size=size(), eos_token_ids=ids)


@pytest.mark.parametrize("grammar", ["start: nowhere", 'start: "', 'start: %json {"type": "odd"}'])
def test_grammar_that_does_not_compile_is_refused_with_the_reason(grammar: str) -> None:
    with pytest.raises(ConfigError, match=r"the grammar cannot be used: .+") as caught:
        vocabulary().guide(grammar)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["plain", 'with "quotes" and \\', "tab\tand\nnewline", "größe \U0001f642 \x07\x7f", "/#%"],
)
def test_literal_text_is_written_as_it_is(text: str) -> None:
    written = write(vocabulary().guide(f"start: {vocabulary().literal(text)}"), 60)
    assert written == text


def test_literal_of_an_added_token_is_that_token() -> None:
    tag = token_of("<tool_call>")
    assert vocabulary().literal("<tool_call>") == f"<[{tag}]>"
    assert vocabulary().literal("<tool_call> ") == '"<tool_call> "'
    row = vocabulary().guide(f'start: {vocabulary().literal("<tool_call>")} "x"')
    assert row.mask(torch.zeros(size()), 9).isfinite().nonzero().flatten().tolist() == [tag]


def test_fewer_logits_than_tokens() -> None:
    """Tokens without a logit are not allowed."""
    short = Vocabulary(tokenizer(), vocab_size=size() - 11, eos_token_ids=frozenset(ends()))
    masked = short.guide("start: /(?s:.*)/").mask(torch.zeros(size() - 11), 10)
    assert masked.shape == (size() - 11,)
    assert masked.isfinite().any()


def test_threads_share_one_compiled_vocabulary() -> None:
    fresh = Vocabulary(tokenizer(), vocab_size=size(), eos_token_ids=frozenset(ends()))
    found: list[Guide] = []
    work = [threading.Thread(target=lambda: found.append(fresh.guide('start: "a"'))) for _ in "abc"]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 3
    assert len({id(one._planner) for one in found}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_another_thread_compiles() -> None:
    """Nobody is there in the child to give the lock back."""
    held = vocabulary_module._building
    with held:
        child = os.fork()
        if child == 0:
            os._exit(0 if vocabulary_module._building.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert vocabulary_module._building is held
