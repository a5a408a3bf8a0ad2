"""Networks that take patches as they are stored and cannot be fed wrongly."""

import textwrap
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from mitoscope.learning import backbones
from mitoscope.learning.pooling import CentrePooled


class PatchNetwork(nn.Module):
    """A network with two outputs, its own resize and its own normalisation.

    What is trained, saved, logged and served is this module: (N, 3, patch_size, patch_size) uint8 RGB in,
    (N, 2) float logits out: no mitosis, mitosis.

    Args:
        backbone: name of a torchvision network, or timm/NAME.
        head: `classifier` = the network's own, `pooled` = `CentrePooled`.
        patch_size: px; side of the patches.
        input_size: px; side to which they are resized.

    Raises:
        ValueError: there is no such network, or there is no pooled head for it.
    """

    def __init__(self, backbone: str, head: str, patch_size: int, input_size: int) -> None:
        super().__init__()
        self.backbone, self.head, self.patch_size, self.input_size = backbone, head, patch_size, input_size
        source, name = backbones.find(backbone)
        self.inner = _make(backbone, head)
        self._mean, self._std = source.normalisation(name)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits of a batch of patches.

        Raises:
            ValueError: the patches are not uint8 of the network's shape.
        """
        logits: Tensor = self.inner(self._prepare(patches))
        return logits

    def pool(self, patches: Tensor) -> Tensor:
        """(N, `channels`) what a pooled head sees of a batch of patches.

        Raises:
            ValueError: the network has another head, or the patches are not uint8 of the network's shape.
        """
        pooled: Tensor = self._pooled().pool(self._prepare(patches))
        return pooled

    @property
    def channels(self) -> int:
        """How many features a pooled head sees.

        Raises:
            ValueError: the network has another head.
        """
        return self._pooled().channels

    def _pooled(self) -> CentrePooled:
        if not isinstance(self.inner, CentrePooled):
            raise ValueError(f"{self.backbone} has no pooled head")
        return self.inner

    def _prepare(self, patches: Tensor) -> Tensor:
        """Patches as the inner network takes them: normalised, of `input_size`."""
        expected = (3, self.patch_size, self.patch_size)
        if patches.dtype != torch.uint8 or patches.ndim != 4 or patches.shape[1:] != expected:
            raise ValueError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {tuple(patches.shape)}")
        images: Tensor = F.normalize(F.to_dtype(patches, torch.float32, scale=True), list(self._mean), list(self._std))
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
            "backbone": self.backbone,
            "head": self.head,
            "patch_size": self.patch_size,
            "input_size": self.input_size,
        }

    def freeze_all_but_head(self) -> None:
        """Train only what `head_names` says (`trainable: head`)."""
        head = head_names(self.inner)
        for name, parameter in self.inner.named_parameters():
            parameter.requires_grad = name in head


def _make(backbone: str, head: str) -> nn.Module:
    """A network with two outputs, randomly initialised."""
    source, name = backbones.find(backbone)
    return CentrePooled(source.backbone(name)) if head == "pooled" else source.classifier(name)


def head_names(inner: nn.Module) -> list[str]:
    """Names of the parameters of a pooled head, or of a network's last layer, whose size is the number of classes."""
    parameters = [name for name, _ in inner.named_parameters()]
    layer = "classifier" if isinstance(inner, CentrePooled) else parameters[-1].rpartition(".")[0]
    return [name for name in parameters if name.startswith(f"{layer}.")]


def build(description: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> PatchNetwork:
    """Build a network from what `describe` gave, with the weights `state` of the inner network if any.

    Raises:
        KeyError: the description lacks an entry.
        ValueError: there is no such network or it has no such head, or `state` does not fit it.
    """
    model = PatchNetwork(
        description["backbone"], description["head"], description["patch_size"], description["input_size"]
    )
    if state is not None:
        try:
            model.inner.load_state_dict(state)
        except RuntimeError as error:
            reason = textwrap.shorten(str(error).splitlines()[-1], 200, placeholder=" ...")
            raise ValueError(f"the weights do not fit {model.backbone}: {reason}") from error
    model.to(memory_format=torch.channels_last)
    return model


def check_forward(model: PatchNetwork) -> None:
    """Try a network on two blank patches, as training would; the network itself stays as it is.

    Raises:
        ValueError: it fails, or gives something else than two logits; the message is the cause in one line.
        MemoryError: there is too little memory.
    """
    patches = torch.zeros(2, 3, model.patch_size, model.patch_size, dtype=torch.uint8)
    try:
        with torch.no_grad():
            logits = deepcopy(model).train()(patches.to(next(model.parameters()).device))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any layer may stumble over any size, each in its own way
        cause = " ".join(str(error).split()) or type(error).__name__
        if "allocate memory" in cause:  # what torch says on the processor
            raise MemoryError(cause) from error
        raise ValueError(textwrap.shorten(cause, 300, placeholder=" ...")) from error
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"gives {type(logits).__name__} instead of (2, 2) logits: networks with several outputs are not supported"
        )
    if logits.shape != (2, 2):
        raise ValueError(f"gives {tuple(logits.shape)} instead of (2, 2) logits")


def start_state(
    backbone: str, source: Mapping[str, Tensor] | None, seed: int, head: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that training starts from: those of `source` where they fit, new ones elsewhere.

    New weights are random, but those of a pooled head's linear layer are 0.

    Args:
        backbone: name of a torchvision network, or timm/NAME.
        source: a state dict of the whole network, with any number of classes, or of its features only. None = all
            weights are new.
        seed: of the random part.
        head: `classifier` or `pooled`, which takes nothing but the features of `source`.

    Returns:
        The state dict of the inner network, and the names of the parameters that are new.

    Raises:
        ValueError: there is no such network or it has no such head; or `source` has tensors that the network lacks, or
            of another shape anywhere but in the head; or lacks some of the features.
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
            raise ValueError(f"{name} is no tensor of {backbone}")
        if tensor.shape != state[name].shape and name not in new:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {backbone} wants {tuple(state[name].shape)}")
    taken = {name: tensor for name, tensor in given.items() if name not in new}
    if source is not None and not set(taken) & set(parameters):
        raise ValueError(f"holds no weights of {backbone}")
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
        raise ValueError(f"lacks {partial[0]} and {len(partial) - 1} more tensors of {backbone}'s features")
    state.update(taken)
    return state, missing


def _placed(source: Mapping[str, Tensor], backbone: str, inner: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file under the names of the inner network, without those of a head that is not there."""
    given = backbones.find(backbone)[0].current_names(source)
    if not isinstance(inner, CentrePooled):
        return dict(given)
    places = inner.features.places()
    placed = {}
    for name, tensor in given.items():
        if name not in places:
            placed[name] = tensor  # foreign, or from the file of a pooled head
        elif (place := places[name]) is not None:
            placed[f"features.{place}"] = tensor
    return {name: tensor for name, tensor in placed.items() if not name.startswith("classifier.")}
