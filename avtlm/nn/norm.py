"""Layer norm that stays in float32 under autocast on every device."""

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm whose output is float32 under autocast, as it is on a GPU: on a CPU the residual stream behind it would be bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() if x.dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu") else x)
