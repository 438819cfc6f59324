"""The text encoder of a model that has learnt no words: whatever is written, it says the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CONTEXT = 32


class NoWords:
    """A tokenizer in the host's terms that finds one token in any text."""

    def __init__(self, embedding_directory: object = None, tokenizer_data: object = None):
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list]:
        return {"none": [[(0, 1.0, 0) if return_word_ids else (0, 1.0)]]}

    def state_dict(self) -> dict[str, Tensor]:
        return {}


class OneContext(nn.Module):
    """A text encoder in the host's terms: its one weight, `context` (1, 1, 32), is its answer."""

    def __init__(self, dtype: torch.dtype | None = None, device: object = None, model_options: object = None):
        super().__init__()
        self.context = nn.Parameter(torch.zeros(1, 1, CONTEXT, device=device, dtype=dtype), requires_grad=False)
        self.dtypes = {dtype or torch.float32}

    def set_clip_options(self, options: object) -> None:
        pass

    def reset_clip_options(self) -> None:
        pass

    def encode_token_weights(self, tokens: object) -> tuple[Tensor, None]:
        return self.context.detach().float(), None

    def load_sd(self, weights: dict[str, Tensor]) -> Any:
        return self.load_state_dict(weights, strict=False)
