"""Scoring several views of each patch."""

from functools import partial

from benchmarks.bench import Bench, Work, timed
from benchmarks.data import repeat
from benchmarks.networks import Case, scored_in
from benchmarks.results import Growth
from mitoscope.learning.scoring import score_patches

CASE = Case("alexnet", 128, head="pooled")
_SHORTER = 8  # times than other measurements, because 15 views are scored
VIEWS = (1, 2, 4, 8)


def measure(bench: Bench, case: Case = CASE) -> list[Growth]:
    """Measure the seconds for some patches with each number of views."""
    samples, model = bench.data.samples, case.model.to(bench.device.torch)
    count = scored_in(bench.seconds / _SHORTER, model, samples, bench.device)
    windows = repeat(samples, count).windows
    works: dict[float, Work] = {
        views: timed(partial(score_patches, model, windows, bench.device, views=views)) for views in VIEWS
    }
    series = bench.grow("views", {f"{case.title}, pooled head": works})
    return [Growth("Views", f"s for {count} patches", "views", series, "In brackets the multiple of one view.")]
