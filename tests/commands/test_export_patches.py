"""The exported files are what training draws from, under the capstone's names."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mitoscope.commands.export_patches import export_patches
from mitoscope.datasets.patches import is_sample, read_index
from mitoscope.errors import InputError
from tests.conftest import NETWORK, tiny_params, write_params

OUT = Path("exported")


def picture(name: str) -> np.ndarray:
    return cv2.imread(str(OUT / name), cv2.IMREAD_UNCHANGED)[..., ::-1]


def whole_samples() -> pd.DataFrame:
    index = read_index(Path("patches"))
    return index[is_sample(index) & ~index.edge]


def test_every_whole_patch_at_every_angle(extracted, capsys):
    export_patches(OUT, network=NETWORK, replace=False)
    index = whole_samples()
    expected = {
        f"{row.patient}_{row.field}_class{row.label}_center{row.center}_rot{angle}.png"
        for row in index.itertuples()
        for angle in (("0", "45", "90") if row.label else ("0", "22.5"))
    }
    assert {path.name for path in OUT.iterdir()} == expected
    assert len(expected) == 3 * index.label.sum() + 2 * (index.label == 0).sum()
    assert f"{len(expected)} patches in {OUT}" in capsys.readouterr().out


def test_pixels_are_the_middle_of_the_window(extracted):
    export_patches(OUT, network=NETWORK, replace=False)
    for row in whole_samples().groupby("label").head(3).itertuples():
        window = np.load(Path("patches") / f"{row.patient}_{row.field}.npy")[row.record]
        middle = window[7:-7, 7:-7]  # 46 px to 32
        name = f"{row.patient}_{row.field}_class{row.label}_center{row.center}_rot"
        np.testing.assert_array_equal(picture(f"{name}0.png"), middle)
        if row.label:
            np.testing.assert_array_equal(picture(f"{name}90.png"), np.rot90(middle))  # counter-clockwise
            turned = picture(f"{name}45.png").astype(int)
            assert turned.min() > 0 or middle.min() == 0  # real pixels in the corners too
            assert np.abs(turned[15:17, 15:17] - middle[15:17, 15:17]).max() < 60 < np.abs(turned - middle).max()


def test_a_filled_folder_is_replaced_only_when_asked(extracted):
    OUT.mkdir()
    (OUT / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exported: is not empty; choose another output folder"):
        export_patches(OUT, network=NETWORK, replace=False)
    assert [path.name for path in OUT.iterdir()] == ["mine.txt"]
    export_patches(OUT, network=NETWORK, replace=True)
    assert not (OUT / "mine.txt").exists() and len(list(OUT.glob("*.png"))) > 50


def test_the_rotations_are_those_of_the_network(extracted):
    params = tiny_params()
    params["train"][NETWORK]["sampling"]["rotations"] = {"positive": [180], "negative": [0]}
    write_params(params)
    export_patches(OUT, network=NETWORK, replace=False)
    assert {path.name.rpartition("_rot")[2] for path in OUT.glob("*class1*")} == {"180.png"}
    assert {path.name.rpartition("_rot")[2] for path in OUT.glob("*class0*")} == {"0.png"}


def test_an_unknown_network_or_a_missing_store_leaves_no_folder(project):
    with pytest.raises(InputError, match="train has no entry 'another'"):
        export_patches(OUT, network="another", replace=False)
    with pytest.raises(InputError, match="no patch store"):
        export_patches(OUT, network=NETWORK, replace=False)
    assert not OUT.exists()
