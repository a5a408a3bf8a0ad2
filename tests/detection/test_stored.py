"""The patches of a subset are those of its patients, each beside its own row; whole fields have all candidates."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mitoscope.datasets.patches import is_sample, read_index, read_summary
from mitoscope.detection.stored import StoredFields, read_samples
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import find_objects

SUBSETS = ("train", "validation", "test")


@pytest.fixture
def copied(patches: Path, split: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Store and split to be changed."""
    shutil.copytree(patches, tmp_path / "patches")
    shutil.copy(split, tmp_path / "split.csv")
    return tmp_path / "patches", tmp_path / "split.csv"


def put_all_in(split: Path, subset: str, *patients: str) -> None:
    table = pd.read_csv(split, dtype={"patient": str})
    table.loc[table.patient.isin(patients), "subset"] = subset
    table.to_csv(split, index=False)


def window(patches: Path, row: "pd.Series[object]") -> np.ndarray:
    return np.load(patches / f"{row.patient}_{row.field}.npy")[row.record]


# Samples of the patch level


def test_the_subsets_share_out_all_whole_samples(patches, split):
    index = read_index(patches)
    rows = pd.concat([read_samples(patches, split, name)[1] for name in SUBSETS])
    whole = index[is_sample(index) & ~index.edge]
    assert 0 < len(whole) < len(index)
    names = ["patient", "field", "record"]
    assert sorted(rows[names].itertuples(index=False)) == sorted(whole[names].itertuples(index=False))


def test_each_subset_has_its_patients_only(patches, split):
    subsets = pd.read_csv(split, dtype={"patient": str}).set_index("patient").subset
    for name in SUBSETS:
        _, rows = read_samples(patches, split, name)
        assert set(rows.patient) == set(subsets.index[subsets == name])


def test_candidates_near_a_mitosis_are_positives_where_they_are_asked_for(patches, split):
    _, plain = read_samples(patches, split, "train")
    samples, rows = read_samples(patches, split, "train", near_um=3.0)
    added = rows[(rows.source == "candidate") & (rows.label == 1)]
    assert len(rows) == len(plain) + len(added) and len(added) > 0
    assert (added.distance < 3).all() and not added.edge.any()
    assert samples.labels.sum() == plain.label.sum() + len(added)


def test_a_candidate_on_the_annotated_centre_is_no_second_mitosis(copied):
    patches, split = copied
    index = pd.read_csv(patches / "index.csv", dtype={"patient": str, "field": str})
    near = (index.source == "candidate") & (index.label == 1)
    before = [len(read_samples(patches, split, name)[0]) for name in SUBSETS]
    index.loc[near, "distance"] = 0.0
    index.to_csv(patches / "index.csv", index=False)
    assert [len(read_samples(patches, split, name)[0]) for name in SUBSETS] == before


def test_rows_labels_and_windows_line_up(patches, split):
    samples, rows = read_samples(patches, split, "train")
    assert len(samples) == len(rows) and not rows.edge.any()
    np.testing.assert_array_equal(samples.labels, rows.label)
    assert samples.labels.dtype == np.int64 and 0 < samples.labels.sum() < len(samples)
    pixels = samples.windows.read(np.arange(len(samples))).permute(0, 2, 3, 1).numpy()
    for shown, (_, row) in zip(pixels, rows.iterrows(), strict=True):
        np.testing.assert_array_equal(shown, window(patches, row))


def test_the_order_of_the_split_does_not_matter(copied):
    patches, split = copied
    before, _ = read_samples(patches, split, "train")
    pd.read_csv(split, dtype=str)[::-1].to_csv(split, index=False)
    after, _ = read_samples(patches, split, "train")
    np.testing.assert_array_equal(before.windows.read(np.arange(9)), after.windows.read(np.arange(9)))


def test_an_empty_subset_is_said_so(copied):
    patches, split = copied
    put_all_in(split, "train", "01", "02", "03", "04")
    with pytest.raises(InputError, match=r"the test patients have no patches; choose another split\.fold"):
        read_samples(patches, split, "test")


# Whole fields


def test_the_candidates_of_a_subset_are_all_of_its_fields(patches, split):
    index = read_index(patches)
    total = 0
    for name in SUBSETS:
        stored = StoredFields.read(patches, split, name)
        candidates, truths = stored.candidates, stored.truths
        mine = index[index.patient.isin(candidates.patient)]
        assert len(stored.windows) == len(stored.field) == len(candidates) == (mine.source == "candidate").sum()
        assert len(truths) == (mine.source == "annotation").sum() > 0
        assert candidates.edge.any() and (candidates.label == 1).any()
        row = candidates[candidates.label == 1].iloc[0]
        shown = stored.windows.read(np.array([row.name]))[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(shown, window(patches, row))
        total += len(candidates) + len(truths)
    assert total == len(index)


def test_candidates_of_one_field_and_no_others_have_its_number(patches, split):
    stored = StoredFields.read(patches, split, "train")
    names = stored.candidates.patient + "_" + stored.candidates.field
    pairs = set(zip(stored.field.tolist(), names, strict=True))
    assert len(pairs) == len(set(names)) == len(set(stored.field.tolist())) == 4


def test_facts_are_those_of_all_fields_of_the_subset(patches, split):
    stored, facts = StoredFields.read(patches, split, "validation"), read_summary(patches)["fields"]
    patients = set(stored.candidates.patient)
    names = [name for name in facts if name.partition("_")[0] in patients]
    assert list(stored.microns_per_pixel) == list(stored.areas_mm2) == names and len(names) == 2
    assert set(stored.microns_per_pixel.values()) == {0.25}
    assert list(stored.areas_mm2.values()) == [pytest.approx(0.01)] * 2
    assert stored.images == {
        patient: [facts[name]["pixels_sha256"] for name in names if name.startswith(patient)] for patient in patients
    }


def test_a_patient_whose_fields_are_blank_still_has_an_area_and_pixels(copied):
    """What is found there is a false positive in mm2 that count, and what was tested there must be known again."""
    patches, split = copied
    path = patches / "summary.json"
    summary = json.loads(path.read_text())
    summary["fields"]["09_01"] = {"microns_per_pixel": 0.5, "area_mm2": 2.0, "domain": "", "pixels_sha256": "blank"}
    path.write_text(json.dumps(summary))
    table = pd.read_csv(split, dtype={"patient": str})
    pd.concat([table, table[table.subset == "test"].assign(patient="09")]).to_csv(split, index=False)
    stored = StoredFields.read(patches, split, "test")
    assert stored.areas_mm2["09_01"] == 2.0 and stored.images["09"] == ["blank"]
    assert "09" not in set(stored.candidates.patient)
    assert "09_01" not in StoredFields.read(patches, split, "train").areas_mm2


def test_objects_are_matched_with_the_pixel_size_of_each_field(copied):
    patches, split = copied
    stored = StoredFields.read(patches, split, "validation")
    probabilities = np.random.default_rng(0).uniform(0.1, 0.9, len(stored.candidates))
    expected = find_objects(
        stored.candidates, probabilities, stored.truths, dict.fromkeys(stored.microns_per_pixel, 0.25), suppress_um=3
    )
    pd.testing.assert_frame_equal(stored.objects(probabilities, 3), expected)
    assert len(stored.objects(probabilities, 20)) < len(expected)
    path = patches / "summary.json"
    summary = json.loads(path.read_text())
    name = next(iter(stored.microns_per_pixel))
    summary["fields"][name]["microns_per_pixel"] = 1.0  # four times as far apart
    path.write_text(json.dumps(summary))
    wider = StoredFields.read(patches, split, "validation").objects(probabilities, 20)
    counts = [table.groupby(["patient", "field"]).size() for table in (stored.objects(probabilities, 20), wider)]
    assert [now > then for then, now in zip(*counts, strict=True)] == [True, False]


def test_a_patient_may_be_called_na(copied):
    patches, split = copied
    for path in (split, patches / "index.csv"):
        path.write_text(path.read_text().replace("\n01,", "\nNA,"))
    path = patches / "summary.json"
    path.write_text(path.read_text().replace('"01_', '"NA_'))
    for store in patches.glob("01_*.npy"):
        store.rename(store.with_name(store.name.replace("01_", "NA_")))
    subset = pd.read_csv(split, dtype=str, keep_default_na=False).set_index("patient").subset["NA"]
    stored = StoredFields.read(patches, split, subset)
    assert "NA" in set(stored.candidates.patient) and "NA" in stored.images
    assert len(stored.windows.read(np.arange(3))) == 3


@pytest.mark.parametrize("read", [read_samples, StoredFields.read])
def test_what_has_not_been_run_yet_is_named(patches, split, tmp_path, read):
    with pytest.raises(InputError, match="no patch store; run `dvc repro extract` first"):
        read(tmp_path, split, "train")
    with pytest.raises(InputError, match=r"split\.csv: no split of the patients; run `dvc repro split`"):
        read(patches, tmp_path / "split.csv", "train")


@pytest.mark.parametrize("read", [read_samples, StoredFields.read])
def test_a_patient_of_no_subset_is_named(copied, read):
    patches, split = copied
    split.write_text("".join(line for line in split.read_text().splitlines(True) if not line.startswith("03")))
    with pytest.raises(InputError, match=r"split\.csv: lacks patient 03, who is in .*patches"):
        read(patches, split, "train")
