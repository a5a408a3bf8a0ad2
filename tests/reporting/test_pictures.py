"""Pictures are embedded in the page, and an error names a broken one."""

import cv2
import numpy as np
import pytest

from mitoscope.errors import InputError
from mitoscope.reporting.pictures import embed


@pytest.mark.parametrize(("side", "kind", "width"), [(100, "png", 100), (1600, "webp", 1400)])
def test_small_pictures_stay_and_large_ones_are_reduced_to_the_width_of_the_page(tmp_path, side, kind, width):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    picture = embed(tmp_path / "a.png", "noise")
    assert picture.uri.startswith(f"data:image/{kind};base64,")
    assert (picture.width, picture.height, picture.caption) == (width, width, "noise")


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"a\.png: is missing or not a picture"):
        embed(tmp_path / "a.png", "none")
