"""Calibration by field: make scores comparable between fields, using each field's own candidates as the reference.

Stain, scanner and tissue shift all scores of a network in a field, so that one threshold finds nothing in one patient
and far too much in another. Few candidates of a field are mitoses (1 in 50 in the ICPR 2012 fields). Therefore a middle
and an upper percentile of the candidates' log-odds show how the network sees the field, almost independently of its
mitoses. Calibration maps both percentiles to their typical values in the validation fields. It keeps the order of the
scores in a field.
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

_NARROWEST = 0.01  # minimum difference of the percentiles, for a network that gives all candidates the same score
_FARTHEST = 36.0  # log-odds; beyond this, float64 probabilities round to 1


@dataclass(frozen=True)
class Calibration:
    """The typical spread of a field's scores, to which the scores of every field are mapped.

    Attributes:
        settings: the two percentiles, and the weight of the typical spread in a field with few candidates.
        middle: the lower percentile of the log-odds, as the median of the fitted fields.
        upper: the upper percentile of the log-odds, as the median of the fitted fields.
    """

    settings: CalibrationSettings
    middle: float
    upper: float

    @classmethod
    def fit(cls, fields: Iterable[Probabilities], settings: CalibrationSettings) -> Self:
        """Fit the median spread of fields; each is the (N,) probabilities of all its candidates, N > 0."""
        middle, upper = np.median([_spread(field, settings) for field in fields], axis=0)
        return cls(settings, float(middle), float(upper))

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """Map the scores of one field's candidates to the typical spread.

        Args:
            probabilities: (N,) probabilities of all candidates of the field.

        Returns:
            (N,) calibrated probabilities, unchanged if the field has the typical spread.
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
        """Apply the calibration to each of several fields; `field` (N,) is the field number of each candidate."""
        calibrated = probabilities.copy()
        for number in np.unique(field):
            calibrated[field == number] = self.apply(probabilities[field == number])
        return calibrated


def _spread(probabilities: Probabilities, settings: CalibrationSettings) -> tuple[float, float]:
    """Return the two percentiles of the log-odds of a field's candidates, given (N,) probabilities with N > 0."""
    middle, upper = np.percentile(_log_odds(probabilities), settings.percentiles)
    return float(middle), float(upper)


def _log_odds(probabilities: Probabilities) -> Probabilities:
    return np.asarray(np.clip(logit(probabilities), -_FARTHEST, _FARTHEST), dtype=np.float64)
