"""The patches of a subset are those of its patients, each beside its own row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mitoscope.datasets.patches import is_sample, read_index, read_summary
from mitoscope.errors import InputError
from mitoscope.stages.subsets import ScoredFields, read_candidates, read_samples

PATCHES, SPLIT = Path("patches"), Path("results/split.csv")


def put_all_in(subset: str, *patients: str) -> None:
    split = pd.read_csv(SPLIT, dtype={"patient": str})
    split.loc[split.patient.isin(patients), "subset"] = subset
    split.to_csv(SPLIT, index=False)


def test_the_subsets_share_out_all_whole_samples(extracted):
    index = read_index(PATCHES)
    rows = pd.concat([read_samples(name)[1] for name in ("train", "validation", "test")])
    whole = index[is_sample(index) & ~index.edge]
    assert 0 < len(whole) < len(index)
    names = ["patient", "field", "record"]
    assert sorted(rows[names].itertuples(index=False)) == sorted(whole[names].itertuples(index=False))


def test_candidates_near_a_mitosis_are_positives_where_they_are_asked_for(extracted):
    _, plain = read_samples("train")
    patches, rows = read_samples("train", near_um=3.0)
    added = rows[(rows.source == "candidate") & (rows.label == 1)]
    assert len(rows) == len(plain) + len(added) and len(added) > 0
    assert (added.distance < 3).all() and not added.edge.any()
    assert patches.labels.sum() == plain.label.sum() + len(added)


def test_a_candidate_on_the_annotated_centre_is_no_second_mitosis(extracted):
    index = pd.read_csv(PATCHES / "index.csv", dtype={"patient": str, "field": str})
    near = (index.source == "candidate") & (index.label == 1)
    before = [len(read_samples(name)[0]) for name in ("train", "validation", "test")]
    index.loc[near, "distance"] = 0.0
    index.to_csv(PATCHES / "index.csv", index=False)
    assert [len(read_samples(name)[0]) for name in ("train", "validation", "test")] == before


def test_a_patient_may_be_called_na(extracted):
    for path in (SPLIT, PATCHES / "index.csv"):
        path.write_text(path.read_text().replace("\n01,", "\nNA,"))
    for store in PATCHES.glob("01_*.npy"):
        store.rename(store.with_name(store.name.replace("01_", "NA_")))
    subset = pd.read_csv(SPLIT, dtype=str, keep_default_na=False).set_index("patient").subset["NA"]
    assert set(read_candidates(subset)[1].patient) >= {"NA"}


def test_the_typical_spread_is_the_median_over_the_fields():
    odds = {"01": [-4.0, -2.0, 0.0], "02": [-3.0, -1.0, 1.0], "03": [-9.0, -8.0, 3.0]}
    rows = [("P", field, 0.0, 0.0, expit(value)) for field, values in odds.items() for value in values]
    candidates = pd.DataFrame(rows, columns=["patient", "field", "row", "col", "probability"])
    scored = ScoredFields(candidates, candidates[:0], 0.25)
    # Medians -2, -1, -8; 95th percentiles, nine tenths of the way from the second to the third, -0.2, 0.8, 1.9.
    assert scored.typical_spread() == pytest.approx((-2.0, 0.8))


def test_each_subset_has_its_patients_only(extracted):
    split = pd.read_csv(SPLIT, dtype={"patient": str}).set_index("patient").subset
    for name in ("train", "validation", "test"):
        _, rows = read_samples(name)
        assert set(rows.patient) == set(split.index[split == name])


def test_rows_labels_and_windows_line_up(extracted):
    patches, rows = read_samples("train")
    assert len(patches) == len(rows) and not rows.edge.any()
    np.testing.assert_array_equal(patches.labels, rows.label)
    assert 0 < patches.labels.sum() < len(patches)
    windows = patches.windows(np.arange(len(patches))).permute(0, 2, 3, 1).numpy()
    for window, row in zip(windows, rows.itertuples(), strict=True):
        np.testing.assert_array_equal(window, np.load(PATCHES / f"{row.patient}_{row.field}.npy")[row.record])


def test_the_candidates_of_a_subset_are_all_of_its_fields(extracted):
    index = read_index(PATCHES)
    total = 0
    for name in ("train", "validation", "test"):
        patches, candidates, truths = read_candidates(name)
        mine = index[index.patient.isin(candidates.patient)]
        assert len(patches) == len(candidates) == (mine.source == "candidate").sum()
        assert len(truths) == (mine.source == "annotation").sum() > 0
        assert candidates.edge.any() and (candidates.label == 1).any()
        row = candidates[candidates.label == 1].iloc[0]
        window = patches.windows(np.array([row.name]))[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(window, np.load(PATCHES / f"{row.patient}_{row.field}.npy")[row.record])
        total += len(candidates) + len(truths)
    assert total == len(index)


def test_the_order_of_the_split_does_not_matter(extracted):
    before, _ = read_samples("train")
    pd.read_csv(SPLIT, dtype=str)[::-1].to_csv(SPLIT, index=False)
    after, _ = read_samples("train")
    np.testing.assert_array_equal(before.windows(np.arange(9)), after.windows(np.arange(9)))


def test_a_patient_of_no_subset_is_named(extracted):
    SPLIT.write_text("".join(line for line in SPLIT.read_text().splitlines(True) if not line.startswith("03")))
    with pytest.raises(InputError, match=r"split\.csv: has no patient 03, which patches has"):
        read_samples("train")


def test_an_empty_subset_is_said_so(extracted):
    put_all_in("train", "01", "02", "03", "04")
    with pytest.raises(InputError, match="the test patients have no patch"):
        read_samples("test")


def test_what_has_not_been_run_yet_is_named(project):
    for call in (lambda: read_samples("train"), lambda: read_summary(PATCHES)):
        with pytest.raises(InputError, match="no patch store; run `dvc repro extract` first"):
            call()


def test_a_missing_split_is_said_so(extracted):
    SPLIT.unlink()
    with pytest.raises(InputError, match=r"results/split\.csv: no split of the patients; run `dvc repro split`"):
        read_samples("train")
