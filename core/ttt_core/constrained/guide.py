"""One answer's way through a grammar: which tokens may come next, such that it ends in time.

Near the end of the budget a token is allowed only if the grammar can still be completed behind
it. A known way to an end is kept at all times, and is walked when nothing else fits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ttt_core.constrained.planning import LONGEST, NoPlanError, Planner
from ttt_core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher

_TESTED = 64
"""Tokens that are tested in one step near the end, the likeliest first..."""

_WALKS = 8
"""Of them, those behind which a new way is looked for: where the known one fits, that is cheap."""

_MASS = 0.999
"""...or fewer, if they have this much of the allowed tokens' probability."""


class Guide:
    """One answer's place in a grammar. Not safe to use from several threads at once."""

    def __init__(
        self,
        matcher: LLMatcher,
        planner: Planner,
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        growth: int,
        phrases: Sequence[str],
    ) -> None:
        """Stand at the beginning.

        Args:
            matcher: The compiled grammar; belongs to this object from now on.
            planner: Finds ways to an end.
            vocab_size: Logits per step.
            eos_token_ids: Tokens that end an answer; allowed where the grammar may end.
            growth: About how many tokens more one token can make necessary.
            phrases: Texts that end free text in this grammar.
        """
        self._start = matcher
        self._matcher = matcher.deep_copy()
        self._planner = planner
        self._size = vocab_size
        self._eos = list(eos_token_ids)
        self._growth = growth
        self._phrases = phrases
        self._plan: list[int] | None = None  # Unknown until it matters.
        self._old: list[int] = []  # The latest one that was known, perhaps of an earlier place.
        self._plans: dict[int, list[int]] = {}  # Behind the tokens that were tested in this step.
        self._check_at = sys.maxsize  # With more tokens left than this, an end is near enough.
        self._begun = False
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._ended or self._matcher.is_stopped()

    @property
    def shortest(self) -> int:
        """Tokens of the shortest way to an end that is found from here, the end token included.

        Raises:
            ConfigError: There is none.
        """
        plan = self._planned(sys.maxsize)
        return 0 if plan is None else _cost(plan, stopped=False)

    @property
    def accepting(self) -> bool:
        """Whether the answer may end here."""
        return self._matcher.is_accepting()

    def restart(self) -> Guide:
        """Return a new guide at the beginning; nothing is compiled again."""
        return Guide(
            self._start,
            self._planner,
            vocab_size=self._size,
            eos_token_ids=self._eos,
            growth=self._growth,
            phrases=self._phrases,
        )

    def accept(self, token: int) -> None:
        """Take the token that was chosen.

        Raises:
            ConfigError: It was not allowed.
        """
        self._begun = True
        if token in self._eos and self.accepting:
            self._ended = True
            return
        if self._ended or not self._matcher.consume_token(token):
            raise ConfigError(f"token {token} is not allowed here; choose one that mask() allows")
        self._plan = self._plans.get(token)
        self._old = self._plan if self._plan is not None else self._old
        self._plans = {}

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """Forbid what the grammar does not allow, and what it could not be completed behind.

        Args:
            logits: Shape (vocab_size,), float32.
            remaining: Tokens that the answer may still have, the next one included.

        Returns:
            A new tensor of the same shape on the same device, -inf at what is forbidden.

        Raises:
            ConfigError: The grammar cannot be completed with `remaining` tokens, and this is the
                first one.
        """
        if self.done or (remaining <= 1 and self._ends_now()):
            return _only(logits, self._eos)
        if remaining > self._check_at:
            return self._allowed(logits)
        plan = self._planned(remaining)
        if plan is None:
            return self._allowed(logits)
        spare = remaining - _cost(plan, stopped=False)
        steps = spare // (self._growth + 1)
        if steps > 0:
            self._check_at = remaining - steps
            return self._allowed(logits)
        return self._tested(logits, plan, remaining)

    def _ends_now(self) -> bool:
        """Whether the last token has to be the end: free text may be cut off, a number may not."""
        return self.accepting and not self._planner.in_text(self._matcher.compute_bitmask())

    def _planned(self, remaining: int) -> list[int] | None:
        """Return a way to an end, or None if none is known."""
        if self._plan is None:
            try:
                self._plan = self._old = self._planner.plan(
                    self._matcher, self._old, phrases=self._phrases
                )
            except NoPlanError:
                if self._begun:
                    return None
                raise ConfigError(
                    f"the schema has no value of fewer than {LONGEST:,} tokens; look for a type "
                    f"that contains itself without an alternative, or for a large minimum"
                ) from None
        cost = _cost(self._plan, stopped=False)
        if cost > remaining and not self._begun:
            raise ConfigError(
                f"the shortest value of the schema that was found takes {cost:,} tokens, and "
                f"max_tokens is {remaining:,}; raise max_tokens, or require fewer properties"
            )
        return self._plan

    def _allowed(self, logits: torch.Tensor) -> torch.Tensor:
        """Forbid what the grammar forbids."""
        import numpy as np
        import torch

        bits = self._matcher.compute_bitmask()
        forced = self._planner.respelled(self._matcher, bits)
        if forced is not None:
            return _only(logits, [forced])
        flags = np.unpackbits(
            np.frombuffer(bits, dtype=np.uint8), count=self._size, bitorder="little"
        )
        forbidden = torch.from_numpy(flags == 0).to(logits.device)
        return logits.masked_fill(forbidden, -math.inf)

    def _tested(self, logits: torch.Tensor, plan: list[int], remaining: int) -> torch.Tensor:
        """Allow the likeliest tokens behind which there is a way to an end, and the known way."""
        allowed = self._allowed(logits)
        keep = [plan[0]] if plan else list(self._eos)
        if plan:
            self._plans[plan[0]] = plan[1:]
        walks = 0
        for token in _likeliest(allowed):
            if token in keep:
                continue
            matcher = self._matcher.deep_copy()
            if not matcher.consume_token(token):
                continue
            way = [] if matcher.is_accepting() else self._planner.reuse(matcher, plan)
            if way is None and walks < _WALKS:
                walks += 1
                way = self._way(matcher, plan, remaining - 2)
            if way is not None and _cost(way, stopped=matcher.is_stopped()) < remaining:
                self._plans[token] = way
                keep.append(token)
        return _only(logits, keep)

    def _way(self, matcher: LLMatcher, plan: list[int], most: int) -> list[int] | None:
        try:
            return self._planner.plan(matcher, plan, phrases=self._phrases, most=most)
        except NoPlanError:
            return None


def _cost(plan: Sequence[int], *, stopped: bool) -> int:
    """Tokens that a way takes with its end token, which nothing needs where text may go on."""
    return len(plan) + 1 if plan or stopped else 0


def _likeliest(logits: torch.Tensor) -> list[int]:
    """Ids of the likeliest tokens until they have nearly all probability, best first."""
    values, ids = logits.softmax(-1).topk(min(_TESTED, len(logits)))
    before = values.cumsum(0) - values
    return ids[(before < _MASS) & (values > 0)].tolist()


def _only(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    import torch

    out = torch.full_like(logits, -math.inf)
    index = torch.tensor(list(tokens), device=logits.device)
    out[index] = logits[index]
    return out
