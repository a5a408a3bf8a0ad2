"""The patch store reads back as it was written, and a split shares out its rows."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mitoscope.datasets.patches import (
    COLUMNS,
    is_sample,
    open_windows,
    read_index,
    read_patients,
    read_rows,
    read_split,
    read_summary,
    sample_name,
    select_samples,
    store_path,
)
from mitoscope.errors import InputError

# patient, field, domain, label, center, row, col, source, distance, lookalike, edge, record
ROWS = [
    ("01", "02", "Aperio", 1, 0, 40.0, 41.5, "annotation", 0.0, False, False, 0),
    ("01", "02", "Aperio", 1, 1, 40.5, 41.0, "candidate", 0.18, False, False, 1),
    ("01", "02", "Aperio", 1, 2, 52.0, 50.0, "candidate", 3.68, False, False, 2),
    ("01", "02", "Aperio", 0, 0, 90.0, 95.0, "candidate", 18.34, False, False, 3),
    ("01", "02", "Aperio", 0, 1, 3.0, 2.0, "candidate", 13.54, False, True, 4),
    ("NA", "01", "NA", 1, 0, 2.0, 60.0, "annotation", 0.0, False, True, 0),
    ("NA", "01", "NA", 1, 1, 4.0, 60.0, "candidate", 0.5, False, True, 1),
    ("NA", "01", "NA", 0, 0, 70.0, 60.0, "candidate", 16.5, False, False, 2),
    ("03", "01", "", 0, 0, 30.0, 30.0, "candidate", np.nan, False, False, 0),  # a field without mitosis
]
SUBSETS = {"03": "test", "01": "train", "NA": "validation"}


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """A store of three fields; every pixel of a window is its record's number, plus 100 in field NA_01."""
    folder = tmp_path / "patches"
    folder.mkdir()
    index = pd.DataFrame(ROWS, columns=list(COLUMNS))
    index.to_csv(folder / "index.csv", index=False)
    for (patient, field), rows in index.groupby(["patient", "field"]):
        pixels = rows.record.to_numpy(np.uint8) + (100 if patient == "NA" else 0)
        np.save(store_path(folder, patient, field), np.broadcast_to(pixels[:, None, None, None], (len(rows), 6, 6, 3)))
    (folder / "summary.json").write_text(
        json.dumps({"fields": {name: {"domain": ""} for name in ("01_02", "NA_01", "03_01")}})
    )
    return folder


@pytest.fixture
def split(tmp_path: Path) -> Path:
    path = tmp_path / "split.csv"
    lines = [f"{patient},{fold},{subset},0,1\n" for fold, (patient, subset) in enumerate(SUBSETS.items())]
    path.write_text("".join(["patient,fold,subset,mitoses,fields\n", *lines]))
    return path


def records(rows: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(rows.patient, rows.record, strict=True))


@pytest.mark.parametrize(
    ("angle", "name"),
    [
        (45, "01_02_class0_center3_rot45.png"),
        (45.0, "01_02_class0_center3_rot45.png"),
        (22.5, "01_02_class0_center3_rot22.5.png"),
        (0, "01_02_class0_center3_rot0.png"),
    ],
)
def test_sample_names(angle, name):
    assert sample_name(SimpleNamespace(patient="01", field="02", label=0, center=3), angle) == name


def test_a_field_has_one_array():
    assert store_path(Path("patches"), "07", "03") == Path("patches/07_03.npy")


def test_the_index_reads_back(patches):
    index = read_index(patches)
    pd.testing.assert_frame_equal(index, pd.DataFrame(ROWS, columns=list(COLUMNS)), check_dtype=False)
    assert index.edge.dtype == bool
    assert index.patient.tolist()[5:8] == ["NA"] * 3  # a name and no gap
    assert index.distance.isna().tolist() == [False] * 8 + [True]


def test_samples_are_the_mitoses_and_the_candidates_far_from_them(patches):
    assert is_sample(read_index(patches)).tolist() == [True, False, False, True, True, True, False, True, True]


def test_no_store_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"index\.csv: no patch store; run `dvc repro extract`"):
        read_index(tmp_path)
    with pytest.raises(InputError, match=r"summary\.json: no patch store; run `dvc repro extract`"):
        read_summary(tmp_path)


def test_the_summary_reads_back(patches):
    assert list(read_summary(patches)["fields"]) == ["01_02", "NA_01", "03_01"]


def test_the_summary_of_an_older_version_is_said_so(patches):
    (patches / "summary.json").write_text(json.dumps({"fields": 3}))
    with pytest.raises(
        InputError, match=r"summary\.json: was written by an older version; run `dvc repro extract` first"
    ):
        read_summary(patches)


def test_the_patients_of_every_subset(split):
    assert read_split(split).patient.tolist() == ["03", "01", "NA"]
    assert read_patients(split) == {"train": ["01"], "validation": ["NA"], "test": ["03"]}


def test_a_missing_split_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"split\.csv: no split of the patients; run `dvc repro split` first"):
        read_split(tmp_path / "split.csv")


def test_the_subsets_share_out_all_rows_in_the_order_of_the_index(patches, split):
    index = read_index(patches)
    for patient, subset in SUBSETS.items():
        rows = read_rows(patches, split, subset)
        assert set(rows.subset) == {subset} and rows.index.tolist() == list(range(len(rows)))
        assert records(rows) == records(index[index.patient == patient])


def test_a_patient_of_no_subset_is_named(patches, split):
    split.write_text("".join(line for line in split.read_text().splitlines(True) if not line.startswith("NA")))
    with pytest.raises(InputError, match=r"split\.csv: lacks patient NA, who is in .*patches; run `dvc repro split"):
        read_rows(patches, split, "train")


@pytest.mark.parametrize(
    ("near_um", "expected"),
    [
        (0, [("01", 0), ("01", 3), ("NA", 2), ("03", 0)]),
        (0.5, [("01", 0), ("01", 1), ("01", 3), ("NA", 2), ("03", 0)]),
        (5, [("01", 0), ("01", 1), ("01", 2), ("01", 3), ("NA", 2), ("03", 0)]),
    ],
)
def test_samples_are_whole_and_near_ones_are_positives_where_asked_for(patches, near_um, expected):
    chosen = select_samples(read_index(patches), near_um)
    assert records(chosen) == expected and chosen.index.tolist() == list(range(len(chosen)))


def test_a_candidate_on_the_annotated_centre_is_no_second_mitosis(patches):
    index = read_index(patches)
    index.loc[1, "distance"] = 0.0
    assert ("01", 1) not in records(select_samples(index))


def test_windows_are_those_of_the_rows(patches):
    rows = read_index(patches).iloc[[7, 3, 0, 5]]  # of two fields, mixed
    stores, store, record = open_windows(patches, rows)
    assert len(stores) == 2 and store.tolist() == [0, 1, 1, 0] and record.tolist() == [2, 3, 0, 0]
    assert store.dtype == record.dtype == np.int64
    assert all(isinstance(each, np.memmap) for each in stores)
    pixels = [int(stores[number][place][0, 0, 0]) for number, place in zip(store, record, strict=True)]
    assert pixels == [102, 3, 0, 100]
