"""Fast kernels for the one thing that costs: many queries, all of the frozen prefix.

    cpu_flash        PyTorch's flash attention for CPUs
    cuda_flash       FlashAttention-2 as built into PyTorch; fp16 and bf16
    cuda_efficient   the memory-efficient kernel built into PyTorch; fp32 too
    reference        plain PyTorch, anywhere

They are PyTorch's own operators below `scaled_dot_product_attention`, which drops the log-sum-exp
that merging needs. Such operators are private, so none is trusted: before its first use a kernel
must reproduce the reference on the very device, dtype and head size, or it is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from ttt_core.attention.reference import Attended, attend

KernelName = Literal["cpu_flash", "cuda_flash", "cuda_efficient", "reference"]

Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, "torch.Tensor | None"], Attended]

_aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Kernel:
    """One way to attend.

    Attributes:
        name: What reports call it.
        run: (query, keys, values, scale, mask) to `Attended`, as `reference.attend` takes them.
        takes_masks: Whether `mask` may be given; every query must see some key even then.
    """

    name: KernelName
    run: Run
    takes_masks: bool = False


def _cpu_flash(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> Attended:
    if mask is not None:
        mask = query.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, attn_mask=mask, scale=scale
    )
    return Attended(out.float(), lse)


def _cuda_flash(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> Attended:
    out, lse = _aten._scaled_dot_product_flash_attention(query, keys, values, scale=scale)[:2]
    return Attended(out.float(), lse[..., : query.shape[-2]])


def _cuda_efficient(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> Attended:
    out, lse = _aten._scaled_dot_product_efficient_attention(
        query, keys, values, None, True, scale=scale
    )[:2]
    return Attended(out.float(), lse[..., : query.shape[-2]])  # Padded to whole warps.


def _reference(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> Attended:
    return attend(query, (keys,), values, scale=scale, mask=mask)


REFERENCE = Kernel("reference", _reference, takes_masks=True)
_KERNELS = {
    "cpu_flash": Kernel("cpu_flash", _cpu_flash, takes_masks=True),
    "cuda_flash": Kernel("cuda_flash", _cuda_flash),
    "cuda_efficient": Kernel("cuda_efficient", _cuda_efficient),
    "reference": REFERENCE,
}


@cache
def choose_kernel(
    device: torch.device, dtype: torch.dtype, head_dim: int, value_dim: int, wanted: str = "auto"
) -> Kernel:
    """Return the fastest kernel that is right here; `wanted` names the only one to consider."""
    for kernel in _candidates(device, dtype) if wanted == "auto" else [_KERNELS[wanted]]:
        if kernel is REFERENCE or _is_right(kernel, device, dtype, head_dim, value_dim):
            return kernel
    return REFERENCE


def _candidates(device: torch.device, dtype: torch.dtype) -> list[Kernel]:
    if device.type == "cpu":
        return [_KERNELS["cpu_flash"]]
    if device.type != "cuda":
        return []
    names = ("cuda_flash", "cuda_efficient") if dtype in _HALF else ("cuda_efficient",)
    return [_KERNELS[name] for name in names]


def _is_right(
    kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int, value_dim: int
) -> bool:
    """Compare a kernel with the reference on a little data, odd in every length."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 2, 3, head_dim), (1, 2, 67, head_dim), (1, 2, 67, value_dim))
    query, keys, values = (
        torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes
    )
    scale = head_dim**-0.5
    causal = torch.ones(1, 1, 3, 67, dtype=torch.bool, device=device).tril(64)
    masks = [None, causal] if kernel.takes_masks else [None]
    expected = [attend(query, (keys,), values, scale=scale, mask=mask) for mask in masks]
    try:
        found = [kernel.run(query, keys, values, scale, mask) for mask in masks]
    except torch.OutOfMemoryError:
        raise  # Says nothing about the kernel.
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        logging.getLogger(__name__).debug("kernel %s is not available: %s", kernel.name, error)
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    return all(
        one.shape == other.shape and torch.allclose(one, other, atol=tolerance, rtol=tolerance)
        for pair in zip(found, expected, strict=True)
        for one, other in zip(*pair, strict=True)
    )
