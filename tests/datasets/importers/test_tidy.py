"""Published centres become ones that can be written."""

import numpy as np
import pytest

from mitoscope.datasets.importers import Annotations
from mitoscope.datasets.importers.tidy import Tidy

SHAPE = (40, 50)
UM = 0.25
NOTHING = np.empty((0, 2))


def points(*centres: tuple[float, float]) -> np.ndarray:
    return np.array(centres, dtype=float).reshape(-1, 2)


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((39.9, 49.9), [[39.9, 49.9]]),
        ((40, 50), [[39, 49]]),
        ((-25, 64), [[0, 49]]),
        ((-25.1, 20), []),
        ((20, 74.1), []),
        ((np.nan, 20), []),
        ((20, np.inf), []),
    ],
)
def test_a_centre_is_moved_into_the_image_or_left_out(centre, expected):
    assert Tidy().tidy(Annotations(points(centre), NOTHING), SHAPE, UM, NOTHING).mitoses.tolist() == expected


def test_the_tolerance_is_a_length_in_um():
    """Half of MIDOG's box, 6.25 um, is 12.5 px of an image at 20x; the same place, 0.25 um, is half a pixel there."""
    found = Annotations(points((-12.5, 5), (-12.6, 5), (20, 20)), points((20.4, 20), (20.6, 20)))
    mitoses, lookalikes = Tidy().tidy(found, SHAPE, 0.5, points((32, 20), (33.2, 20)))
    assert mitoses.tolist() == [[0, 5], [20, 20]] and lookalikes.tolist() == [[33.2, 20], [20.6, 20]]


def test_the_counts_of_all_images_are_told():
    tidy = Tidy()
    found = Annotations(points((1, 1), (1, 1), (-3, 5), (999, 5)), points((1.5, 1.5), (20, 20)))
    for _ in range(2):
        mitoses, lookalikes = tidy.tidy(found, SHAPE, UM, points((30, 30)))
        assert mitoses.tolist() == [[1, 1], [0, 5]] and lookalikes.tolist() == [[20, 20]]
    assert (tidy.mitoses, tidy.lookalikes) == (4, 2)
    assert tidy.notes() == (
        "centres outside their image: 2 moved to its edge, 2 more than 6.25 um away left out",
        "centres given again: 2 left out",
        "look-alikes at the place of a mitosis: 2 left out",
        "earlier look-alikes: 0 kept, 2 replaced by a new mitosis or look-alike within 6.25 um",
    )


def test_earlier_look_alikes_stay_unless_a_new_annotation_is_near():
    tidy = Tidy()
    found = Annotations(points((0, 0)), points((100, 100)))
    earlier = points((0, 25), (0, 26), (100, 75), (100, 70), (200, 200))
    _, lookalikes = tidy.tidy(found, (300, 300), UM, earlier)
    assert lookalikes.tolist() == [[0, 26], [100, 70], [200, 200], [100, 100]] and tidy.lookalikes == 4
    assert tidy.notes() == ("earlier look-alikes: 3 kept, 2 replaced by a new mitosis or look-alike within 6.25 um",)


def test_nothing_to_say_about_good_annotations():
    tidy = Tidy()
    tidy.tidy(Annotations(points((1, 1)), points((9, 9))), SHAPE, UM, NOTHING)
    assert tidy.notes() == ()
