"""Where networks come from: one module of this package per source, found by name.

`resnet18` is torchvision's, `timm/resnet18` is that of the module `timm` here. A module that is added is found as well;
it has the functions of `Source`.
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn

Colour = tuple[float, float, float]
# The mean and standard deviation of ImageNet's pixels, between 0 and 1; what weights from there expect.
IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module, ABC):
    """A network without its head.

    Attributes:
        channels: of each level.
    """

    channels: list[int]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """The activations of every level, (N, channels, height, width), of (N, 3, S, S) normalised images."""

    @abstractmethod
    def places(self) -> Mapping[str, str | None]:
        """Where the tensors of a file of start weights belong.

        Returns:
            For every name in the state dict of the whole network the name in this module's, or None for what the head
            takes the place of.
        """


class Download(NamedTuple):
    """A file of start weights.

    Attributes:
        url: where it is.
        file: its name.
        sha256: the first hexadecimal digits of its hash, 8 or more.
    """

    url: str
    file: str
    sha256: str


class Source(Protocol):
    """What a module of this package offers. Everything raises ValueError where there is no such network."""

    def backbone(self, name: str) -> Backbone:
        """The network without its head, randomly initialised."""

    def classifier(self, name: str) -> nn.Module:
        """The network with two outputs, randomly initialised; the last of its parameters are the last layer's."""

    def normalisation(self, name: str) -> tuple[Colour, Colour]:
        """The mean and standard deviation that the network's start weights expect of pixels between 0 and 1."""

    def current_names(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of a file of start weights under the names that the network has today."""

    def imagenet_weights(self, name: str) -> Download:
        """A state dict that was trained on ImageNet."""


def find(backbone: str) -> tuple[Source, str]:
    """The module that a backbone comes from, and the backbone's name there.

    Raises:
        ValueError: there is no such module.
    """
    prefix, slash, name = backbone.partition("/")
    if not slash:
        prefix, name = "torchvision", backbone
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if prefix not in known:
        raise ValueError(f"{backbone}: networks come from {' and '.join(known)}, not from {prefix!r}")
    return cast(Source, import_module(f"{__name__}.{prefix}")), name


def imagenet_weights(backbone: str) -> Download:
    """Where a backbone's ImageNet weights are.

    Raises:
        ValueError: there is no such network, or there are no ImageNet weights of it to download.
    """
    source, name = find(backbone)
    return source.imagenet_weights(name)
