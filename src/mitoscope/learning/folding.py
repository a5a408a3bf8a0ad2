"""The same network with fewer products, for scoring."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mitoscope.learning.vision import models


def fold(inner: nn.Module) -> nn.Module:
    """Return a network that computes the same, for scoring only, from the same weights.

    Before the first linear layer of AlexNet's and VGG's own heads, an adaptive average pool gives 6 x 6 or 7 x 7
    positions, whatever the size of the last level. With an input of 96 px AlexNet's last level has 2 x 2 positions, and
    each value goes into the layer nine times. There the weights of its copies are added first. That saves a fifth of
    all products. In training each copy is dropped on its own, so that all of them are needed.

    Args:
        inner: a network in evaluation mode, whose weights stay as they are while the returned one is used.
    """
    if not isinstance(inner, models.AlexNet | models.VGG):
        return inner
    layers = [layer for layer in inner.classifier if not isinstance(layer, nn.Dropout)]
    return nn.Sequential(inner.features, _Pooled(inner.avgpool, layers[0]), *layers[1:])


class _Pooled(nn.Module):
    """An adaptive average pool and the linear layer after it."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d, linear: nn.Linear) -> None:
        super().__init__()
        self.pool, self.linear = pool, linear
        self.folded: Tensor | None = None

    def forward(self, level: Tensor) -> Tensor:
        """Return the outputs of the linear layer for (N, C, H, W) values; H and W are the same in every call."""
        positions = level[0, 0].numel()
        if positions * level.shape[1] >= self.linear.in_features:
            outputs: Tensor = self.linear(self.pool(level).flatten(1))
            return outputs
        if self.folded is None:
            self.folded = self._fold(positions, level)
        return F.linear(level.flatten(1), self.folded, self.linear.bias)

    def _fold(self, positions: int, level: Tensor) -> Tensor:
        """Return the (out, C x H x W) weights that do what the pool and the layer do."""
        with torch.autocast(level.device.type, enabled=False):  # one rounding, after the sum
            each = torch.eye(positions, device=level.device).reshape(positions, 1, *level.shape[2:])
            copies: Tensor = self.pool(each).flatten(1)  # of each position, (H x W, positions of the pool)
            by_channel = self.linear.weight.reshape(-1, copies.shape[1])
            return (by_channel @ copies.T).reshape(self.linear.out_features, -1)
