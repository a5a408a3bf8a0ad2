"""Heads: one that uses all levels of a backbone, pooled around the candidate, and the last layer of every head."""

import torch
from torch import Tensor, nn

from mitoscope.learning.backbones import Backbone


class LastLayer(nn.Linear):
    """A linear layer that computes in float32, also where the layers before it compute in bfloat16.

    bfloat16 has few values near the ends of the scale of probabilities, where thresholds lie and patches are ranked.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return float32 outputs of (N, C) features of any precision."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class CentrePooled(nn.Module):
    """A backbone with a new head: a linear layer over all levels, each pooled over its middle.

    A network's own classifier sees only the last level, which retains little of how dark and how smooth a nucleus is.
    AlexNet's classifier also has 54.5 million weights to learn from a hundred mitoses. This head takes the maximum and
    the mean of every channel of every level, over the middle half of the level's height and width, where the candidate
    lies (rounded outwards; below 4 px, over the whole level). The idea of using all levels at once is from Hariharan et
    al., "Hypercolumns for object segmentation and fine-grained localization", CVPR 2015.
    """

    def __init__(self, features: Backbone) -> None:
        super().__init__()
        self.features = features
        self.channels = 2 * sum(features.channels)
        linear = LastLayer(self.channels, 2)
        # Thousands of random weights would add noise that a hundred mitoses cannot overcome.
        nn.init.zeros_(linear.weight)
        self.classifier = nn.Sequential(nn.BatchNorm1d(self.channels), nn.Dropout(0.5), linear)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 2) logits of (N, 3, S, S) normalised images."""
        logits: Tensor = self.classifier(self.pool(images))
        return logits

    def pool(self, images: Tensor) -> Tensor:
        """Return the (N, C) float32 features of (N, 3, S, S) normalised images, the input of the head."""
        pooled: list[Tensor] = []
        for level in self.features(images):
            height, width = level.shape[-2:]
            middle = level[..., height // 4 : height - height // 4, width // 4 : width - width // 4].relu()
            pooled += [middle.amax((2, 3)).float(), middle.mean((2, 3), dtype=torch.float32)]
        # Activations have long tails; the logarithm keeps a few strong ones from dominating.
        return torch.cat(pooled, dim=1).log1p()
