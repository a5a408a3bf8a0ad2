"""Networks that take stored patches directly, and do their own resizing and normalisation."""

import textwrap
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from mitoscope.learning import backbones
from mitoscope.learning.pooling import CentrePooled, LastLayer
from mitoscope.learning.vision import functional as F


class PatchNetwork(nn.Module):
    """A network with two outputs, which includes its resizing and normalisation.

    This module is trained, saved, logged and served. It takes (N, 3, patch_size, patch_size) uint8 RGB and returns
    (N, 2) float logits: no mitosis, mitosis.

    Args:
        backbone: name of a torchvision network, or timm/NAME.
        head: `classifier` = the network's own head, `pooled` = `CentrePooled`.
        patch_size: side of the patches, px.
        input_size: side to which the patches are resized, px.

    Raises:
        ValueError: there is no such network, or no pooled head for it.
    """

    def __init__(self, backbone: str, head: str, patch_size: int, input_size: int) -> None:
        super().__init__()
        self.backbone, self.head, self.patch_size, self.input_size = backbone, head, patch_size, input_size
        source, name = backbones.find(backbone)
        self.inner = _make(backbone, head)
        self._mean, self._std = source.normalisation(name)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits of a batch of patches.

        Raises:
            ValueError: the patches are not uint8, or not of the network's patch size.
        """
        logits: Tensor = self.inner(self.prepare(patches))
        return logits

    def prepare(self, patches: Tensor) -> Tensor:
        """Normalise (N, 3, P, P) uint8 patches and resize them to `input_size`, for the inner network.

        Raises:
            ValueError: the patches are not uint8, or not of the network's patch size.
        """
        expected = (3, self.patch_size, self.patch_size)
        if patches.dtype != torch.uint8 or patches.ndim != 4 or patches.shape[1:] != expected:
            raise ValueError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {tuple(patches.shape)}")
        patches = patches.contiguous()  # in the order of the store, enlarging takes several times as long
        images: Tensor = F.normalize(F.to_dtype(patches, torch.float32, scale=True), list(self._mean), list(self._std))
        if self.input_size != self.patch_size:
            # Enlarging needs no antialiasing: the result is the same, and it takes several times as long.
            images = F.resize(images, [self.input_size] * 2, antialias=self.input_size < self.patch_size)
        return images.contiguous(memory_format=torch.channels_last)

    @property
    def in_bfloat16(self) -> bool:
        """Whether all layers but the last may compute in bfloat16; the last one then computes in float32.

        Some networks end in a convolution, and some average two heads.
        """
        linear = (module for module in self.inner.modules() if isinstance(module, nn.Linear))
        return [type(module) for module in linear if module.out_features == 2] == [LastLayer]

    @property
    def pooled(self) -> CentrePooled:
        """The inner network with its pooled head.

        Raises:
            ValueError: the network has another head.
        """
        if not isinstance(self.inner, CentrePooled):
            raise ValueError(f"{self.backbone} has no pooled head")
        return self.inner

    def train(self, mode: bool = True) -> Self:
        """As `Module.train`, but frozen batch normalisation also keeps its statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """Return what `build` needs to create the same module."""
        return {
            "backbone": self.backbone,
            "head": self.head,
            "patch_size": self.patch_size,
            "input_size": self.input_size,
        }

    def freeze_all_but_head(self) -> None:
        """Make only the parameters in `head_names` trainable (`trainable: head`)."""
        head = head_names(self.inner)
        for name, parameter in self.inner.named_parameters():
            parameter.requires_grad = name in head


def _make(backbone: str, head: str) -> nn.Module:
    """Create a network with two outputs, randomly initialised."""
    source, name = backbones.find(backbone)
    if head == "pooled":
        return CentrePooled(source.backbone(name))
    network = source.classifier(name)
    layer_name = head_names(network)[0].rpartition(".")[0]
    layer = network.get_submodule(layer_name)
    if isinstance(layer, nn.Linear):
        last = LastLayer(layer.in_features, layer.out_features, device="meta")  # draws no random numbers
        last.weight, last.bias = layer.weight, layer.bias
        network.set_submodule(layer_name, last)
    return network


def head_names(inner: nn.Module) -> list[str]:
    """Return the names of the parameters of a pooled head, or of a network's last layer, which outputs the classes."""
    parameters = [name for name, _ in inner.named_parameters()]
    layer = "classifier" if isinstance(inner, CentrePooled) else parameters[-1].rpartition(".")[0]
    return [name for name in parameters if name.startswith(f"{layer}.")]


class _Unfilled(TorchFunctionMode):
    """Leaves most new weights unfilled, for networks whose weights are loaded next: drawing AlexNet's takes 0.4 s."""

    # Torch reports no other functions of `init`. `Tensor.normal_` and `Tensor.uniform_` must draw, because
    # `trunc_normal_` repeats them until the numbers lie within its limits.
    DRAW = (init.kaiming_uniform_, init.normal_, init.uniform_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or return its tensor as it is where `func` would draw random numbers."""
        kwargs = kwargs or {}
        return (args[0] if args else kwargs["tensor"]) if func in self.DRAW else func(*args, **kwargs)


def build(description: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> PatchNetwork:
    """Build a network from the output of `describe`.

    Args:
        description: backbone, head, patch_size and input_size.
        state: a state dict of the inner network, whose tensors become the network's own. None = random weights.

    Raises:
        KeyError: the description lacks an entry.
        ValueError: there is no such network, it has no such head, or `state` does not fit it.
    """
    with nullcontext() if state is None else _Unfilled():
        model = PatchNetwork(
            description["backbone"], description["head"], description["patch_size"], description["input_size"]
        )
    if state is not None:
        try:
            model.inner.load_state_dict(state, assign=True)
        except RuntimeError as error:
            reason = textwrap.shorten(str(error).splitlines()[-1], 200, placeholder=" ...")
            raise ValueError(f"the weights do not fit {model.backbone}: {reason}") from error
    model.float().to(memory_format=torch.channels_last)
    return model


def check_forward(model: PatchNetwork) -> None:
    """Run a copy of the network on two blank patches in training mode.

    Raises:
        ValueError: it fails, or its output is not two logits; the message gives the cause in one line.
        MemoryError: there is too little memory.
    """
    patches = torch.zeros(2, 3, model.patch_size, model.patch_size, dtype=torch.uint8)
    try:
        with torch.no_grad():
            logits = deepcopy(model).train()(patches.to(next(model.parameters()).device))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each layer rejects a wrong size in its own way
        cause = " ".join(str(error).split()) or type(error).__name__
        if "allocate memory" in cause:  # torch's message on the CPU
            raise MemoryError(cause) from error
        raise ValueError(textwrap.shorten(cause, 300, placeholder=" ...")) from error
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"returns {type(logits).__name__} instead of (2, 2) logits: networks with several outputs are not supported"
        )
    if logits.shape != (2, 2):
        raise ValueError(f"returns {tuple(logits.shape)} instead of (2, 2) logits")


def start_state(
    backbone: str, source: Mapping[str, Tensor] | None, seed: int, head: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights that training starts from: the features from `source`, and new weights for the head.

    New weights are random, except that those of a pooled head's linear layer are 0.

    Args:
        backbone: name of a torchvision network, or timm/NAME.
        source: a state dict of the whole network, with any number of classes, or of its features only. None = all
            weights are new.
        seed: seed of the random weights.
        head: `classifier` or `pooled`; the pooled head uses only the features of `source`.

    Returns:
        The state dict of the inner network, and the names of the parameters that are new.

    Raises:
        ValueError: there is no such network, or it has no such head; or `source` has tensors that the network lacks or,
            outside the head, tensors of another shape; or `source` lacks some of the features.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inner = _make(backbone, head)
        given = {} if source is None else _placed(source, backbone, inner)
    state = inner.state_dict()
    new = head_names(inner)
    parameters = [name for name, _ in inner.named_parameters()]
    for name, tensor in given.items():
        if name not in state:
            raise ValueError(f"{name} is not a tensor of {backbone}")
        if tensor.shape != state[name].shape and name not in new:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {backbone} needs {tuple(state[name].shape)}")
    taken = {name: tensor for name, tensor in given.items() if name not in new}
    if source is not None and not set(taken) & set(parameters):
        raise ValueError(f"contains no weights of {backbone}")
    missing = [name for name in parameters if name not in taken]
    # Running means and variances belong to the features; old files lack the batch counters.
    partial = [
        name
        for name in state
        if name not in taken
        and not name.startswith(("classifier.", "fc.", "head.", "heads."))
        and not name.endswith("num_batches_tracked")
    ]
    if source is not None and partial:
        raise ValueError(f"lacks {partial[0]} and {len(partial) - 1} more tensors of {backbone}'s features")
    state.update(taken)
    return state, missing


def _placed(source: Mapping[str, Tensor], backbone: str, inner: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a file to the names of the inner network, without those of a head that it does not have."""
    given = backbones.find(backbone)[0].current_names(source)
    if not isinstance(inner, CentrePooled):
        return dict(given)
    places = inner.features.places()
    placed = {}
    for name, tensor in given.items():
        if name not in places:
            placed[name] = tensor  # of another network, or from a file with a pooled head
        elif (place := places[name]) is not None:
            placed[f"features.{place}"] = tensor
    return {name: tensor for name, tensor in placed.items() if not name.startswith("classifier.")}
