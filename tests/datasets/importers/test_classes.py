"""Names of classes: what people write for mitoses and look-alikes, and what must not be taken for either."""

import pytest

from mitoscope.datasets.importers.classes import LOOKALIKE_NAMES, MITOSIS_NAMES, Classes
from mitoscope.errors import InputError


@pytest.mark.parametrize(
    "name",
    [
        "Mitosis",
        "mitoses",
        "MITOSIS ",
        "Mitose",
        "Mitosen",
        "mitotic figure",
        "Mitotic_Figures",
        "mitotic-figure",
        "MF",
    ],
)
def test_mitoses(name):
    assert Classes().kind(name) == "mitosis"


@pytest.mark.parametrize(
    "name",
    [
        *("non-mitotic figure", "Non-Mitotic Figures", "nonmitotic figure", "hard negative", "Hard_Negatives"),
        *("hard negative imposter", "hard negative look-alike", "imposters", "mitotic figure lookalike"),
        *("Mitotic figure look-alikes", "mitotic-like figure", "not mitotic figure", "non-mitosis", "Non-Mitoses"),
    ],
)
def test_lookalikes(name):
    assert Classes().kind(name) == "lookalike"


@pytest.mark.parametrize(
    "name", ["Tumor", "Mitosis?", "Mitosis*", "possible mitosis", "Tumor: Mitosis", "mit", "", " ", "-", "figure"]
)
def test_anything_else_is_neither(name):
    assert Classes().kind(name) is None


def test_names_that_the_user_gives_replace_the_default():
    classes = Classes(mitosis=("Mitosis?", "Tumor: Mitosis"))
    assert classes.kind("tumor: mitoses") == classes.kind("Mitosis?") == "mitosis"
    assert classes.kind("Mitosis") is None and classes.kind("imposter") == "lookalike"


def test_a_name_that_the_user_gives_goes_before_a_default():
    assert Classes(mitosis=("Imposter",)).kind("imposters") == "mitosis"
    assert Classes(lookalike=("MF",)).kind("MF") == "lookalike"


def test_one_name_for_both_is_rejected():
    with pytest.raises(InputError, match="'MF': is given for the mitoses and for the look-alikes; keep one"):
        Classes(mitosis=("Mitosis", "MF"), lookalike=("mf",))


def test_no_default_name_stands_for_both():
    assert {Classes().kind(name) for name in MITOSIS_NAMES} == {"mitosis"}
    assert {Classes().kind(name) for name in LOOKALIKE_NAMES} == {"lookalike"}
