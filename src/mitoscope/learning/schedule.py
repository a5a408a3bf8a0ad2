"""Which epochs are plain and which are mined, which is the best, and when a training ends."""

import numpy as np

from mitoscope.params import Train

Epoch = dict[str, float]
"""What an epoch reached, by names like `train/loss` and `validation/best_f1`."""


def plain_epochs(settings: Train) -> int:
    """How many epochs draw all negatives equally often; the later ones mine."""
    mining = settings.sampling.mining
    return mining.start_epoch if mining.every else settings.optimisation.epochs


def best_epoch(history: list[Epoch]) -> int:
    """Number (from 1) of the first epoch with the highest validation F1, each at its own best threshold.

    Not at 0.5: training sees far more mitoses than a field holds, so 0.5 is not where such a network is used.
    """
    return int(np.argmax([epoch["validation/best_f1"] for epoch in history])) + 1


def finished(history: list[Epoch], settings: Train) -> bool:
    """Whether all epochs are done, or `patience` epochs brought no better validation F1.

    Mining gets its chance: the epochs before it do not count.
    """
    if not history:
        return False
    begins = plain_epochs(settings) if settings.sampling.mining.every else 0
    waited = len(history) - max(best_epoch(history), begins)
    return len(history) >= settings.optimisation.epochs or waited >= settings.optimisation.patience
