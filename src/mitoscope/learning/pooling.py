"""A head that sees all levels of a backbone, where the candidate lies."""

import torch
from torch import Tensor, nn

from mitoscope.learning.backbones import Backbone


class CentrePooled(nn.Module):
    """A backbone with another head: a linear layer over every level, pooled over the middle.

    The network's own classifier sees the last level only, where little is left of how dark and how smooth a nucleus
    is, and AlexNet's has 54.5 million weights to learn from a hundred mitoses. Here the largest and the mean activation
    of every channel of every level are taken over the middle half of the level's height and width (rounded outwards;
    all of it below 4 px), where the candidate lies. Source of the idea to use all levels at once: Hariharan et al.,
    "Hypercolumns for object segmentation and fine-grained localization", CVPR 2015.
    """

    def __init__(self, features: Backbone) -> None:
        super().__init__()
        self.features = features
        self.channels = 2 * sum(features.channels)
        linear = nn.Linear(self.channels, 2)
        # Thousands of random weights would be a noise that a hundred mitoses cannot outvote.
        nn.init.zeros_(linear.weight)
        self.classifier = nn.Sequential(nn.BatchNorm1d(self.channels), nn.Dropout(0.5), linear)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 2) logits of (N, 3, S, S) normalised images."""
        logits: Tensor = self.classifier(self.pool(images))
        return logits

    def pool(self, images: Tensor) -> Tensor:
        """(N, C) features of (N, 3, S, S) normalised images, which the head normalises and weighs."""
        pooled: list[Tensor] = []
        for level in self.features(images):
            height, width = level.shape[-2:]
            middle = level[..., height // 4 : height - height // 4, width // 4 : width - width // 4].relu()
            pooled += [middle.amax((2, 3)), middle.mean((2, 3))]
        # Activations have long tails; their logarithm keeps a few strong ones from deciding alone.
        return torch.cat(pooled, dim=1).log1p()
