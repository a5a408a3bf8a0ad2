"""Networks that take patches as they are stored and cannot be fed wrongly."""

import textwrap
from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.transforms.v2 import functional as F

# The mean and standard deviation that torchvision's ImageNet weights were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The layers of a network's `features` that a pooled head sees, and their channels: the last one at each resolution of
# DenseNet161, every convolution of AlexNet.
_LEVELS = {
    "alexnet": {"1": 64, "4": 192, "7": 384, "9": 256, "11": 256},
    "densenet161": {"relu0": 96, "denseblock1": 384, "denseblock2": 768, "denseblock3": 2112, "norm5": 2208},
}


class CentrePooled(nn.Module):
    """A torchvision network's features with another head: a linear layer over every level, pooled over the middle.

    The network's own classifier sees the last level only, where little is left of how dark and how smooth a nucleus
    is, and AlexNet's has 54.5 million weights to learn from a hundred mitoses. Here the largest and the mean activation
    of every channel of every level are taken over the middle half of the level's height and width (rounded outwards;
    all of it below 4 px), where the candidate lies. Source of the idea to use all levels at once: Hariharan et al.,
    "Hypercolumns for object segmentation and fine-grained localization", CVPR 2015.
    """

    def __init__(self, features: nn.Module, levels: Mapping[str, int]) -> None:
        super().__init__()
        self.features, self.levels = features, levels
        self.channels = 2 * sum(levels.values())
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
        activations = images
        for name, layer in self.features.named_children():
            activations = layer(activations)
            if name in self.levels:
                height, width = activations.shape[-2:]
                middle = activations[..., height // 4 : height - height // 4, width // 4 : width - width // 4].relu()
                pooled += [middle.amax((2, 3)), middle.mean((2, 3))]
            if len(pooled) == 2 * len(self.levels):
                break  # what follows the last level is for the network's own classifier
        # Activations have long tails; their logarithm keeps a few strong ones from deciding alone.
        return torch.cat(pooled, dim=1).log1p()


def _make(arch: str, head: str) -> nn.Module:
    """A torchvision network with two outputs, randomly initialised.

    Raises:
        ValueError: torchvision has no such network, or there is no pooled head for it.
    """
    network: nn.Module = get_model(arch, weights=None, num_classes=2)
    if head == "classifier":
        return network
    if arch not in _LEVELS:
        raise ValueError(f"a pooled head is for {' and '.join(_LEVELS)}, not for {arch}")
    return CentrePooled(cast(nn.Module, network.features), _LEVELS[arch])


class PatchNetwork(nn.Module):
    """A torchvision classification network with two outputs, and its own resize and normalisation.

    Its head is torchvision's own (`classifier`) or `CentrePooled` (`pooled`).

    What is trained, saved, logged and served is this module: (N, 3, patch_size, patch_size) uint8 RGB in,
    (N, 2) float logits out: no mitosis, mitosis.
    """

    def __init__(self, arch: str, head: str, patch_size: int, input_size: int) -> None:
        super().__init__()
        self.arch, self.head, self.patch_size, self.input_size = arch, head, patch_size, input_size
        self.network = _make(arch, head)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits of a batch of patches.

        Raises:
            ValueError: the patches are not uint8 of the network's shape.
        """
        logits: Tensor = self.network(self._prepare(patches))
        return logits

    def pool(self, patches: Tensor) -> Tensor:
        """(N, `channels`) what a pooled head sees of a batch of patches.

        Raises:
            ValueError: the head is another, or the patches are not uint8 of the network's shape.
        """
        pooled: Tensor = self._pooled().pool(self._prepare(patches))
        return pooled

    @property
    def channels(self) -> int:
        """How many features a pooled head sees.

        Raises:
            ValueError: the head is another.
        """
        return self._pooled().channels

    def _pooled(self) -> CentrePooled:
        if not isinstance(self.network, CentrePooled):
            raise ValueError(f"{self.arch} has no pooled head")
        return self.network

    def _prepare(self, patches: Tensor) -> Tensor:
        """Patches as the inner network takes them: normalised, of `input_size`."""
        expected = (3, self.patch_size, self.patch_size)
        if patches.dtype != torch.uint8 or patches.ndim != 4 or patches.shape[1:] != expected:
            raise ValueError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {tuple(patches.shape)}")
        images: Tensor = F.normalize(F.to_dtype(patches, torch.float32, scale=True), list(_MEAN), list(_STD))
        if self.input_size != self.patch_size:
            images = F.resize(images, [self.input_size, self.input_size], antialias=True)
        return images.contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Self:
        """As `Module.train`, but frozen batch normalisation keeps its statistics too."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """What `build` needs to make the same module again."""
        return {
            "arch": self.arch,
            "head": self.head,
            "patch_size": self.patch_size,
            "input_size": self.input_size,
        }

    def freeze_all_but_head(self) -> None:
        """Train only what `head_names` says (`trainable: head`)."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = name in head_names(self.network)


def head_names(network: nn.Module) -> list[str]:
    """Names of the parameters of a pooled head, or of a network's last layer, whose size is the number of classes."""
    if isinstance(network, CentrePooled):
        return [name for name, _ in network.named_parameters() if name.startswith("classifier.")]
    last = list(network.named_parameters())[-1][0].rpartition(".")[0]
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] == last]


def build(description: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> PatchNetwork:
    """Build a network from what `describe` gave, with the weights `state` of the inner network if any.

    Raises:
        ValueError: torchvision has no such network or it has no such head, or `state` does not fit it.
    """
    network = PatchNetwork(
        description["arch"],
        description.get("head", "classifier"),  # files from before there was a choice lack it
        description["patch_size"],
        description["input_size"],
    )
    if state is not None:
        try:
            network.network.load_state_dict(state)
        except RuntimeError as error:
            reason = textwrap.shorten(str(error).splitlines()[-1], 200, placeholder=" ...")
            raise ValueError(f"the weights do not fit {network.arch}: {reason}") from error
    network.to(memory_format=torch.channels_last)
    return network


def start_state(
    arch: str, source: Mapping[str, Tensor] | None, seed: int, head: str = "classifier"
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that training starts from: those of `source` where they fit, new ones elsewhere.

    New weights are random, but those of a pooled head's linear layer are 0.

    Args:
        arch: name of a torchvision classification network.
        source: a state dict of this network, with any number of classes, or of its features only. None = all random.
        seed: of the random part.
        head: `classifier` or `pooled`, which takes nothing but the features of `source`.

    Returns:
        The state dict of the network with two outputs, and the names of the parameters that are new.

    Raises:
        ValueError: torchvision has no such network or it has no such head; or `source` has tensors that the network
            lacks, or of another shape anywhere but in the head; or it fills nothing below the classifier.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _make(arch, head)
    state = network.state_dict()
    new = head_names(network)
    parameters = [name for name, _ in network.named_parameters()]
    given = {} if source is None else _with_current_names(source, state)
    if head == "pooled":
        given = {name: tensor for name, tensor in given.items() if not name.startswith("classifier.")}
    for name, tensor in given.items():
        if name not in state:
            raise ValueError(f"{name} is no tensor of {arch}")
        if tensor.shape != state[name].shape and name not in new:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {arch} wants {tuple(state[name].shape)}")
    taken = {name: tensor for name, tensor in given.items() if name not in new}
    if source is not None and not set(taken) & set(parameters):
        raise ValueError(f"holds no weights of {arch}")
    missing = [name for name in parameters if name not in taken]
    # Running means and variances belong to the features; the counters beside them are absent from old files.
    partial = [
        name
        for name in state
        if name not in taken
        and not name.startswith(("classifier.", "fc.", "head.", "heads."))
        and not name.endswith("num_batches_tracked")
    ]
    if source is not None and partial:
        raise ValueError(f"lacks {partial[0]} and {len(partial) - 1} more tensors of {arch}'s features")
    state.update(taken)
    return state, missing


def _with_current_names(source: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of today: torchvision's DenseNet files say `norm.1` where the module says `norm1`."""
    renamed = {}
    for name, tensor in source.items():
        new = name
        for layer in ("norm", "relu", "conv"):
            for number in ("1", "2"):
                new = new.replace(f".{layer}.{number}.", f".{layer}{number}.")
        renamed[name if name in state else new] = tensor
    return renamed
