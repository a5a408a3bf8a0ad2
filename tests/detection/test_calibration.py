import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit

from mitoscope.detection.calibration import calibrate, spread

TYPICAL = (-4.0, 1.0)
fields = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


def field(shift: float, width: float) -> np.ndarray:
    """10,001 candidates whose log-odds go evenly from `shift` - `width` to `shift` + `width`."""
    return expit(np.linspace(shift - width, shift + width, 10_001))


def test_spread_of_a_field_by_hand():
    assert spread(field(-2, 10)) == pytest.approx((-2, 7))


def test_a_field_with_the_typical_spread_stays_as_it_is():
    scores = field(-4, 5 / 0.9)
    assert calibrate(scores, TYPICAL) == pytest.approx(scores)


def test_a_field_that_scores_too_high_is_brought_down_and_one_too_narrow_is_stretched():
    for scores in (field(3, 5 / 0.9), field(-4, 1)):
        middle, upper = spread(calibrate(scores, TYPICAL))
        assert middle == pytest.approx(TYPICAL[0], abs=0.2)
        assert upper == pytest.approx(TYPICAL[1], abs=0.2)


def test_few_candidates_are_hardly_moved():
    one = np.array([0.9])
    # 50 typical candidates against 1: both ends of the spread move by a 51st of the way.
    middle, upper = (logit(0.9) + 50 * known for known in TYPICAL)
    stretch = 5 / ((upper - middle) / 51)
    assert calibrate(one, TYPICAL) == pytest.approx(expit(1 + (logit(0.9) - upper / 51) * stretch))


def test_equal_scores_stay_equal_and_extreme_ones_finite():
    assert len(np.unique(calibrate(np.full(400, 0.3), TYPICAL))) == 1
    assert np.isfinite(calibrate(np.array([0.0, 1.0] * 200), TYPICAL)).all()


@given(fields)
def test_the_order_within_a_field_is_kept(scores):
    moved = calibrate(scores, TYPICAL)
    assert ((moved > 0) & (moved < 1)).all()
    order = np.argsort(scores)
    assert (np.diff(moved[order]) >= 0).all()
