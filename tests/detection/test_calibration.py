"""Every field's scores are brought to one spread, and keep their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit

from mitoscope.detection.calibration import Calibration
from mitoscope.params import CalibrationSettings

SETTINGS = CalibrationSettings()  # median and 95th percentile, 50 candidates
TYPICAL = Calibration(SETTINGS, middle=-4.0, upper=1.0)
fields = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


def field(shift: float, width: float) -> np.ndarray:
    """10,001 candidates whose log-odds go evenly from `shift` - `width` to `shift` + `width`."""
    return expit(np.linspace(shift - width, shift + width, 10_001))


def spread(scores: np.ndarray) -> tuple[float, float]:
    return tuple(np.percentile(logit(scores), [50, 95]))


def test_the_spread_of_a_field_by_hand():
    assert Calibration.fit([field(-2, 10)], SETTINGS) == Calibration(
        SETTINGS, pytest.approx(-2), pytest.approx(7)
    )  # 7 lies 95 % of the way from -12 to 8


def test_the_typical_spread_is_the_median_over_the_fields():
    odds = [[-4.0, -2.0, 0.0], [-3.0, -1.0, 1.0], [-9.0, -8.0, 3.0]]
    # Medians -2, -1, -8; 95th percentiles, nine tenths of the way from the second to the third, -0.2, 0.8, 1.9.
    fitted = Calibration.fit([expit(np.array(values)) for values in odds], SETTINGS)
    assert (fitted.middle, fitted.upper) == pytest.approx((-2.0, 0.8))
    assert fitted.settings is SETTINGS


def test_the_percentiles_are_those_of_the_settings():
    settings = CalibrationSettings(percentiles=(10, 90))
    fitted = Calibration.fit([field(0, 10)], settings)
    assert (fitted.middle, fitted.upper) == pytest.approx((-8, 8))
    moved = fitted.apply(field(3, 5))
    assert np.percentile(logit(moved), [10, 90]) == pytest.approx([-8, 8], abs=0.1)


def test_a_field_with_the_typical_spread_stays_as_it_is():
    scores = field(-4, 5 / 0.9)
    assert TYPICAL.apply(scores) == pytest.approx(scores)


def test_a_field_that_scores_too_high_is_brought_down_and_one_too_narrow_is_stretched():
    for scores in (field(3, 5 / 0.9), field(-4, 1)):
        middle, upper = spread(TYPICAL.apply(scores))
        assert middle == pytest.approx(TYPICAL.middle, abs=0.2)
        assert upper == pytest.approx(TYPICAL.upper, abs=0.2)


@pytest.mark.parametrize("prior", [50, 3])
def test_few_candidates_are_hardly_moved(prior):
    one = np.array([0.9])
    # 50 typical candidates against 1: both ends of the spread move by a 51st of the way.
    middle, upper = (logit(0.9) + prior * known for known in (TYPICAL.middle, TYPICAL.upper))
    stretch = 5 / ((upper - middle) / (prior + 1))
    calibration = Calibration(CalibrationSettings(prior_candidates=prior), TYPICAL.middle, TYPICAL.upper)
    assert calibration.apply(one) == pytest.approx(expit(1 + (logit(0.9) - upper / (prior + 1)) * stretch))


def test_without_a_prior_even_few_candidates_are_brought_to_the_typical_spread():
    calibration = Calibration(CalibrationSettings(prior_candidates=0), TYPICAL.middle, TYPICAL.upper)
    assert spread(calibration.apply(np.array([0.1, 0.2, 0.9]))) == pytest.approx((TYPICAL.middle, TYPICAL.upper))


def test_equal_scores_stay_equal_and_extreme_ones_finite():
    assert len(np.unique(TYPICAL.apply(np.full(400, 0.3)))) == 1
    assert np.isfinite(TYPICAL.apply(np.array([0.0, 1.0] * 200))).all()


def test_a_field_without_candidates_stays_empty():
    assert TYPICAL.apply(np.empty(0)).shape == (0,)


@given(fields)
def test_the_order_within_a_field_is_kept(scores):
    moved = TYPICAL.apply(scores)
    assert ((moved > 0) & (moved < 1)).all()
    order = np.argsort(scores)
    assert (np.diff(moved[order]) >= 0).all()
