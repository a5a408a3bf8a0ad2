"""Scores made comparable between fields: each field's candidates are their own yardstick.

Stain, scanner and tissue shift all of a network's scores in a field, so that one threshold finds nothing in one patient
and far too much in another. Few of a field's candidates are mitoses (1 in 50 in the ICPR 2012 fields); so where the
middle and the upper end of their log-odds lie says how the network sees the field, whatever is in it. Bringing both to
where they lie in the validation fields moves a field's scores together and keeps their order.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from mitoscope.evaluation.metrics import Probabilities

_PERCENTILES = (50, 95)
_PRIOR = 50  # candidates that the typical spread counts as, so that a field with few of them is hardly moved
_NARROWEST = 0.01  # difference of the log-odds, where a network gives all candidates the same score
_FARTHEST = 36.0  # log-odds: nearer to 0 and 1 float64 has no more numbers


def spread(probabilities: Probabilities) -> tuple[float, float]:
    """Median and 95th percentile of the log-odds of a field's candidates, (N,) with N > 0."""
    middle, upper = np.percentile(_log_odds(probabilities), _PERCENTILES)
    return float(middle), float(upper)


def calibrate(probabilities: Probabilities, typical: Sequence[float]) -> Probabilities:
    """Bring the scores of one field's candidates to a typical spread.

    Args:
        probabilities: (N,) of all candidates of the field, N > 0.
        typical: what `spread` gives of the fields that thresholds come from, at the median.

    Returns:
        (N,) probabilities in the same order; those of a field with the typical spread are as they were.
    """
    share = len(probabilities) / (len(probabilities) + _PRIOR)
    middle, upper = (
        share * own + (1 - share) * known for own, known in zip(spread(probabilities), typical, strict=True)
    )
    stretch = max(typical[1] - typical[0], _NARROWEST) / max(upper - middle, _NARROWEST)
    moved = typical[1] + (_log_odds(probabilities) - upper) * stretch
    return np.asarray(expit(np.clip(moved, -_FARTHEST, _FARTHEST)), dtype=np.float64)


def _log_odds(probabilities: Probabilities) -> Probabilities:
    return np.asarray(np.clip(logit(probabilities), -_FARTHEST, _FARTHEST), dtype=np.float64)
