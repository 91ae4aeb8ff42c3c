"""What can this machine do at best? Matrix rate and bandwidth, measured in the run they judge.

square      one large square product in the model's dtype: the most the machine gives
own         the model's own linear layers, every one of its weights in turn, forward and with
            respect to the input, at the number of tokens asked: what its shapes allow
bandwidth   the faster of summing a large buffer and copying one (read and written bytes)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.measure import Timed, interleaved
from bench.options import Setting

_SQUARE = {"cpu": 1_536, "cuda": 8_192}
BUFFER_BYTES = {"cpu": 2**27, "cuda": 2**30}  # Far more than a cache holds.


@dataclass(frozen=True)
class Rates:
    """Operations (two to a multiply-add) and bytes per second."""

    square: float
    own: float
    bandwidth: float


Work = tuple[Callable[[int], None], float]
"""What to run, and the operations or bytes in it."""


class Gauges:
    """The works to time: among the peers that the rates are to judge, in the same rounds."""

    def __init__(self, setting: Setting, tokens: int) -> None:
        size = BUFFER_BYTES[setting.device.type]
        self._works: dict[str, Work] = {
            "square": _square(setting),
            "own": _own(setting, tokens),
            "sum": _sum(setting, size),
            "copy": _copy(setting, size),
        }
        for work in self.peers.values():
            work(0)  # Warm up.

    @property
    def peers(self) -> dict[str, Callable[[int], None]]:
        """What to hand to `bench.measure.interleaved`."""
        return {f"rate: {name}": work for name, (work, _) in self._works.items()}

    def rates(self, times: Mapping[str, Timed[Any]]) -> Rates:
        """Turn what `interleaved` measured into rates: medians, as of all that they judge."""
        rate = {
            name: amount / times[f"rate: {name}"].median
            for name, (_, amount) in self._works.items()
        }
        return Rates(rate["square"], rate["own"], max(rate["sum"], rate["copy"]))


def measure_rates(setting: Setting, tokens: int, *, rounds: int = 5) -> Rates:
    """Measure the rates on their own."""
    gauges = Gauges(setting, tokens)
    return gauges.rates(interleaved(gauges.peers, rounds=rounds, device=setting.device))


def _square(setting: Setting) -> Work:
    n = min(_SQUARE[setting.device.type], 16 * setting.shape.hidden)
    a = torch.randn(n, n, device=setting.device).to(setting.dtype)
    out = torch.empty_like(a)

    def work(_: int) -> None:
        torch.mm(a, a, out=out)

    return work, 2.0 * n**3


def _own(setting: Setting, tokens: int) -> Work:
    weights = [m.weight for m in setting.model.base_model.modules() if isinstance(m, nn.Linear)]
    widths = {width for weight in weights for width in weight.shape}
    inputs = {
        width: torch.randn(tokens, width, device=setting.device).to(setting.dtype)
        for width in widths
    }

    def work(_: int) -> None:
        with torch.no_grad():
            for weight in weights:
                nn.functional.linear(inputs[weight.shape[1]], weight)
                torch.mm(inputs[weight.shape[0]], weight)

    return work, 4.0 * tokens * sum(weight.numel() for weight in weights)


def _sum(setting: Setting, size: int) -> Work:
    source = torch.ones(size // 4, device=setting.device)

    def work(_: int) -> None:
        source.sum()

    return work, float(source.nbytes)


def _copy(setting: Setting, size: int) -> Work:
    source = torch.ones(size // 4, device=setting.device)
    target = torch.empty_like(source)

    def work(_: int) -> None:
        target.copy_(source)

    return work, 2.0 * source.nbytes
