"""The capstone's whole job."""

from functools import partial

from benchmarks.bench import Bench
from benchmarks.networks import Case
from benchmarks.results import Row
from benchmarks.rows.training import ALEXNET, capstone_rate

_SAMPLES, _EPOCHS, _REPORTED_HOURS = 151_293, 20, 8.5


def measure(bench: Bench, case: Case = ALEXNET) -> list[Row]:
    """Extrapolate its hours from a slice."""
    samples = bench.data.samples
    slice_ = case.lasting(bench.seconds, samples, bench.device)
    works = {
        "mitoscope": partial(slice_.train_rate, samples, bench.device),
        "the capstone's way, here": partial(capstone_rate, bench, case),
    }
    rates = bench.in_turn("capstone's job", works)
    hours = {name: [_SAMPLES * _EPOCHS / rate / 3600 for rate in values] for name, values in rates.items()}
    hours["the capstone, as reported"] = [_REPORTED_HOURS]
    note = (
        f"{_SAMPLES:,} samples x {_EPOCHS} epochs of {case.title}, extrapolated from {slice_.samples} samples, without "
        "validation. The capstone reported its hours from another machine."
    )
    return [Row(f"{_EPOCHS} epochs", "h", hours, "the capstone, as reported", note)]
