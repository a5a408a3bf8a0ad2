"""A head for whole fields, which scores every candidate relative to the others of its field.

Stain, scanner and tissue shift all features of a network in a field, and a head trained on other patients mistakes this
shift for mitoses. Therefore every feature is first standardised in its own field to mean 0 and standard deviation 1,
and a logistic regression weighs the features. It is fitted to all training patches at once: with more features than
mitoses, the few steps of a training loop do not get close to the best weights. Most negatives look nothing like a
mitosis, so a second regression uses only the negatives that are hard for the first one (hard negative mining).
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from mitoscope.params import FieldHeadSettings

_ROWS = 4096  # that are moved at once
_STEPS = 1000  # maximum; a few dozen are enough
_NARROWEST = 1e-6  # added to the variance, which is 0 for a constant feature

Features = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FieldHead:
    """Weights of a pooled head's features, which are standardised in their own field.

    Attributes:
        settings: how the head was fitted, and the weight of the training fields in a field with few candidates.
        mean: (C,) float32, mean of each feature in the training patches.
        variance: (C,) float32, variance of each feature in the training patches.
        weights: (C,) float32, weights of the standardised features.
        bias: intercept of the log-odds.
    """

    settings: FieldHeadSettings
    mean: Features
    variance: Features
    weights: Features
    bias: float

    @classmethod
    def fit(cls, features: Features, fields: Integers, labels: Integers, settings: FieldHeadSettings) -> Self:
        """Fit the head to the training patches, and again to the mitoses and the hardest negatives.

        The hardest negatives are a share of all negatives, but at least as many as there are mitoses. Both classes have
        the same total weight, however rare mitoses are. So have all fields of a class, so that fields with many mitoses
        do not dominate. A field is standardised by its training patches, which are nearly the same as the candidates
        that standardise it later.

        Args:
            features: (M, C) features of the training patches; overwritten. They may be memory-mapped, because those of
                a large dataset do not fit into the memory: they are read in parts, and never copied as a whole.
            fields: (M,) field number of each patch.
            labels: (M,) 1 = mitosis, 0 = not.
            settings: penalty, share of hard negatives, prior.

        Raises:
            ValueError: a class is missing, or a feature is not finite.
        """
        from sklearn.linear_model import LogisticRegression  # `detect` does not wait for them
        from sklearn.preprocessing import StandardScaler

        rows = [np.flatnonzero(fields == field) for field in np.unique(fields)]
        scale = StandardScaler()
        for inside in rows:
            scale.partial_fit(features[inside])
        mean, variance = scale.mean_.astype(np.float32), scale.var_.astype(np.float32)
        head = cls(settings, mean, variance, np.zeros(0, np.float32), 0.0)
        for inside in rows:
            features[inside] = head.standardise(features[inside])
        model = LogisticRegression(C=settings.inverse_penalty, max_iter=_STEPS)
        model.fit(features, labels, _weights(fields, labels))
        positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        hardest = np.argsort(-model.decision_function(features)[negatives], kind="stable")
        count = max(len(positives), math.ceil(settings.hard_fraction * len(negatives)))
        seen = np.sort(np.append(positives, negatives[hardest[:count]]))
        for start in range(0, len(seen), _ROWS):  # to the front, each to a place that has been read already
            part = seen[start : start + _ROWS]
            features[start : start + len(part)] = features[part]
        model.fit(features[: len(seen)], labels[seen], _weights(fields[seen], labels[seen]))
        return cls(settings, head.mean, head.variance, model.coef_[0].astype(np.float32), float(model.intercept_[0]))

    @classmethod
    def restore(cls, saved: Any, channels: int, settings: FieldHeadSettings) -> Self:
        """Restore a head from its saved `content`.

        Raises:
            ValueError: `saved` is not a head of `channels` features, or has invalid values.
        """
        try:
            arrays = {name: np.asarray(saved[name], dtype=np.float32) for name in ("mean", "variance", "weights")}
            bias = float(saved["bias"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError("not a field head") from error
        fits = all(array.shape == (channels,) and np.isfinite(array).all() for array in arrays.values())
        if not (fits and (arrays["variance"] >= 0).all() and math.isfinite(bias)):
            raise ValueError(f"not a field head of {channels} features")
        return cls(settings, **arrays, bias=bias)

    def content(self) -> dict[str, Any]:
        """Return the arrays and the bias, for `restore`."""
        return {"mean": self.mean, "variance": self.variance, "weights": self.weights, "bias": self.bias}

    def probabilities(self, features: Features) -> Probabilities:
        """Return the probability of a mitosis for each candidate of a field.

        Args:
            features: (N, C) features of all candidates of one field, N > 0.

        Returns:
            (N,) float64 in the same order.
        """
        log_odds = (self.standardise(features) @ self.weights).astype(np.float64) + self.bias
        return np.asarray(expit(log_odds), dtype=np.float64)

    def standardise(self, features: Features) -> Features:
        """Standardise the (N, C) features of one field; with few rows, partly by the training fields."""
        share = len(features) / (len(features) + self.settings.prior_candidates)
        middle = share * features.mean(axis=0) + (1 - share) * self.mean
        spread = share * features.var(axis=0) + (1 - share) * self.variance
        standardised: Features = (features - middle) / np.sqrt(spread + _NARROWEST)
        return standardised


def _weights(fields: Integers, labels: Integers) -> npt.NDArray[np.float64]:
    """Return the (M,) patch weights: 1 on average, with equal totals for both classes and for all fields of a class."""
    weights = np.empty(len(labels))
    for label in (0, 1):
        _, field, counts = np.unique(fields[labels == label], return_inverse=True, return_counts=True)
        weights[labels == label] = len(labels) / 2 / (len(counts) * counts[field])
    return weights
