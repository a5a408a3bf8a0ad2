"""A detector scores candidates the same, whoever runs its network."""

import numpy as np
import pytest

from mitoscope.exporting.onnx import torch_network
from mitoscope.exporting.scoring import score
from mitoscope.learning.devices import alone

from .conftest import with_head

HEADS = ("classifier", "pooled")


@pytest.mark.skipif(alone().bf16, reason="a detector scores in bfloat16 here, and the network of this test in float32")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("views", [1, 8])
def test_all_views_give_the_scores_of_the_detector(head, views, windows):
    detector = with_head(head, views=views)
    some, field = windows.take(np.arange(12)), np.repeat([0, 1], 6)
    expected = detector.score(some, field)
    assert expected.std() > 0.01
    found = score(detector, torch_network(detector.model, features=head == "pooled"), some, field)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_progress_covers_all_batches(windows):
    seen = []
    detector = with_head("classifier", views=1)
    run = torch_network(detector.model, features=False)
    score(detector, run, windows, np.zeros(len(windows), np.int64), lambda *done: seen.append(done))
    assert seen == [(256, 300), (300, 300)]
