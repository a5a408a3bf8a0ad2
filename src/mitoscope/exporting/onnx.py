"""Networks as ONNX files, for programs without torch. Needs the extra `onnx`."""

import contextlib
import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mitoscope.errors import InputError
from mitoscope.learning.augment import crop
from mitoscope.learning.batches import PatchSet
from mitoscope.learning.merging import merge_repeats
from mitoscope.learning.networks import PatchNetwork

PATCHES, LOGITS, FEATURES = "patches", "logits", "features"  # names of the input and of the outputs
_SAMPLED, _BATCH = 256, 32  # patches that give the ranges of the int8 activations
_WEIGHTED = ("Conv", "Gemm", "MatMul")  # operators whose weights int8 makes smaller

Patches = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[np.float32]]
Run = Callable[[Patches], Outputs]
"""Runs a network on (N, 3, P, P) uint8 RGB patches; returns `logits` (N, 2), and `features` (N, C) if it has them."""


class _Network(nn.Module):
    """A network with its preprocessing, and with the pooled features as a second output if a field head needs them."""

    def __init__(self, model: PatchNetwork, inner: nn.Module, *, features: bool) -> None:
        super().__init__()
        self.model, self.inner, self.names = model, inner, [LOGITS, FEATURES] if features else [LOGITS]
        self.eval()

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        images = self.model.prepare(patches)
        if len(self.names) == 1:
            return (self.inner(images),)
        features = self.model.pooled.pool(images)
        return self.model.pooled.classifier(features), features


def export_network(model: PatchNetwork, path: Path, *, features: bool) -> None:
    """Write a network as one ONNX file with its preprocessing and weights, for batches of any size.

    Args:
        model: the network, on the CPU.
        path: the file.
        features: whether the pooled features are an output, too.

    Raises:
        InputError: the network cannot be exported.
    """
    network = _Network(model, merge_repeats(model.eval().inner, model.input_size), features=features)
    example = torch.zeros(2, 3, model.patch_size, model.patch_size, dtype=torch.uint8)
    with _quiet():
        try:
            torch.onnx.export(
                network,
                (example,),
                path,
                input_names=[PATCHES],
                output_names=network.names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
            raise InputError(f"{model.backbone}: cannot be written as ONNX ({reason})") from error


def draw_patches(samples: PatchSet, patch_size: int) -> list[Patches]:
    """Draw patches for `quantise`, as many mitoses as negatives while there are enough, in batches."""
    rng = np.random.default_rng(0)
    by_label = [rng.permutation(np.flatnonzero(samples.labels == label))[: _SAMPLED // 2] for label in (0, 1)]
    chosen = rng.permutation(np.concatenate(by_label))
    parts = np.split(chosen, range(_BATCH, len(chosen), _BATCH))
    return [crop(samples.windows.read(part), 0, patch_size).contiguous().numpy() for part in parts]


def quantise(source: Path, target: Path, batches: Sequence[Patches]) -> None:
    """Write an ONNX network with int8 weights and activations, except the last layer, which ranks the candidates.

    The ranges of the activations are those that they have for some patches (static quantisation). Each output channel
    has a scale of its own. Weights have 7 bits, because products of 8 bits overflow on processors without VNNI.

    Args:
        source: the float32 network.
        target: the file to write.
        batches: (N, 3, P, P) uint8 patches from the training.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> dict[str, Patches] | None:
            batch = next(self.rest, None)
            return None if batch is None else {PATCHES: batch}

    prepared = target.with_suffix(".prepared")
    with _quiet():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        last = _last_weighted(onnx.load(prepared).graph.node)
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            op_types_to_quantize=list(_WEIGHTED),
            nodes_to_exclude=[last],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    prepared.unlink()


def open_network(path: Path) -> Run:
    """Open an ONNX file for ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(patches: Patches) -> Outputs:
        return dict(zip(names, session.run(names, {PATCHES: patches}), strict=True))

    return run


def torch_network(model: PatchNetwork, *, features: bool) -> Run:
    """Return the same for torch, in float32, to compare with."""
    network = _Network(model, model.inner, features=features)

    def run(patches: Patches) -> Outputs:
        with torch.inference_mode():
            found = network(torch.from_numpy(patches))
        return {name: output.numpy() for name, output in zip(network.names, found, strict=True)}

    return run


def _last_weighted(nodes: Sequence[Any]) -> str:
    """Return the name of the last node with weights before the logits; some networks end in a convolution."""
    makers = {output: node for node in nodes for output in node.output}
    node = makers[LOGITS]
    while node.op_type not in _WEIGHTED:  # activations, reshaping
        node = makers[next(name for name in node.input if name in makers)]
    return str(node.name)


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Leave out what the exporters say about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
