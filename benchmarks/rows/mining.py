"""Mining of hard negatives against the epoch before it."""

from benchmarks.bench import Bench
from benchmarks.data import repeat
from benchmarks.networks import Case
from benchmarks.results import Row

CASE = Case("alexnet", 96, mined=True)


def measure(bench: Bench, case: Case = CASE, pool: int = 20_000) -> list[Row]:
    """Train two epochs, of which the second mines first."""
    samples = repeat(bench.data.samples, pool)
    case = case.lasting(2 * bench.seconds, samples, bench.device)
    variants: dict[str, list[float]] = {"an epoch": [], "a refresh": []}
    for turn in range(bench.rounds):
        bench.show("mining", turn, bench.rounds)
        first, second = (epoch["throughput/epoch_seconds"] for epoch in case.train(samples, bench.device))
        variants["an epoch"].append(first)
        variants["a refresh"].append(second - first)
    note = (
        f"Two epochs of {case.samples} samples from a pool of {pool} windows, some of them repeated. The second epoch "
        "mines first; a refresh is the difference of the two. The training loop decides how many windows it scores."
    )
    return [Row(case.title, "s", variants, "an epoch", note)]
