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
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mitoscope.evaluation.metrics import Labels, Probabilities
from mitoscope.learning.batches import Integers, PatchSet
from mitoscope.learning.devices import Place
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import OnBatch, pool_patches

_PRIOR = 50  # patches that the training fields count as, so that one with few candidates is not its own yardstick
# Inverse strength of the penalty on the weights, against the sum over the patches that a regression sees, so that more
# of them weigh more. On some 5,000 patches, 95 to 298 of them mitoses, and then the hardest fifth of the negatives,
# 5e-4 and 2e-3 rank candidates as well (docs/real-fields.md).
_C = 1e-3
_STEPS = 1000  # at most; some tens do
_HARD = 0.2  # share of the negatives that the second regression sees; with 0.1 and 0.3 it ranks candidates as well
_NARROWEST = 1e-6  # variance of a feature that is everywhere the same

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FieldHead:
    """Weights of a pooled head's features, each standardised in its own field.

    Attributes:
        mean: (C,) of the features in the training patches.
        variance: (C,) likewise.
        weights: (C,) of the standardised features.
        bias: of the log-odds.
    """

    mean: Tensor
    variance: Tensor
    weights: Tensor
    bias: float

    @classmethod
    def restore(cls, saved: Any, channels: int) -> Self:
        """The head whose `asdict` was saved.

        Raises:
            ValueError: `saved` is no head of so many features, or one of them is not finite.
        """
        try:
            head = cls(**saved)
            tensors = (head.mean, head.variance, head.weights)
            fits = all(tensor.shape == (channels,) and tensor.isfinite().all() for tensor in tensors)
            fits = fits and bool((head.variance >= 0).all()) and math.isfinite(head.bias)
        except (AttributeError, TypeError) as error:
            raise ValueError("no head of whole fields") from error
        if not fits:
            raise ValueError(f"no head of {channels} features")
        return head

    def probabilities(self, features: Features) -> Probabilities:
        """Probability of a mitosis for each of a field's candidates.

        Args:
            features: (N, C) of all candidates of one field, N > 0.

        Returns:
            (N,) float64 in the same order.
        """
        known = (self.mean.numpy(), self.variance.numpy())
        log_odds = (_standardise(features, *known) @ self.weights.numpy()).astype(np.float64) + self.bias
        return np.asarray(expit(log_odds), dtype=np.float64)


def fit_head(features: Features, fields: Integers, labels: Labels) -> FieldHead:
    """Fit the head to the training patches, and again to the mitoses and the hardest negatives.

    These are a fifth of the negatives, but at least as many as there are mitoses. Both classes weigh the same, however
    rare mitoses are, and so do the fields of a class, lest those with many mitoses drown the others. A field's own mean
    and deviation are those of its training patches, nearly the candidates that they are taken of later.

    Args:
        features: (M, C) of the training patches; overwritten, as they may fill half of the memory.
        fields: (M,) which field each is in.
        labels: (M,) 1 = mitosis, 0 = not.

    Raises:
        ValueError: a class is missing, or a feature is not finite.
    """
    mean, variance = features.mean(axis=0), features.var(axis=0)
    for field in np.unique(fields):
        inside = fields == field
        features[inside] = _standardise(features[inside], mean, variance)
    model = LogisticRegression(C=_C, max_iter=_STEPS)
    model.fit(features, labels, _weights(fields, labels))
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    hardest = np.argsort(-model.decision_function(features)[negatives], kind="stable")
    seen = np.append(positives, negatives[hardest[: max(len(positives), math.ceil(_HARD * len(negatives)))]])
    model.fit(features[seen], labels[seen], _weights(fields[seen], labels[seen]))
    weights = torch.from_numpy(model.coef_[0].astype(np.float32))
    return FieldHead(torch.from_numpy(mean), torch.from_numpy(variance), weights, float(model.intercept_[0]))


def score_by_field(
    network: PatchNetwork,
    head: FieldHead,
    patches: PatchSet,
    place: Place,
    on_batch: OnBatch | None = None,
    label: str = "score",
    views: int = 1,
) -> Probabilities:
    """As `scoring.score_patches`, by the head of whole fields: each of the set's stores is one field."""
    probabilities = np.zeros(len(patches))
    done = 0

    def count(what: str, some: int, _: int) -> None:
        if on_batch:
            on_batch(what, done + some, len(patches))

    for field in np.unique(patches.store):
        inside = np.flatnonzero(patches.store == field)
        features = pool_patches(network, patches.take(inside), place, count, label, views)
        probabilities[inside] = head.probabilities(features)
        done += len(inside)
    return probabilities


def _standardise(features: Features, mean: Features, variance: Features) -> Features:
    """(N, C) features of one field at mean 0 and deviation 1, where it has enough of them."""
    share = len(features) / (len(features) + _PRIOR)
    middle = share * features.mean(axis=0) + (1 - share) * mean
    spread = share * features.var(axis=0) + (1 - share) * variance
    standardised: Features = (features - middle) / np.sqrt(spread + _NARROWEST)
    return standardised


def _weights(fields: Integers, labels: Labels) -> npt.NDArray[np.float64]:
    """(M,) what each patch counts, 1 on average: both classes as much, and every field of a class."""
    weights = np.empty(len(labels))
    for label in (0, 1):
        _, field, counts = np.unique(fields[labels == label], return_inverse=True, return_counts=True)
        weights[labels == label] = len(labels) / 2 / (len(counts) * counts[field])
    return weights
