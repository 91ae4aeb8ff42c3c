"""Which token reads which keys: index arithmetic only, made once for a forward pass.

Two layouts exist, as in `ttt_core.packed`:

    in place   tokens at document positions, cut into groups of neighbours; a group reads what lies
               before it unmasked and its own stretch of the document through a small mask
    behind     ragged tails, padded to rows; all read the whole prefix unmasked, and each row itself
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from ttt_core.lazy import lazy_property

_GROUPS = 4
"""Groups of picked positions: more save keys, fewer make longer rows for the kernels."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some tokens read some keys of the prefix.

    Attributes:
        tokens: Which tokens of the forward pass.
        keys: Which keys of the prefix.
        mask: True where visible, shape (n_tokens, n_keys); None: all of them.
        full_rows: Whether every token sees some key of the mask.
    """

    tokens: slice
    keys: slice
    mask: torch.Tensor | None
    full_rows: bool = True
    _placed: dict[tuple[int, torch.device], torch.Tensor] = field(default_factory=dict)

    def folded_mask(self, n_folded: int, device: torch.device) -> torch.Tensor | None:
        """The mask for queries whose heads are folded, (1, 1, n_folded, n_keys); made once."""
        if self.mask is None:
            return None
        return _folded(self._placed, self.mask[None], n_folded, device)


def blocks_in_place(positions: torch.Tensor, window: int | None) -> list[Block]:
    """Cut ascending positions into blocks so that work grows with what they attend to.

    Args:
        positions: Ascending, on the CPU, shape (n_tokens,).
        window: How far back this kind of layer sees, itself included; None: to the beginning.
    """
    blocks = []
    for tokens in _neighbours(positions.tolist()):
        some = positions[tokens]
        first, last = int(some[0]), int(some[-1])
        if window is not None and last >= window:
            keys = slice(max(first - window + 1, 0), last + 1)
            blocks.append(Block(tokens, keys, visible(some, keys, window)))
            continue
        if last == first:
            blocks.append(Block(tokens, slice(0, first + 1), None))
            continue
        # The first token's own key goes under the mask, so that no row of it is empty.
        if first:
            blocks.append(Block(tokens, slice(0, first), None))
        keys = slice(first, last + 1)
        blocks.append(Block(tokens, keys, visible(some, keys, None)))
    return blocks


def blocks_behind(positions: torch.Tensor, n_prefix: int, window: int | None) -> list[Block]:
    """Let every token behind a prefix of `n_prefix` tokens read it; see `blocks_in_place`."""
    everyone = slice(0, len(positions))
    if n_prefix == 0:
        return []
    if window is None or int(positions.max()) < window:
        return [Block(everyone, slice(0, n_prefix), None)]
    keys = slice(max(int(positions.min()) - window + 1, 0), n_prefix)
    if keys.start >= n_prefix:
        return []
    return [Block(everyone, keys, visible(positions, keys, window), full_rows=False)]


def visible(positions: torch.Tensor, keys: slice, window: int | None) -> torch.Tensor:
    """Causal visibility of keys at positions [keys.start, keys.stop), (n_tokens, n_keys)."""
    query, key = positions[:, None], torch.arange(keys.start, keys.stop)[None]
    allowed = key <= query
    if window is not None:
        allowed &= key > query - window
    return allowed


def _neighbours(positions: Sequence[int]) -> Iterator[slice]:
    reach = max(positions[-1] // _GROUPS, 1) if positions else 1
    start = 0
    for index, position in enumerate(positions):
        # Neighbours without a gap stay together however short the document is.
        if position - positions[start] >= reach and position - positions[index - 1] > 1:
            yield slice(start, index)
            start = index
    yield slice(start, len(positions))


@dataclass(frozen=True, eq=False)
class TailLayout:
    """Ragged tails as padded rows.

    Attributes:
        n_rows: Rows that take part.
        length: Most new tokens in a row.
        pad: For each row and place the token that goes there, (n_rows * length,); None: the tokens
            are in that order already.
        unpad: For each token its place among them, (n_tokens,); None likewise.
        slots: Place of each new token among its tail's keys, 0 first, (n_rows, length).
        n_keys: Keys of the longest tail, new ones included.
    """

    n_rows: int
    length: int
    pad: torch.Tensor | None
    unpad: torch.Tensor | None
    slots: torch.Tensor
    n_keys: int
    _masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)
    _placed: dict[int | None, dict[tuple[int, torch.device], torch.Tensor]] = field(
        default_factory=dict
    )
    _indices: dict[tuple[str, torch.device], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[int], starts: Sequence[int]) -> TailLayout:
        """Lay out tokens.

        Args:
            rows: Row of each token, 0 and up, every row at least once; within a row in order.
            starts: How many keys each row's tail has already.
        """
        counts = [0] * len(starts)
        places = []
        for row in rows:
            places.append(counts[row])
            counts[row] += 1
        length = max(counts)
        unpad = [row * length + place for row, place in zip(rows, places, strict=True)]
        slots = torch.tensor(starts)[:, None] + torch.arange(length)[None]
        n_keys = max(start + count for start, count in zip(starts, counts, strict=True))
        if unpad == list(range(len(starts) * length)):
            return cls(len(starts), length, None, None, slots, n_keys)
        pad = [0] * (len(starts) * length)
        for token, place in enumerate(unpad):
            pad[place] = token
        slots.clamp_(max=n_keys - 1)  # Padded places; what they read is thrown away.
        return cls(len(starts), length, torch.tensor(pad), torch.tensor(unpad), slots, n_keys)

    def mask(self, window: int | None) -> torch.Tensor | None:
        """Visibility inside the tails, (n_rows, length, n_keys); None: all visible."""
        if window is not None and self.n_keys <= window:
            window = None
        if window not in self._masks:
            self._masks[window] = self._visible(window)
        return self._masks[window]

    def folded_mask(
        self, window: int | None, n_folded: int, device: torch.device
    ) -> torch.Tensor | None:
        """The mask for queries whose heads are folded, (n_rows, 1, n_folded, n_keys); made once."""
        mask = self.mask(window)
        if mask is None:
            return None
        return _folded(self._placed.setdefault(window, {}), mask, n_folded, device)

    def _visible(self, window: int | None) -> torch.Tensor | None:
        allowed = visible(self.slots.flatten(), slice(0, self.n_keys), window)
        return None if allowed.all() else allowed.unflatten(0, self.slots.shape)

    def to_rows(self, tokens: torch.Tensor, *, padding: float | None = None) -> torch.Tensor:
        """(1, heads, n_tokens, ...) to (n_rows, heads, length, ...).

        Padded places hold `padding`; without it, whatever a token happened to have.
        """
        if self.n_rows == 1:
            return tokens
        flat = tokens[0]
        if self.pad is not None:
            flat = flat.index_select(1, self._index("pad", flat.device))
            if padding is not None:
                flat = flat.index_fill(1, self._index("_padded", flat.device), padding)
        rows: torch.Tensor = flat.unflatten(1, (self.n_rows, self.length))
        return rows.transpose(0, 1)

    def _index(self, name: str, device: torch.device) -> torch.Tensor:
        """An index on a device; the same in every layer."""
        if (name, device) not in self._indices:
            self._indices[name, device] = getattr(self, name).to(device)
        return self._indices[name, device]

    @lazy_property
    def _padded(self) -> torch.Tensor:
        """Places that no token takes."""
        assert self.unpad is not None
        free = torch.ones(self.n_rows * self.length, dtype=torch.bool)
        free[self.unpad] = False
        return free.nonzero().squeeze(-1)

    def to_tokens(self, rows: torch.Tensor) -> torch.Tensor:
        """(n_rows, heads, length, ...) to (1, heads, n_tokens, ...)."""
        if self.n_rows == 1:
            return rows
        flat = rows.transpose(0, 1).flatten(1, 2)
        if self.unpad is not None:
            flat = flat.index_select(1, self._index("unpad", flat.device))
        return flat[None]


def _folded(
    placed: dict[tuple[int, torch.device], torch.Tensor],
    mask: torch.Tensor,
    n_folded: int,
    device: torch.device,
) -> torch.Tensor:
    """(rows, n, n_keys) to (rows, 1, n_folded, n_keys): the same for every head of a group."""
    if (n_folded, device) not in placed:
        repeated = mask.repeat(1, n_folded // mask.shape[1], 1)[:, None]
        placed[n_folded, device] = repeated.to(device)
    return placed[n_folded, device]
