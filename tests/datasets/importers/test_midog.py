"""MIDOG's boxes become centres, whichever form they have, and what is not MIDOG's is refused."""

import json
import shutil
from pathlib import Path

import pytest

from mitoscope.datasets.annotations import read_centres
from mitoscope.datasets.fields import FieldOfView, list_fields, read_description
from mitoscope.datasets.importers import Summary
from mitoscope.datasets.importers.midog import import_midog
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import COLUMNS, ROWS, contents, refused, tissue

CENTRES = {"001.tiff": [(30.0, 20.0), (10.5, 41.5)], "002.tiff": [(5.0, 7.0)]}


def midog_json(**changes: object) -> dict[str, object]:
    """Two annotated images, and a third of a scanner without labels; boxes are 6 px wide (MIDOG's: 50)."""
    annotations: list[dict[str, object]] = [
        {"image_id": int(name[:3]), "category_id": 1, "bbox": [col - 3, row - 3, col + 3, row + 3], "labels": []}
        for name, centres in CENTRES.items()
        for row, col in centres
    ]
    annotations.append({"image_id": 2, "category_id": 2, "bbox": [30, 30, 36, 36]})
    return {
        "info": {"description": "MIDOG"},
        "licenses": [],
        "images": [{"id": n, "file_name": f"{n:03d}.tiff", "width": COLUMNS, "height": ROWS} for n in (1, 2, 151)],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        "annotations": annotations,
    } | changes


@pytest.fixture
def midog(tmp_path) -> tuple[Path, Path]:
    """The folder of images and the JSON."""
    images, annotations = tmp_path / "images", tmp_path / "MIDOG.json"
    images.mkdir()
    for number in (1, 2, 151, 300):
        (images / f"{number:03d}.tiff").write_bytes(encode(".tif", tissue(number)))
    annotations.write_text(json.dumps(midog_json()))
    return images, annotations


def imported_centres(data: Path) -> dict[str, list[tuple[float, float]]]:
    return {
        f"{field.patient}.tiff": [tuple(centre) for centre in read_centres(field, (ROWS, COLUMNS)).tolist()]
        for field in list_fields(data)
    }


def test_midog_becomes_one_field_per_patient(midog, tmp_path):
    images, annotations = midog
    said: list[tuple[str, int, int]] = []
    summary = import_midog(images, annotations, tmp_path / "data", on_progress=lambda *step: said.append(step))
    assert summary == Summary(fields=2, patients=2, mitoses=3, skipped=("151.tiff", "300.tiff"))
    assert imported_centres(tmp_path / "data") == CENTRES
    brought = contents(tmp_path / "data")
    assert sorted(brought) == ["001_01.csv", "001_01.tiff", "002_01.csv", "002_01.tiff", "dataset.yaml"]
    assert brought["002_01.tiff"] == (images / "002.tiff").read_bytes()
    assert not (tmp_path / "data" / "002_01.tiff").is_symlink()
    description = read_description(tmp_path / "data")
    assert (description.name, description.microns_per_pixel, description.synthetic) == ("MIDOG", 0.25, False)
    assert ("copying", 2, 2) in said and said[-1] == ("checking", 2, 2)


def test_boxes_in_cocos_own_form_have_the_same_centres(midog, tmp_path):
    images, annotations = midog
    content = midog_json()
    for annotation in content["annotations"]:
        x0, y0, x1, y1 = annotation["bbox"]
        annotation["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    annotations.write_text(json.dumps(content))
    import_midog(images, annotations, tmp_path / "data")
    assert imported_centres(tmp_path / "data") == CENTRES


def test_other_names_of_the_categories(midog, tmp_path):
    images, annotations = midog
    categories = [{"id": 2, "name": "not mitotic figure"}, {"id": 1, "name": "Mitotic Figure"}]
    annotations.write_text(json.dumps(midog_json(categories=categories)))
    import_midog(images, annotations, tmp_path / "data")
    assert imported_centres(tmp_path / "data") == CENTRES


def test_an_image_with_look_alikes_only_has_no_mitosis(midog, tmp_path):
    images, annotations = midog
    only = [{"image_id": 151, "category_id": 2, "bbox": [1, 1, 7, 7]}]
    annotations.write_text(json.dumps(midog_json(annotations=only)))
    assert import_midog(images, annotations, tmp_path / "data").mitoses == 0
    assert FieldOfView(tmp_path / "data" / "151_01.tiff", "151", "01").annotation.read_text() == ""


def test_a_mitosis_given_twice_is_one(midog, tmp_path):
    images, annotations = midog
    content = midog_json()
    content["annotations"] += content["annotations"][:1]
    annotations.write_text(json.dumps(content))
    assert import_midog(images, annotations, tmp_path / "data").mitoses == 3


def test_only_images_without_annotation_may_be_absent(midog, tmp_path, out):
    images, annotations = midog
    (images / "151.tiff").unlink()
    assert import_midog(images, annotations, tmp_path / "data").skipped == ("300.tiff",)
    (images / "002.tiff").unlink()
    message = refused(import_midog, images, annotations, out=out)
    assert message.startswith(f"{images / '002.tiff'}: no such image")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"hello", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"\xff\xfe\x00", "Invalid JSON"),
        (b"[]", "must be a block of entries"),
        (json.dumps(midog_json())[:-30].encode(), "Invalid JSON"),
        (json.dumps({"images": [], "annotations": []}).encode(), "categories"),
    ],
)
def test_what_is_not_midogs_json_is_refused(midog, out, content, complaint):
    images, annotations = midog
    annotations.write_bytes(content)
    message = refused(import_midog, images, annotations, out=out)
    assert message.startswith(f"{annotations}: ") and complaint in message


def image(**changes: object) -> dict[str, object]:
    return {"id": 1, "file_name": "001.tiff", "width": COLUMNS, "height": ROWS} | changes


def box(*bbox: float, image_id: int = 1) -> dict[str, object]:
    return {"image_id": image_id, "category_id": 1, "bbox": bbox}


GOOD_BOX = box(30, 30, 36, 36)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"categories": [{"id": 1, "name": "not mitotic figure"}]}, "no category `mitotic figure`"),
        ({"annotations": []}, "annotates no images"),
        ({"annotations": [GOOD_BOX, box(1, 1, 7, 7, image_id=9)]}, "annotations.1: there is no image 9"),
        ({"annotations": [GOOD_BOX, box(36, 30, 30, 36)]}, "annotations.1: [36.0, 30.0, 30.0, 36.0] is not a box"),
        ({"annotations": [GOOD_BOX, box(46, 30, 52, 36)]}, "annotations.1: "),  # its centre is outside
        ({"annotations": [GOOD_BOX, box(30, 30, 30, 36)]}, "annotations.1: "),  # it has no width
        ({"annotations": [GOOD_BOX, box(30, 30, float("nan"), 36)]}, "annotations.1"),
        ({"annotations": [box(30, 30, 36)]}, "annotations.0.bbox"),
        ({"images": [image(file_name="001")]}, "'001'; expected a name such as 001.tiff"),
        ({"images": [image(file_name="a_1.tiff")]}, "'a_1.tiff'; expected"),
        ({"images": [image(file_name="001.svs")]}, "'001.svs'; expected"),
        ({"images": [image(), image(id=2, file_name="part2/001.tiff")]}, "two images have the same name"),
    ],
)
def test_wrong_entries_of_midogs_json_are_refused(midog, out, changes, complaint):
    images, annotations = midog
    content = midog_json()
    if "images" in changes:
        content["annotations"] = [GOOD_BOX, box(30, 30, 36, 36, image_id=changes["images"][-1]["id"])]
    annotations.write_text(json.dumps(content | changes))
    message = refused(import_midog, images, annotations, out=out)
    assert message.startswith(f"{annotations}: ") and complaint in message


def test_a_name_in_the_json_cannot_lead_out_of_the_images(midog, out):
    images, annotations = midog
    shutil.move(images / "001.tiff", images.parent / "secret.tiff")
    changes = {"images": [image(file_name="../secret.tiff")], "annotations": [GOOD_BOX]}
    annotations.write_text(json.dumps(midog_json(**changes)))
    assert f"{images / 'secret.tiff'}: no such image" in refused(import_midog, images, annotations, out=out)


def test_a_bad_image_is_named_where_it_came_from(midog, out):
    images, annotations = midog
    path = images / "002.tiff"
    path.write_bytes(path.read_bytes()[:-500])
    message = refused(import_midog, images, annotations, out=out)
    assert message.startswith(f"{path}: ") and "truncated" in message


def test_an_image_smaller_than_the_json_says_is_refused(midog, out):
    images, annotations = midog
    (images / "001.tiff").write_bytes(encode(".tif", tissue(1)[:25]))
    message = refused(import_midog, images, annotations, out=out)
    assert message.startswith(f"{annotations} as 001_01.csv: row 1: ") and "outside" in message


def test_missing_midog_files_are_refused(midog, tmp_path, out):
    images, annotations = midog
    assert f"{tmp_path / 'no'}: no such folder" in refused(import_midog, tmp_path / "no", annotations, out=out)
    assert f"{tmp_path / 'no.json'}: cannot" in refused(import_midog, images, tmp_path / "no.json", out=out)
