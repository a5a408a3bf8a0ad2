"""Networks of the package timm (extra `timm`), with random weights or weights from a file."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from mitoscope.learning.backbones import IMAGENET, Backbone, Colour, Download


class _Features(Backbone):
    """A timm feature extractor, which returns the last activation of a network at each resolution.

    Args:
        name: name of the network.

    Raises:
        ValueError: timm has no such network, or no feature extractor for it.
    """

    extractor: Any  # timm has several classes of extractors

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.extractor = _create(name, features_only=True)
        self.channels = list(self.extractor.feature_info.channels())
        self._channels_last = getattr(self.extractor, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `Backbone.forward`."""
        levels: list[Tensor] = self.extractor(images)
        return [level.permute(0, 3, 1, 2) for level in levels] if self._channels_last else levels

    def places(self) -> dict[str, str | None]:
        """As `Backbone.places`."""
        own = self.state_dict()
        found: dict[str, str | None] = {}
        for name in _create(self.name, num_classes=2).state_dict():
            # Some extractors contain the whole network, others its children, or the entries of children that are lists.
            parts = (f"model.{name}", f"body.{name}", name, name.replace(".", "_", 1))
            here = (f"extractor.{part}" for part in parts)
            found[name] = next((place for place in here if place in own), None)
        return found


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError("networks named timm/NAME need the package timm: install the extra mitoscope[timm]") from error
    return timm


def _create(name: str, **settings: Any) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name):  # create_model would look up some names on the internet
        raise ValueError(f"timm has no network {name!r}")
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **settings)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"timm cannot build {name} with {settings}: {' '.join(str(error).split())}") from error
    return network


def backbone(name: str) -> Backbone:
    """As `Source.backbone`."""
    return _Features(name)


def classifier(name: str) -> nn.Module:
    """As `Source.classifier`."""
    return _create(name, num_classes=2)


def normalisation(name: str) -> tuple[Colour, Colour]:
    """As `Source.normalisation`."""
    expected = _timm().get_pretrained_cfg(name)
    return (expected.mean, expected.std) if expected else IMAGENET


def current_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As `Source.current_names`."""
    return state


def imagenet_weights(name: str) -> Download:
    """As `Source.imagenet_weights`, but always an error: timm's weights are on a hub with its own client."""
    raise ValueError(
        f"mitoscope downloads no ImageNet weights for timm/{name}: save its state dict and set the file in `weights`"
    )
