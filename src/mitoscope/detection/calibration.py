"""Scores made comparable between fields: each field's candidates are their own yardstick.

Stain, scanner and tissue shift all of a network's scores in a field, so that one threshold finds nothing in one patient
and far too much in another. Few of a field's candidates are mitoses (1 in 50 in the ICPR 2012 fields); so where the
middle and the upper end of their log-odds lie says how the network sees the field, whatever is in it. Bringing both to
where they lie in the validation fields moves a field's scores together and keeps their order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from mitoscope.params import CalibrationSettings

Probabilities = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_NARROWEST = 0.01  # difference of the log-odds, where a network gives all candidates the same score
_FARTHEST = 36.0  # log-odds: nearer to 0 and 1 float64 has no more numbers


@dataclass(frozen=True)
class Calibration:
    """The typical spread of a field's scores, to which every field is brought.

    Attributes:
        settings: which percentiles, and how much a field with few candidates leans on the typical spread.
        middle: the lower percentile of the log-odds in the fields that it was fitted to, at the median.
        upper: the upper percentile, likewise.
    """

    settings: CalibrationSettings
    middle: float
    upper: float

    @classmethod
    def fit(cls, fields: Iterable[Probabilities], settings: CalibrationSettings) -> Self:
        """Take the median spread of fields, each given by the (N,) probabilities of all its candidates, N > 0."""
        middle, upper = np.median([_spread(field, settings) for field in fields], axis=0)
        return cls(settings, float(middle), float(upper))

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """Bring the scores of one field's candidates to the typical spread.

        Args:
            probabilities: (N,) of all candidates of the field.

        Returns:
            (N,) in the same order; those of a field with the typical spread are as they were.
        """
        if not len(probabilities):
            return probabilities
        share = len(probabilities) / (len(probabilities) + self.settings.prior_candidates)
        own_middle, own_upper = _spread(probabilities, self.settings)
        middle = share * own_middle + (1 - share) * self.middle
        upper = share * own_upper + (1 - share) * self.upper
        stretch = max(self.upper - self.middle, _NARROWEST) / max(upper - middle, _NARROWEST)
        moved = self.upper + (_log_odds(probabilities) - upper) * stretch
        return np.asarray(expit(np.clip(moved, -_FARTHEST, _FARTHEST)), dtype=np.float64)

    def apply_by_field(self, probabilities: Probabilities, field: Integers) -> Probabilities:
        """As `apply` for the candidates of several fields, (N,) probabilities and (N,) which field each is in."""
        calibrated = probabilities.copy()
        for number in np.unique(field):
            calibrated[field == number] = self.apply(probabilities[field == number])
        return calibrated


def _spread(probabilities: Probabilities, settings: CalibrationSettings) -> tuple[float, float]:
    """Two percentiles of the log-odds of a field's candidates, (N,) with N > 0."""
    middle, upper = np.percentile(_log_odds(probabilities), settings.percentiles)
    return float(middle), float(upper)


def _log_odds(probabilities: Probabilities) -> Probabilities:
    return np.asarray(np.clip(logit(probabilities), -_FARTHEST, _FARTHEST), dtype=np.float64)
