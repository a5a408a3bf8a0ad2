"""Torchvision's classification networks."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision import models

from mitoscope.learning.backbones import IMAGENET, Backbone, Colour, Download

_TRIAL = 64  # px; the smallest multiple of 32 that all these networks take
# AlexNet keeps its last resolution over three convolutions, and the rule's last level would be what is pooled of them.
# Every convolution is a level instead: the published figures of its pooled head were reached with these.
_LEVELS = {"alexnet": ("1", "4", "7", "9", "11")}
# The networks whose layers take one another's output, and the children that only hold such layers.
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
    """Layers that take one another's output; the last one at each resolution is a level.

    Args:
        name: of the network.
        network: whose layers these are.

    Raises:
        ValueError: the network's layers are connected in another way.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, _IN_A_ROW):
            raise ValueError(f"there is no pooled head for {name}, whose layers do not simply follow one another")
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
        """The shape of every layer's output for a blank image."""
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
                break  # what follows the last level is for the network's own classifier
        return levels

    def places(self) -> dict[str, str | None]:
        """As `Backbone.places`."""
        return self._places


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers before the pooling by their full names, in their order."""
    found: dict[str, nn.Module] = {}
    for child, layer in network.named_children():
        if child in _CONTAINERS:
            found |= {f"{child}.{name}": inside for name, inside in layer.named_children()}
        elif child not in _HEAD:
            found[child] = layer
    return found


def _make(name: str) -> nn.Module:
    if name not in models.list_models(module=models):  # which also has networks for segmentation and detection
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
    """As `Source.current_names`: torchvision's DenseNet files say `norm.1` where the module says `norm1`."""
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
    return {old.sub(r"\1\2.", name): tensor for name, tensor in state.items()}


def imagenet_weights(name: str) -> Download:
    """As `Source.imagenet_weights`."""
    try:
        url: str = models.get_model_weights(name)["IMAGENET1K_V1"].url
    except (ValueError, KeyError) as error:
        raise ValueError(f"torchvision has no network {name!r} with ImageNet weights") from error
    file = url.rpartition("/")[2]
    # torchvision puts the start of the file's SHA-256 into its name.
    return Download(url, file, file.rpartition(".")[0].rpartition("-")[2])
