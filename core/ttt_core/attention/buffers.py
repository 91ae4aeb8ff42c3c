"""Memory for keys and values that grow: written in place, never concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ttt_core.attention.layout import TailLayout
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix

_FEWEST_SLOTS = 32


class PrefixBuffers:
    """A document that is being read: what its model caches, in buffers of the final size.

    Args:
        input_ids: The whole document.
        n_layers: Decoder layers.
        whole: Let the model see all that was read so far, and not the newest chunk alone.
    """

    def __init__(self, input_ids: Sequence[int], n_layers: int, *, whole: bool) -> None:
        self.input_ids = tuple(input_ids)
        self._layers = [_BufferLayer(len(self.input_ids), whole=whole) for _ in range(n_layers)]
        self.cache = Cache(layers=list(self._layers))

    @property
    def prefix(self) -> FrozenPrefix:
        """What has been read so far, by reference."""
        n_read = self._layers[0].length
        if not n_read:
            return EMPTY_PREFIX
        keys, values = zip(*(layer.read(n_read) for layer in self._layers), strict=True)
        return FrozenPrefix(self.input_ids[:n_read], keys, values)


class _BufferLayer(DynamicLayer):
    def __init__(self, capacity: int, *, whole: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._whole = whole
        self.length = 0
        self._buffers: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new states; return what the model is to see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = (self._buffer(key_states), self._buffer(value_states))
        end = self.length + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., self.length : end, :] = new
        self.length = end
        self.keys, self.values = self.read(end)
        return (self.keys, self.values) if self._whole else (key_states, value_states)

    def read(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first `end` tokens."""
        keys, values = self._buffers
        return keys[..., :end, :], values[..., :end, :]

    def _buffer(self, states: torch.Tensor) -> torch.Tensor:
        return states.new_empty((*states.shape[:-2], self._capacity, states.shape[-1]))


class TailBuffers:
    """Keys and values of many tails, one row each; rows in use are always the first ones."""

    def __init__(self, n_layers: int) -> None:
        self._layers: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * n_layers
        self._rows: list[int] = []  # The segment in each row.
        self._lengths: dict[int, int] = {}

    def begin(self, segments: Sequence[int]) -> Writing:
        """Prepare to append tokens to the tails named by `segments`, one a token."""
        for segment in dict.fromkeys(segments):
            if segment not in self._lengths:
                self._rows.append(segment)
                self._lengths[segment] = 0
        taking_part = set(segments)
        rows = [row for row, segment in enumerate(self._rows) if segment in taking_part]
        numbers = {self._rows[row]: index for index, row in enumerate(rows)}
        starts = [self._lengths[self._rows[row]] for row in rows]
        layout = TailLayout.of([numbers[segment] for segment in segments], starts)
        some = None if rows == list(range(len(rows))) else torch.tensor(rows)
        return Writing(self, layout, some, segments)

    def drop(self, segment: int) -> None:
        """Forget a tail; the last row moves into its place."""
        if segment not in self._lengths:
            return
        del self._lengths[segment]
        row, last = self._rows.index(segment), len(self._rows) - 1
        self._rows[row] = self._rows[last]
        self._rows.pop()
        for buffer in (buffer for pair in self._layers for buffer in pair or ()):
            # A pass that failed may have ended before it made the last rows in this layer. What is
            # left behind is wiped: where it were NaN, a weight of nothing would not undo it.
            buffer[row : row + 1] = buffer[last] if last < len(buffer) else 0
            buffer[last : last + 1] = 0

    def _extend(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, writing: Writing
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's new keys and values; return all of the tails that take part."""
        pair = self._layers[layer] or (_empty(keys), _empty(values))
        n_rows, n_keys = len(self._rows), writing.layout.n_keys
        pair = (_grown(pair[0], n_rows, n_keys), _grown(pair[1], n_rows, n_keys))
        self._layers[layer] = pair
        return writing.put(pair[0], keys), writing.put(pair[1], values)

    def _advance(self, segments: Sequence[int]) -> None:
        for segment in segments:
            self._lengths[segment] += 1


@dataclass
class Writing:
    """One forward pass's additions. Until `commit` they can be written again."""

    buffers: TailBuffers
    layout: TailLayout
    rows: torch.Tensor | None
    segments: Sequence[int]
    _known: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def extend(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add one layer's keys and values, (n_rows, n_kv_heads, length, dim); return the tails."""
        return self.buffers._extend(layer, keys, values, self)

    def put(self, buffer: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Write `new` into its slots; return the rows that take part, by reference if possible."""
        layout = self.layout
        real = layout.unpad
        new = new.transpose(1, 2).flatten(0, 1)  # (n_rows * length, n_kv_heads, dim)
        if real is not None:
            new = new.index_select(0, real.to(new.device))
        rows, slots = self._places(buffer.device)
        buffer[rows, :, slots] = new
        if self.rows is None:
            return buffer[: layout.n_rows, :, : layout.n_keys]
        return buffer[:, :, : layout.n_keys].index_select(0, self.rows.to(buffer.device))

    def _places(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and slot of every new token; the same in every layer."""
        if device not in self._known:
            layout = self.layout
            rows = torch.arange(layout.n_rows) if self.rows is None else self.rows
            rows, slots = rows.repeat_interleave(layout.length), layout.slots.flatten()
            if layout.unpad is not None:
                rows, slots = rows[layout.unpad], slots[layout.unpad]
            self._known[device] = (rows.to(device), slots.to(device))
        return self._known[device]

    def commit(self) -> None:
        """Make the additions part of the tails."""
        self.buffers._advance(self.segments)


def _empty(states: torch.Tensor) -> torch.Tensor:
    _, heads, _, dim = states.shape
    return states.new_empty((0, heads, 0, dim))


def _grown(buffer: torch.Tensor, rows: int, slots: int) -> torch.Tensor:
    """Return `buffer`, or a larger copy: capacities double, so that copying stays linear."""
    had_rows, heads, had_slots, dim = buffer.shape
    if rows <= had_rows and slots <= had_slots:
        return buffer
    shape = (
        rows if rows <= had_rows or had_rows == 0 else max(rows, 2 * had_rows),
        heads,
        had_slots if slots <= had_slots else max(slots + _FEWEST_SLOTS, 2 * had_slots),
        dim,
    )
    # Zeros: a weight of nothing times an uninitialised value could be NaN.
    grown = buffer.new_zeros((max(shape[0], had_rows), *shape[1:]))
    grown[:had_rows, :, :had_slots] = buffer
    return grown
