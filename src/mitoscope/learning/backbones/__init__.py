"""Sources of networks: one module of this package per source, found by name.

`resnet18` comes from torchvision, and `timm/resnet18` from the module `timm` in this package. A new module is found
automatically; it must have the functions of `Source`. Names joined by + are networks side by side.
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn

Colour = tuple[float, float, float]
# Mean and standard deviation of ImageNet's pixels (0 to 1), which ImageNet weights expect.
IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module, ABC):
    """A network without its head.

    Attributes:
        channels: number of channels of each level.
    """

    channels: list[int]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the activations (N, channels, height, width) of each level for (N, 3, S, S) normalised images."""

    @abstractmethod
    def places(self) -> Mapping[str, str | None]:
        """Map the tensors of a start weights file to this module.

        Returns:
            For every name in the state dict of the whole network, the name in this module's state dict, or None for a
            tensor that the new head replaces.
        """


class Download(NamedTuple):
    """A file of start weights.

    Attributes:
        url: address of the file.
        file: name of the file.
        sha256: the first 8 or more hexadecimal digits of its hash.
    """

    url: str
    file: str
    sha256: str


class Source(Protocol):
    """The interface of a module in this package. Functions raise ValueError if there is no network of that name."""

    def backbone(self, name: str) -> Backbone:
        """Return the network without its head, randomly initialised."""

    def classifier(self, name: str) -> nn.Module:
        """Return the network with two outputs, randomly initialised; its last parameters belong to the last layer."""

    def normalisation(self, name: str) -> tuple[Colour, Colour]:
        """Return the mean and standard deviation of pixels (0 to 1) that the network's start weights expect."""

    def current_names(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Rename the tensors of a start weights file to the network's current names."""

    def imagenet_weights(self, name: str) -> Download:
        """Return the download of a state dict trained on ImageNet."""


def find(backbone: str) -> tuple[Source, str]:
    """Return the module that provides a backbone, and the backbone's name in that module.

    Raises:
        ValueError: there is no such module, or `backbone` names a network twice.
    """
    if len(names := parts(backbone)) > 1:
        if len({find(name) for name in names}) < len(names):
            raise ValueError(f"{backbone}: names a network twice")
        return cast(Source, import_module("mitoscope.learning.side_by_side")), backbone
    prefix, slash, name = backbone.partition("/")
    if not slash:
        prefix, name = "torchvision", backbone
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if prefix not in known:
        raise ValueError(f"{backbone}: networks come from {' and '.join(known)}, not from {prefix!r}")
    return cast(Source, import_module(f"{__name__}.{prefix}")), name


def parts(backbone: str) -> list[str]:
    """Return the networks that stand side by side in a backbone: the one, or those joined by +."""
    return [name.strip() for name in backbone.split("+")]


def versions(backbone: str) -> dict[str, str]:
    """Return the versions of the packages whose code a backbone runs, by name."""
    packages = ("torchvision", "timm") if "timm/" in backbone else ("torchvision",)
    return {package: version(package) for package in packages}


def imagenet_weights(backbone: str) -> Download:
    """Return the download of a backbone's ImageNet weights.

    Raises:
        ValueError: there is no such network, or it has no ImageNet weights to download.
    """
    source, name = find(backbone)
    return source.imagenet_weights(name)
