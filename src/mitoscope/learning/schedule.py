"""The schedule of a training: plain and mined epochs, the best epoch, and when training ends."""

import numpy as np

from mitoscope.params import Train

Epoch = dict[str, float]
"""The results of an epoch, by names like `train/loss` and `validation/best_f1`."""


def plain_epochs(settings: Train) -> int:
    """Return the number of epochs that draw all negatives equally often; later epochs mine hard negatives."""
    mining = settings.sampling.mining
    return mining.start_epoch if mining.every else settings.optimisation.epochs


def best_epoch(history: list[Epoch]) -> int:
    """Return the number (from 1) of the first epoch with the highest validation F1, each at its own best threshold.

    The threshold 0.5 would be misleading: training draws mitoses far more often than they occur in fields, so the
    network is not used at 0.5.
    """
    return int(np.argmax([epoch["validation/best_f1"] for epoch in history])) + 1


def finished(history: list[Epoch], settings: Train) -> bool:
    """Whether all epochs are done, or the validation F1 has not improved for `patience` epochs.

    With mining, the epochs before it do not count towards `patience`.
    """
    if not history:
        return False
    begins = plain_epochs(settings) if settings.sampling.mining.every else 0
    waited = len(history) - max(best_epoch(history), begins)
    return len(history) >= settings.optimisation.epochs or waited >= settings.optimisation.patience
