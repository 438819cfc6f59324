"""From one floating-point type to another, block after block, in the same memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import SCPError
from .pickle_machine import shown

# From 32768 elements on torch would use several threads, which on a busy machine wait for each other far longer than
# the cast itself takes one of them; and a piece stays in the cache.
_PIECE = 24576


class Caster:
    """Casts flat tensors; its memory is as large as the largest of them, and is used again for each.

    Fresh memory for each would take several times as long as the casting itself.
    """

    def __init__(self, source: str):
        self._source = source
        self._memory = np.empty(0, np.uint8)
        self._bits = np.empty(0, np.uint16)

    def cast(self, block: Tensor, dtype: torch.dtype, name: str) -> Tensor:
        """The block at the dtype, rounded to nearest; good until the next call.

        Args:
            block: one-dimensional.
            name: of the tensor it is a part of, for the message.

        Raises:
            SCPError: a value is too large for the dtype. What is infinite or no number already stays so.
        """
        if block.dtype is dtype:
            return block
        if self._memory.size < block.numel() * dtype.itemsize:
            self._memory = np.empty(block.numel() * dtype.itemsize, np.uint8)
        cast = torch.from_numpy(self._memory)[: block.numel() * dtype.itemsize].view(dtype)
        for ours, theirs in zip(cast.split(_PIECE), block.split(_PIECE), strict=True):
            ours.copy_(theirs)
        if self._may_be_infinite(cast) and not block.isinf().equal(cast.isinf()):
            worst = block[block.isfinite()].abs().max().item()
            raise SCPError(
                f"{self._source}: {shown(name)} holds the value {worst:.4g}, too large for {str(dtype)[6:]}, which "
                f"ends at {torch.finfo(dtype).max:.5g}. Choose another dtype."
            )
        return cast

    def _may_be_infinite(self, values: Tensor) -> bool:
        """Whether any is infinite or no number."""
        if values.dtype is not torch.float16:
            return not bool(values.isfinite().all())
        # By its bits: torch's own question takes many times as long.
        if self._bits.size < values.numel():
            self._bits = np.empty(values.numel(), np.uint16)
        bits = np.bitwise_and(
            values.view(torch.int16).numpy().view(np.uint16), 0x7FFF, out=self._bits[: values.numel()]
        )
        return bool(bits.max() >= 0x7C00)
