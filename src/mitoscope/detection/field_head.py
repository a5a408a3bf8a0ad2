"""A head for whole fields, which sees every candidate beside the others of its field.

Stain, scanner and tissue shift all of a network's features in a field, and a head that learnt its weights in other
patients takes the shift for mitoses. So every feature is brought to mean 0 and deviation 1 in its own field first, and
a logistic regression weighs them. It is fitted to all training patches at once: with more features than mitoses, the
few steps of a training loop do not come near the weights that rank best. Most negatives are unlike any mitosis, so a
second regression sees only those that the first one finds hard (hard negative mining).
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mitoscope.params import FieldHeadSettings

_STEPS = 1000  # at most; some tens do
_NARROWEST = 1e-6  # variance of a feature that is everywhere the same

Features = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FieldHead:
    """Weights of a pooled head's features, each standardised in its own field.

    Attributes:
        settings: how it was fitted, and how much a field with few candidates leans on the training fields.
        mean: (C,) float32, of the features in the training patches.
        variance: (C,) float32, likewise.
        weights: (C,) float32, of the standardised features.
        bias: of the log-odds.
    """

    settings: FieldHeadSettings
    mean: Features
    variance: Features
    weights: Features
    bias: float

    @classmethod
    def fit(cls, features: Features, fields: Integers, labels: Integers, settings: FieldHeadSettings) -> Self:
        """Fit the head to the training patches, and again to the mitoses and the hardest negatives.

        These are a share of the negatives, but at least as many as there are mitoses. Both classes weigh the same,
        however rare mitoses are, and so do the fields of a class, lest those with many mitoses drown the others. A
        field's own mean and deviation are those of its training patches, nearly the candidates that they are taken of
        later.

        Args:
            features: (M, C) of the training patches; overwritten, as they may fill half of the memory.
            fields: (M,) which field each is in.
            labels: (M,) 1 = mitosis, 0 = not.
            settings: penalty, share of hard negatives, prior.

        Raises:
            ValueError: a class is missing, or a feature is not finite.
        """
        head = cls(settings, features.mean(axis=0), features.var(axis=0), np.zeros(0, np.float32), 0.0)
        for field in np.unique(fields):
            inside = fields == field
            features[inside] = head.standardise(features[inside])
        model = LogisticRegression(C=settings.inverse_penalty, max_iter=_STEPS)
        model.fit(features, labels, _weights(fields, labels))
        positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        hardest = np.argsort(-model.decision_function(features)[negatives], kind="stable")
        count = max(len(positives), math.ceil(settings.hard_fraction * len(negatives)))
        seen = np.append(positives, negatives[hardest[:count]])
        model.fit(features[seen], labels[seen], _weights(fields[seen], labels[seen]))
        return cls(settings, head.mean, head.variance, model.coef_[0].astype(np.float32), float(model.intercept_[0]))

    @classmethod
    def restore(cls, saved: Any, channels: int, settings: FieldHeadSettings) -> Self:
        """The head whose `content` was saved.

        Raises:
            ValueError: `saved` is no head of so many features, or one of them is not finite.
        """
        try:
            arrays = {name: np.asarray(saved[name], dtype=np.float32) for name in ("mean", "variance", "weights")}
            bias = float(saved["bias"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError("no head of whole fields") from error
        fits = all(array.shape == (channels,) and np.isfinite(array).all() for array in arrays.values())
        if not (fits and (arrays["variance"] >= 0).all() and math.isfinite(bias)):
            raise ValueError(f"no head of {channels} features")
        return cls(settings, **arrays, bias=bias)

    def content(self) -> dict[str, Any]:
        """What `restore` reads: the arrays and the bias."""
        return {"mean": self.mean, "variance": self.variance, "weights": self.weights, "bias": self.bias}

    def probabilities(self, features: Features) -> Probabilities:
        """Probability of a mitosis for each of a field's candidates.

        Args:
            features: (N, C) of all candidates of one field, N > 0.

        Returns:
            (N,) float64 in the same order.
        """
        log_odds = (self.standardise(features) @ self.weights).astype(np.float64) + self.bias
        return np.asarray(expit(log_odds), dtype=np.float64)

    def standardise(self, features: Features) -> Features:
        """(N, C) features of one field at mean 0 and deviation 1, where it has enough of them."""
        share = len(features) / (len(features) + self.settings.prior_candidates)
        middle = share * features.mean(axis=0) + (1 - share) * self.mean
        spread = share * features.var(axis=0) + (1 - share) * self.variance
        standardised: Features = (features - middle) / np.sqrt(spread + _NARROWEST)
        return standardised


def _weights(fields: Integers, labels: Integers) -> npt.NDArray[np.float64]:
    """(M,) what each patch counts, 1 on average: both classes as much, and every field of a class."""
    weights = np.empty(len(labels))
    for label in (0, 1):
        _, field, counts = np.unique(fields[labels == label], return_inverse=True, return_counts=True)
        weights[labels == label] = len(labels) / 2 / (len(counts) * counts[field])
    return weights
