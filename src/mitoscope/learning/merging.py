"""The same network with fewer products, for scoring."""

import torch
from torch import nn

from mitoscope.learning.vision import models

_WORTH_IT = 2  # times as many positions after the pool as before it; with fewer, adding takes longer than it saves


def merge_repeats(inner: nn.Module, side: int) -> nn.Module:
    """Return a network that computes the same from the weights of now, with repeated inputs merged.

    Before the first linear layer of AlexNet's and VGG's own heads, an adaptive average pool gives 6 x 6 or 7 x 7
    positions, whatever the size of the last level. With an input of 96 px AlexNet's last level has 2 x 2 positions, and
    the layer gets each value nine times. Here the weights of the nine are added first, which saves a fifth of the
    network's products. Training needs AlexNet's copies: dropout treats each on its own.

    Args:
        inner: (N, 3, S, S) images -> (N, 2) logits; in evaluation mode.
        side: S, px.

    Returns:
        A network with the same inputs and outputs, which shares all other weights and layers; `inner` itself if it
        repeats few inputs.
    """
    if not isinstance(inner, models.AlexNet | models.VGG):
        return inner
    linear, *rest = (layer for layer in inner.classifier if not isinstance(layer, nn.Dropout))
    with torch.no_grad():
        level = inner.features(linear.weight.new_zeros(1, 3, side, side)).shape[2:]
        one_each = torch.eye(level.numel(), device=linear.weight.device).reshape(-1, 1, *level)
        shares = inner.avgpool(one_each).flatten(1)  # (positions of the level, positions after the pool)
        if shares.shape[1] < _WORTH_IT * level.numel():
            return inner  # type: ignore[no-any-return]
        weight = (linear.weight.reshape(-1, shares.shape[1]) @ shares.T).reshape(linear.out_features, -1)
    merged = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    merged.weight, merged.bias = nn.Parameter(weight), linear.bias
    return nn.Sequential(inner.features, nn.Flatten(), merged, *rest)
