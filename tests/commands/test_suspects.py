"""Suspects: what is listed, on which scores, and that QuPath's corrections of it come back into data/."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.commands.suspects import suspects
from mitoscope.datasets.annotations import read_centres, read_lookalikes, write_centres
from mitoscope.datasets.fields import FieldOfView, list_fields
from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import read_params
from mitoscope.paths import CROSSVALIDATED, DATA, PATCHES, Outputs
from mitoscope.stages.extract import extract
from mitoscope.tracking.provenance import dataset_digest
from tests.conftest import NETWORK
from tests.results import change, read, write_results

OUT, SHAPE = Path("suspects"), (400, 400)
LOOKALIKE, ELSEWHERE = [380.0, 20.0], [20.0, 60.0]  # far from each other and from all mitoses of 02_01 and 02_02
Printed = Callable[..., str]


def fields() -> dict[str, FieldOfView]:
    return {field.name: field for field in list_fields(DATA)}


def mitoses(name: str) -> np.ndarray:
    return read_centres(fields()[name], SHAPE)


def lookalikes(name: str) -> np.ndarray:
    return read_lookalikes(fields()[name], SHAPE)


def digest() -> str:
    return dataset_digest(DATA, read_summary(PATCHES)["digest"])


def scored(*patients: str) -> pd.DataFrame:
    """Objects of a detector that finds all mitoses with 0.9, but one of 02_01 with 0.1, and one of 01_02 not at all.

    It also takes the look-alike for a mitosis with 0.8, and a place in 02_02 with 0.7.
    """
    rows = []
    for name, field in fields().items():
        for number, centre in enumerate(mitoses(name)):
            probability = {("02_01", 1): 0.1, ("01_02", 1): 0.0}.get((name, number), 0.9)
            rows.append((field.patient, field.field, *centre, probability, 1))
    rows += [("02", "01", *LOOKALIKE, 0.8, 0), ("02", "02", *ELSEWHERE, 0.7, 0), ("02", "02", *ELSEWHERE[::-1], 0.3, 0)]
    table = pd.DataFrame(rows, columns=["patient", "field", "row", "col", "probability", "label"])
    return table[table.patient.isin(patients)]


@pytest.fixture
def evaluated(extracted: Path) -> Outputs:
    """The small project with scores of its test patients 01 and 02, at the threshold 0.4; 02_01 has a look-alike."""
    write_centres(fields()["02_01"].lookalikes, np.array([LOOKALIKE]))
    outputs = write_results(dataset_digest=digest())
    scored("01", "02").to_csv(outputs.evaluated / "objects.csv", index=False)
    return outputs


def write_crossvalidation(md5: str, thresholds: dict[str, float]) -> None:
    """Leave what `mitoscope crossvalidate` does: a fold per patient, each with a threshold of its own."""
    folds = [{"fold": k, "test": [who], "fields": {"threshold": t}} for k, (who, t) in enumerate(thresholds.items())]
    write_json(CROSSVALIDATED / f"{NETWORK}.json", {"dataset": {"md5": md5}, "folds": folds})
    scored(*thresholds).to_csv(CROSSVALIDATED / f"{NETWORK}-objects.csv", index=False)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """List the suspects; returns what the command says, in one line."""

    def run(count: int = 100) -> str:
        suspects(NETWORK, out=OUT, count=count)
        return " ".join(capsys.readouterr().out.split())

    return run


def listed() -> pd.DataFrame:
    return pd.read_csv(OUT / "suspects.csv", dtype={"patient": str, "field": str}, keep_default_na=False)


def features(name: str) -> list[dict]:
    content: list[dict] = json.loads((OUT / f"{name}.geojson").read_text())["features"]
    return content


def refuse(match: str) -> None:
    """List the suspects; nothing may come of it, and the reason is one line."""
    before = {path: path.read_bytes() for path in OUT.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=match) as caught:
        suspects(NETWORK, out=OUT, count=100)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in OUT.rglob("*") if path.is_file()} == before


# What is listed.


def test_the_most_suspicious_labels_are_listed(evaluated, printed):
    said = printed()
    first = mitoses("02_01")[1]
    table = listed()
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table.label.tolist() == ["mitosis", "look-alike", "none", "mitosis"]
    assert (table.patient + "_" + table.field).tolist() == ["02_01", "02_01", "02_02", "01_02"]
    np.testing.assert_allclose(table[["row", "col"]].iloc[:3], [first, LOOKALIKE, ELSEWHERE], atol=0.005)
    assert table.file[0] == "02_01.jpg" and set(table.threshold) == {0.4}
    assert table.probability.tolist() == ["0.1", "0.8", "0.7", ""] and table.note.tolist() == [
        *[""] * 3,
        "no candidate",
    ]
    counts = "1 annotated mitoses score low; 1 places without annotation score high; 1 labelled look-alikes score high"
    assert f"4 suspects: {counts}; 1 mitoses have no candidate" in said
    assert f"1 02_01 {first[0]:.0f} {first[1]:.0f} mitosis 0.100 0.400 1.79" in said
    assert "All, in 3 fields, are in suspects" in said and "mitoscope import qupath data suspects --add" in said
    names = {"suspects.csv", "suspects.png", "suspects.json", "02_01.geojson", "01_02.geojson", "02_02.geojson"}
    assert {path.name for path in OUT.iterdir()} == names


def test_the_first_ones_can_be_asked_for(evaluated, printed):
    assert "The first 2, in 1 field, are in suspects" in printed(count=2)
    assert listed()["rank"].tolist() == [1, 2]
    assert not (OUT / "02_02.geojson").exists()


def test_without_suspects_the_table_is_empty(evaluated, printed):
    objects = scored("01", "02")
    objects[objects.label == 1].assign(probability=0.9).to_csv(evaluated.evaluated / "objects.csv", index=False)
    assert printed().endswith("0 suspects.")
    assert len(listed()) == 0 and (OUT / "suspects.png").exists()


def test_a_file_for_qupath_has_all_annotations_of_its_field(evaluated, printed):
    printed()
    found = [feature["properties"] for feature in features("02_01")]
    classes = [properties["classification"]["name"] for properties in found]
    assert classes == [*["Mitosis"] * len(mitoses("02_01")), "Non-mitotic figure"]
    names = {number: properties["name"] for number, properties in enumerate(found) if "name" in properties}
    assert names == {1: "1: mitosis 0.10", len(found) - 1: "2: look-alike 0.80"}
    assert found[1]["measurements"] == {"Probability": 0.1, "Threshold": 0.4, "Disagreement": 1.791759}
    (suspect,) = features("02_02")
    assert suspect["properties"]["classification"]["name"] == "mitoscope suspect"
    assert features("01_02")[1]["properties"]["name"] == "4: no candidate"


# Which scores.


def test_the_test_patients_are_used_where_there_is_no_crossvalidation(evaluated, printed):
    would = f"`mitoscope crossvalidate {NETWORK}` would cover all"
    assert f"Held-out scores: results/evaluate/{NETWORK}, 2 patients of 4; {would}." in printed()
    assert read(OUT / "suspects.json")["thresholds"] == {"01": 0.4, "02": 0.4}


def test_a_crossvalidation_covers_all_patients_each_with_the_threshold_of_its_fold(evaluated, printed):
    write_crossvalidation(digest(), {"01": 0.4, "02": 0.05, "03": 0.95, "04": 0.4})
    assert f"Held-out scores: results/crossvalidate/{NETWORK}.json, 4 patients." in printed()
    table = listed()
    # The mitosis that scores 0.1 is above 0.05, and so is a place that scores 0.3.
    assert table[table.patient == "02"].label.tolist() == ["look-alike", "none", "none"]
    missed = table[table.patient == "03"]
    assert len(missed) == len(mitoses("03_01")) + len(mitoses("03_02")) and set(missed.threshold) == {0.95}


def test_a_crossvalidation_of_other_data_is_not_used(evaluated, printed):
    write_crossvalidation("0" * 32, {"01": 0.05, "02": 0.4, "03": 0.95, "04": 0.4})
    said = printed()
    assert (
        f"results/evaluate/{NETWORK}, 2 patients of 4" in said
        and "would cover all (the one that is there is of" in said
    )


def test_scores_of_other_data_are_rejected(evaluated):
    change(evaluated.evaluated / "test_set.json", dataset_digest="0" * 32)
    refuse(f"results/evaluate/{NETWORK}: has scores of other data .* run `dvc repro evaluate@{NETWORK}`")


def test_data_that_were_changed_since_are_rejected(evaluated):
    """DVC's hash tells it only after `dvc add data`."""
    field = fields()["01_02"]
    write_centres(field.annotation, mitoses("01_02")[1:])
    refuse("data/01_02.jpg: has other mitoses than patches; .* run `dvc add data`")
    field.annotation.unlink()
    field.image.unlink()
    refuse("data: has other fields than patches; .* run `dvc add data`")


def test_a_network_without_results_is_told_how_to_get_them(extracted):
    refuse(f"no such file; run `dvc repro evaluate@{NETWORK}` first")


def test_a_crossvalidation_of_an_older_version_is_rejected(evaluated):
    write_json(CROSSVALIDATED / f"{NETWORK}.json", {"dataset": {}})
    refuse(f"{NETWORK}.json: was written by another version; run `mitoscope crossvalidate {NETWORK}`")


def test_an_unknown_network_is_rejected(evaluated):
    (known,) = read_params().train
    with pytest.raises(InputError, match=f"train has no entry 'other'; it has {known}"):
        suspects("other", out=OUT, count=100)


# The folder.


def test_an_earlier_list_is_replaced(evaluated, printed):
    printed()
    printed(count=1)
    assert {path.name for path in OUT.iterdir()} == {"suspects.csv", "suspects.png", "suspects.json", "02_01.geojson"}


def test_corrections_are_not_replaced(evaluated, printed):
    printed()
    (OUT / "02_01.geojson").write_text("[]")
    refuse("--out suspects: 02_01.geojson is not as an earlier `mitoscope suspects` wrote it, perhaps corrected")


def test_files_of_others_are_not_replaced(evaluated):
    OUT.mkdir()
    (OUT / "suspects.json").write_text("{}")
    refuse("suspects/suspects.json: is no file of `mitoscope suspects`; choose another folder")
    (OUT / "suspects.json").rename(OUT / "notes.txt")
    refuse("--out suspects: notes.txt is not as an earlier")


def test_the_data_get_no_files(evaluated):
    with pytest.raises(InputError, match="--out data/suspects: lies in data/; choose a folder outside"):
        suspects(NETWORK, out=DATA / "suspects", count=100)
    assert not (DATA / "suspects").exists()


# The way back.


def bring_back() -> str:
    done = CliRunner().invoke(app, ["import", "qupath", "data", str(OUT), "--add"])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_what_a_pathologist_changes_comes_back_and_nothing_is_lost(evaluated, printed):
    printed()
    before = {name: mitoses(name) for name in fields()}
    # One annotated mitosis is deleted, the suspect in 02_02 is a mitosis, and nobody looks at 01_02.
    collection = json.loads((OUT / "02_01.geojson").read_text())
    del collection["features"][1]
    (OUT / "02_01.geojson").write_text(json.dumps(collection))
    collection = json.loads((OUT / "02_02.geojson").read_text())
    collection["features"][0]["properties"]["classification"] = {"name": "Mitosis", "color": [200, 0, 0]}
    (OUT / "02_02.geojson").write_text(json.dumps(collection))

    said = bring_back()

    assert f"02_01: {len(before['02_01'])} -> {len(before['02_01']) - 1} mitoses; 02_02: 0 -> 1 mitoses" in said
    np.testing.assert_allclose(mitoses("02_01"), np.delete(before["02_01"], 1, axis=0), atol=0.005)
    np.testing.assert_allclose(mitoses("02_02"), [ELSEWHERE], atol=0.005)
    for name in before.keys() - {"02_01", "02_02"}:
        np.testing.assert_allclose(mitoses(name), before[name], atol=0.005)
    assert lookalikes("02_01").tolist() == [LOOKALIKE] and not len(lookalikes("02_02"))
    extract()  # the dataset is sound


def test_a_lookalike_can_become_a_mitosis(evaluated, printed):
    printed()
    collection = json.loads((OUT / "02_01.geojson").read_text())
    collection["features"][-1]["properties"]["classification"] = {"name": "Mitosis", "color": [200, 0, 0]}
    (OUT / "02_01.geojson").write_text(json.dumps(collection))
    bring_back()
    assert LOOKALIKE in mitoses("02_01").tolist() and not len(lookalikes("02_01"))


def test_suspects_that_nobody_has_called_a_mitosis_are_left_out(evaluated, printed):
    printed()
    (OUT / "02_01.geojson").unlink()
    (OUT / "01_02.geojson").unlink()  # so that the call has nothing but suspects
    said = bring_back()
    assert "note: 1 suspects that nobody has called a mitosis left out" in said and "--mitosis" not in said
    assert not len(mitoses("02_02"))
