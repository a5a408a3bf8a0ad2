"""Several networks side by side, such as `resnet18+vgg11`: the pooled head sees the levels of all of them."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from mitoscope.learning.backbones import Backbone, Colour, Download, find, parts


class _SideBySide(Backbone):
    """Networks that all look at the same image.

    Args:
        name: their names, joined by +.

    Raises:
        ValueError: there is no such network.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(source.backbone(part) for source, part in map(find, parts(name)))
        self.channels = [count for part in self._backbones() for count in part.channels]

    def _backbones(self) -> list[Backbone]:
        return cast(list[Backbone], list(self.parts))

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `Backbone.forward`: the levels of the first network, then those of the next."""
        return [level for part in self._backbones() for level in part(images)]

    def places(self) -> dict[str, str | None]:
        """As `Backbone.places`; the names of a network's tensors begin with its number, as `together` makes them."""
        return {
            f"{number}.{name}": place and f"parts.{number}.{place}"
            for number, part in enumerate(self._backbones())
            for name, place in part.places().items()
        }


def together(name: str, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the start weights of the networks as one state dict.

    Args:
        name: the networks' names, joined by +.
        states: the state dict of each, in this order.
    """
    return {
        f"{number}.{tensor_name}": tensor
        for number, (part, state) in enumerate(zip(parts(name), states, strict=True))
        for tensor_name, tensor in find(part)[0].current_names(state).items()
    }


def backbone(name: str) -> Backbone:
    """As `Source.backbone`."""
    return _SideBySide(name)


def classifier(name: str) -> nn.Module:
    """As `Source.classifier`, but always an error."""
    raise ValueError(f"{name}: networks side by side have no head of their own; set model.head to pooled")


def normalisation(name: str) -> tuple[Colour, Colour]:
    """As `Source.normalisation`.

    Raises:
        ValueError: the networks expect different ones, and they get the same image.
    """
    expected = {source.normalisation(part) for source, part in map(find, parts(name))}
    if len(expected) > 1:
        raise ValueError(f"{name}: these networks expect images that are normalised in different ways")
    return expected.pop()


def current_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As `Source.current_names`; `together` has renamed the tensors."""
    return state


def imagenet_weights(name: str) -> Download:
    """As `Source.imagenet_weights`, but always an error: each network has its own."""
    raise ValueError(f"{name}: each of these networks has ImageNet weights of its own")
