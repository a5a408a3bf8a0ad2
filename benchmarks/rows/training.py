"""Training against the capstone's way, and the capstone's whole job."""

import sys
from functools import partial
from pathlib import Path

from benchmarks import capstone
from benchmarks.bench import Bench, Work, run
from benchmarks.networks import PRODUCTS, Case, count_flops, product_rate, seconds_in_products
from benchmarks.results import Row

ALEXNET = Case("alexnet", 224)
CASES = (ALEXNET, Case("densenet161", 64, batch_size=32), Case("densenet161", 224, batch_size=8))
SIDE = 4096  # of the matrices of the bound
_SAMPLES, _EPOCHS, _REPORTED_HOURS = 151_293, 20, 8.5  # of the capstone


def measure(bench: Bench, cases: tuple[Case, ...] = CASES, side: int = SIDE) -> list[Row]:
    """Measure patches per second from the disk, and the bound that matrix products of the same FLOPs set."""
    rows = [_measure(bench, case, side) for case in cases]
    return [*rows, _extrapolate(rows[0])]


def _measure(bench: Bench, case: Case, side: int) -> Row:
    flops, samples = count_flops(case.model), bench.data.samples
    slice_ = case.lasting(bench.seconds, samples, bench.device)
    bound = f"bound: matrix products, {'bf16' if bench.device.bf16 else 'fp32'}"
    works: dict[str, Work] = {
        "mitoscope": partial(slice_.train_rate, samples, bench.device),
        "the capstone's way": partial(_capstone_rate, bench, case),
        bound: lambda: product_rate(bench.device, side) / flops,
    }
    if bench.device.torch.type == "cpu":
        train = partial(slice_.train, samples, bench.device)
        works[PRODUCTS] = lambda: slice_.samples / seconds_in_products(train)
    variants = bench.in_turn(f"training, {case.title}", works)
    row = Row(case.title, "patches/s", variants, baseline="the capstone's way")
    share = row.ratio("mitoscope") / row.ratio(bound)
    note = (
        f"{slice_.batches} batches of {case.batch_size}. mitoscope reaches {100 * share:.2g}% of the bound: products "
        f"of {side} x {side} matrices with as many operations as a training step, {flops / 1e9:.1f} GFLOP per patch. "
        "On a processor the last line counts only the time of convolutions and matrix products, those of two "
        "validation patches included. "
        "The start of the capstone's process and its workers is not counted."
    )
    return Row(row.title, row.unit, row.variants, row.baseline, note)


def _extrapolate(row: Row) -> Row:
    """Return the hours of the capstone's whole job at the rates of a row."""
    rates = {name: row.variants[name] for name in ("mitoscope", "the capstone's way")}
    hours = {name: [_SAMPLES * _EPOCHS / rate / 3600 for rate in values] for name, values in rates.items()}
    hours["the capstone, as reported"] = [_REPORTED_HOURS]
    note = (
        f"{_SAMPLES:,} samples x {_EPOCHS} epochs of {row.title}, extrapolated from the rates above, without "
        "validation. The capstone reported its hours from another machine."
    )
    return Row("The capstone's whole job", "h", hours, "the capstone, as reported", note)


def _capstone_rate(bench: Bench, case: Case) -> float:
    """Return the patches per second of the capstone's way, in a process of its own."""
    sizes = (case.input_size, case.batch_size, bench.seconds)
    command = [sys.executable, "-m", capstone.__name__, bench.data.pngs, case.network, *sizes]
    return float(run(command, Path(__file__).parents[2]))
