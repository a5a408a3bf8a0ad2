"""Torchvision's classification networks."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mitoscope.learning.backbones import IMAGENET, Backbone, Colour, Download
from mitoscope.learning.vision import models

_TRIAL = 64  # px; the smallest multiple of 32 that all these networks accept
# AlexNet keeps its last resolution over three convolutions, and by the general rule its last level would be the pooling
# after them. Instead every convolution is a level; the published figures of its pooled head were reached this way.
_LEVELS = {"alexnet": ("1", "4", "7", "9", "11")}
# Networks whose layers form a simple sequence.
_IN_A_ROW = (
    models.AlexNet,
    models.ConvNeXt,
    models.DenseNet,
    models.EfficientNet,
    models.MNASNet,
    models.MobileNetV2,
    models.MobileNetV3,
    models.RegNet,
    models.ResNet,
    models.ShuffleNetV2,
    models.SqueezeNet,
    models.VGG,
)
_CONTAINERS, _HEAD = ("features", "layers", "trunk_output"), ("avgpool", "classifier", "fc")


class _Layers(Backbone):
    """The layers of a network as a sequence; the last layer at each resolution is a level.

    Args:
        name: name of the network.
        network: the network with the layers.

    Raises:
        ValueError: the network's layers do not form a simple sequence.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, _IN_A_ROW):
            raise ValueError(f"there is no pooled head for {name}, because its layers do not form a simple sequence")
        self._places: dict[str, str | None] = dict.fromkeys(network.state_dict())
        for full, layer in _layers(network).items():
            short = full.rpartition(".")[2]
            self._places |= {f"{full}.{tensor}": f"{short}.{tensor}" for tensor in layer.state_dict()}
            self.add_module(short, layer)
        shapes = self._shapes()
        last_at = {shape[-2:]: layer for layer, shape in shapes.items()}
        self.levels = _LEVELS.get(name) or tuple(last_at.values())
        self.channels = [shapes[layer][1] for layer in self.levels]

    def _shapes(self) -> dict[str, torch.Size]:
        """Return the output shape of every layer for a blank image."""
        shapes, activations = {}, torch.zeros(1, 3, _TRIAL, _TRIAL)
        self.eval()
        with torch.no_grad():
            for name, layer in self.named_children():
                activations = layer(activations)
                shapes[name] = activations.shape
        self.train()
        return shapes

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `Backbone.forward`."""
        levels, activations = [], images
        for name, layer in self.named_children():
            activations = layer(activations)
            if name in self.levels:
                levels.append(activations)
            if len(levels) == len(self.levels):
                break  # layers after the last level serve the network's own classifier
        return levels

    def places(self) -> dict[str, str | None]:
        """As `Backbone.places`."""
        return self._places


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers before the pooling by their full names, in order."""
    found: dict[str, nn.Module] = {}
    for child, layer in network.named_children():
        if child in _CONTAINERS:
            found |= {f"{child}.{name}": inside for name, inside in layer.named_children()}
        elif child not in _HEAD:
            found[child] = layer
    return found


def _make(name: str) -> nn.Module:
    if name not in models.list_models(module=models):  # without the networks for segmentation and detection
        raise ValueError(f"torchvision has no classification network {name!r}")
    network: nn.Module = models.get_model(name, weights=None, num_classes=2)
    return network


def backbone(name: str) -> Backbone:
    """As `Source.backbone`."""
    return _Layers(name, _make(name))


def classifier(name: str) -> nn.Module:
    """As `Source.classifier`."""
    return _make(name)


def normalisation(name: str) -> tuple[Colour, Colour]:
    """As `Source.normalisation`."""
    return IMAGENET


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `Source.current_names`: torchvision's DenseNet files have `norm.1` where the module has `norm1`."""
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
    return {old.sub(r"\1\2.", name): tensor for name, tensor in state.items()}


def imagenet_weights(name: str) -> Download:
    """As `Source.imagenet_weights`."""
    try:
        url: str = models.get_model_weights(name)["IMAGENET1K_V1"].url
    except (ValueError, KeyError) as error:
        raise ValueError(f"torchvision has no network {name!r} with ImageNet weights") from error
    file = url.rpartition("/")[2]
    # torchvision puts the first digits of the file's SHA-256 in its name.
    return Download(url, file, file.rpartition(".")[0].rpartition("-")[2])
