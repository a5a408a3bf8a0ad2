"""MIDOG's boxes become centres, whichever form they have, and what is not MIDOG's is rejected."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitoscope.datasets.annotations import read_centres, read_lookalikes
from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.datasets.importers import Summary, Target
from mitoscope.datasets.importers.midog import import_midog, read_midog
from mitoscope.datasets.validation import check_dataset
from mitoscope.errors import InputError
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import COLUMNS, ROWS, contents, notes, rejected, tissue

MITOSES = {"001.tiff": [(30.0, 20.0), (10.5, 41.5)], "002.tiff": [(5.0, 7.0)]}
LOOKALIKES = {"002.tiff": [(33.0, 33.0)]}
NOTE = "categories taken as mitoses: mitotic figure (3); look-alikes: hard negative (1)"


def box(row: float, col: float, *, image: int | str = 1, category: int | str = 1, side: float = 50) -> dict[str, Any]:
    """An annotation as MIDOG publishes it: two corners x, y of a box around a centre."""
    half = side / 2
    return {
        "id": 1,
        "image_id": image,
        "category_id": category,
        "bbox": [col - half, row - half, col + half, row + half],
        "labels": [],
    }


def midog_json(**changes: object) -> dict[str, Any]:
    """Two annotated images, and a third of a scanner without labels."""
    annotations = [
        box(row, col, image=int(name[:3]), category=category)
        for category, of_kind in ((1, MITOSES), (2, LOOKALIKES))
        for name, centres in of_kind.items()
        for row, col in centres
    ]
    return {
        "info": {"description": "MIDOG"},
        "licenses": [{"id": 1, "name": "CC0"}],
        "images": [
            {"license": 1, "id": n, "file_name": f"{n:03d}.tiff", "width": COLUMNS, "height": ROWS} for n in (1, 2, 151)
        ],
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


def imported(data: Path, read=read_centres) -> dict[str, list[tuple[float, float]]]:
    """The centres of each field that has some."""
    centres = {f"{field.patient}.tiff": read(field, (ROWS, COLUMNS)).tolist() for field in list_fields(data)}
    return {name: [tuple(centre) for centre in of_field] for name, of_field in centres.items() if of_field}


def test_midog_becomes_one_field_per_patient(midog, tmp_path):
    images, annotations = midog
    said: list[tuple[str, int, int]] = []
    summary = import_midog(images, annotations, Target(tmp_path / "data"), lambda *step: said.append(step))
    assert summary == Summary(2, 2, 3, 1, ("151.tiff", "300.tiff"), summary.notes)
    assert summary.notes[0] == NOTE and summary.notes[1].startswith("nothing gives the pixel size of 2 fields")
    assert imported(tmp_path / "data") == MITOSES and imported(tmp_path / "data", read_lookalikes) == LOOKALIKES
    brought = contents(tmp_path / "data")
    fields = ["001_01.csv", "001_01.tiff", "002_01.csv", "002_01.tiff", "002_01_nonmitotic.csv"]
    assert sorted(brought) == [*fields, "dataset.yaml"]
    assert brought["002_01.tiff"] == (images / "002.tiff").read_bytes()
    assert not (tmp_path / "data" / "002_01.tiff").is_symlink()
    assert read_description(tmp_path / "data").name == "MIDOG"
    assert b"microns_per_pixel" not in brought["dataset.yaml"]  # the scanners differ, and the file does not say it
    assert ("copying", 2, 2) in said and said[-1] == ("checking", 2, 2)


@pytest.mark.parametrize("side", [6, 50])
def test_boxes_in_cocos_own_form_have_the_same_centres(midog, tmp_path, side):
    images, annotations = midog
    content = midog_json()
    for annotation in content["annotations"]:
        x0, y0, x1, y1 = annotation["bbox"]
        annotation["bbox"] = [(x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side, side]
    annotations.write_text(json.dumps(content))
    import_midog(images, annotations, Target(tmp_path / "data"))
    assert imported(tmp_path / "data") == MITOSES


def test_boxes_of_the_published_size_decide_where_both_forms_fit(tmp_path):
    path = tmp_path / "MIDOG.json"
    image = {"id": 1, "file_name": "001.tiff", "width": 1000, "height": 1000}
    for bbox, centre in (([10, 20, 50, 50], [45, 35]), ([10, 20, 60, 70], [45, 35])):
        path.write_text(json.dumps(midog_json(images=[image], annotations=[box(0, 0) | {"bbox": bbox}])))
        assert read_midog(path).by_image["001.tiff"].mitoses.tolist() == [centre]


@pytest.mark.parametrize("form", ["corners", "COCO"])
def test_one_stray_box_neither_changes_the_form_nor_rejects_the_file(tmp_path, form):
    def in_form(x0: float, y0: float, x1: float, y1: float) -> list[float]:
        return [x0, y0, x1, y1] if form == "corners" else [x0, y0, x1 - x0, y1 - y0]

    path = tmp_path / "MIDOG.json"
    image = {"id": 1, "file_name": "001.tiff", "width": 1000, "height": 1000}
    good = [(100.0, 80.0), (200.0, 300.0), (500.0, 900.0)]
    for stray in ([2000.0, 2000.0, 2050.0, 2050.0], [0.0, 0.0, 0.0, 0.0], [9e9, -9e9, 9e9, 1.0]):
        annotations = [box(row, col) | {"bbox": in_form(*box(row, col)["bbox"])} for row, col in good]
        annotations.append(box(0, 0) | {"bbox": in_form(*stray)})
        path.write_text(json.dumps(midog_json(images=[image], annotations=annotations)))
        centres = [tuple(centre) for centre in read_midog(path).by_image["001.tiff"].mitoses.tolist()]
        assert centres[:3] == good


@pytest.mark.parametrize("category", [1, 2])
@pytest.mark.parametrize(
    ("centre", "moved_to"),
    [
        ((ROWS + 1.0, 20.0), (ROWS - 1.0, 20.0)),
        ((float(ROWS), 20.0), (ROWS - 1.0, 20.0)),
        ((20.0, -2.0), (20.0, 0.0)),
        ((20.0, COLUMNS + 500.0), None),
    ],
)
def test_a_centre_outside_its_image_is_moved_or_left_out_and_counted(midog, tmp_path, centre, moved_to, category):
    images, annotations = midog
    content = midog_json()
    content["annotations"].append(box(*centre, category=category))
    annotations.write_text(json.dumps(content))
    summary = import_midog(images, annotations, Target(tmp_path / "data"))
    moved, left = ([moved_to], "1 moved to its edge, 0") if moved_to else ([], "0 moved to its edge, 1")
    before, read = (MITOSES, read_centres) if category == 1 else (LOOKALIKES, read_lookalikes)
    assert imported(tmp_path / "data", read).get("001.tiff", []) == before.get("001.tiff", []) + moved
    assert notes(summary)[1:] == (f"centres outside their image: {left} more than 6.25 um away left out",)


@pytest.mark.parametrize("name", ["Mitotic Figures", "Mitosis", "Mitose", "MF"])
def test_other_names_of_mitoses(midog, tmp_path, name):
    images, annotations = midog
    categories = [{"id": 2, "name": "not mitotic figure"}, {"id": 1, "name": name}]
    annotations.write_text(json.dumps(midog_json(categories=categories)))
    summary = import_midog(images, annotations, Target(tmp_path / "data"))
    assert imported(tmp_path / "data") == MITOSES
    assert notes(summary) == (f"categories taken as mitoses: {name} (3); look-alikes: not mitotic figure (1)",)


@pytest.mark.parametrize(
    "name", ["mitotic figure lookalike", "mitotic-like figure", "non-mitotic figure", "hard negative imposter"]
)
def test_look_alikes_are_never_mitoses(midog, tmp_path, name):
    images, annotations = midog
    categories = [{"id": 1, "name": name}, {"id": 2, "name": "mitotic figure"}]
    annotations.write_text(json.dumps(midog_json(categories=categories)))
    import_midog(images, annotations, Target(tmp_path / "data"))
    assert imported(tmp_path / "data") == LOOKALIKES and imported(tmp_path / "data", read_lookalikes) == MITOSES


def test_other_categories_are_left_out_and_listed(midog, tmp_path):
    images, annotations = midog
    content = midog_json()
    content["categories"].append({"id": 3, "name": "apoptosis"})
    content["annotations"] += [box(9, 9, category=3), box(9, 9, category=77), box(9, 9, image=151, category=3)]
    annotations.write_text(json.dumps(content))
    summary = import_midog(images, annotations, Target(tmp_path / "data"))
    assert notes(summary) == (f"{NOTE}; left out: apoptosis (2), 77 (1)",)
    assert imported(tmp_path / "data") == MITOSES and "151.tiff" in summary.skipped


@pytest.mark.parametrize("ids", ["text", "large", "mixed", "of pandas"])
def test_ids_come_from_anywhere(midog, tmp_path, ids):
    images, annotations = midog
    content = midog_json()
    for image in content["images"]:
        number = image["id"]
        image["id"] = {"text": f"uuid-{number}", "large": number + 10**12, "mixed": str(number)}.get(ids, number)
    for annotation in content["annotations"]:
        number = annotation["image_id"]
        annotation["image_id"] = {"text": f"uuid-{number}", "large": number + 10**12}.get(ids, number)
        if ids == "of pandas":
            annotation |= {"image_id": float(number), "category_id": float(annotation["category_id"])}
    annotations.write_text(json.dumps(content))
    import_midog(images, annotations, Target(tmp_path / "data"))
    assert imported(tmp_path / "data") == MITOSES


def test_annotations_of_an_image_that_is_not_listed_are_counted(midog, tmp_path):
    images, annotations = midog
    content = midog_json()
    content["annotations"] += [box(9, 9, image=9), box(9, 9, image=9)]
    annotations.write_text(json.dumps(content))
    summary = import_midog(images, annotations, Target(tmp_path / "data"))
    assert summary.mitoses == 3
    assert "annotations of images that the file does not list: 2 left out, such as of image 9" in notes(summary)


@pytest.mark.parametrize("size", [{}, {"width": 0, "height": 0}])
def test_sizes_of_the_images_may_be_missing(midog, tmp_path, size):
    images, annotations = midog
    content = midog_json(images=[{"id": n, "file_name": f"{n:03d}.tiff"} | size for n in (1, 2)])
    annotations.write_text(json.dumps(content))
    import_midog(images, annotations, Target(tmp_path / "data"))
    assert imported(tmp_path / "data") == MITOSES


def test_an_image_with_look_alikes_only_has_no_mitosis(midog, tmp_path):
    images, annotations = midog
    annotations.write_text(json.dumps(midog_json(annotations=[box(9, 9, image=151, category=2)])))
    assert import_midog(images, annotations, Target(tmp_path / "data")).mitoses == 0
    assert (tmp_path / "data" / "151_01.csv").read_text() == ""


def test_a_centre_given_twice_is_one_and_a_mitosis_is_no_look_alike(midog, tmp_path):
    images, annotations = midog
    content = midog_json()
    content["annotations"] += [box(30, 20), box(30.5, 20.5, category=2)]
    annotations.write_text(json.dumps(content))
    summary = import_midog(images, annotations, Target(tmp_path / "data"))
    assert (summary.mitoses, summary.lookalikes) == (3, 1)
    assert notes(summary)[1:] == (
        "centres given again: 1 left out",
        "look-alikes at the place of a mitosis: 1 left out",
    )


def test_only_images_without_annotation_may_be_absent(midog, tmp_path, out):
    images, annotations = midog
    (images / "151.tiff").unlink()
    assert import_midog(images, annotations, Target(tmp_path / "data")).skipped == ("300.tiff",)
    (images / "002.tiff").unlink()
    message = rejected(import_midog, images, annotations, out=out)
    assert message.startswith(f"{images / '002.tiff'}: no such image")


def test_images_in_folders_are_found_by_path_and_then_by_name(midog, tmp_path):
    images, annotations = midog
    content = midog_json()
    content["images"][0]["file_name"] = "canine/001.tiff"  # lies in that folder
    content["images"][1]["file_name"] = "somewhere\\002.tiff"  # does not
    (images / "canine").mkdir()
    (images / "001.tiff").rename(images / "canine" / "001.tiff")
    annotations.write_text(json.dumps(content))
    import_midog(images, annotations, Target(tmp_path / "data", patient_per_image=True))
    assert [field.name for field in list_fields(tmp_path / "data")] == ["002_01", "canine-001_01"]


class TestSeveralImagesOfOneCase:
    """Each image as a patient of its own would put one case into training and test."""

    NAMES = ("case1roi1.tiff", "case1roi2.tiff", "case2roi1.tiff")

    @pytest.fixture
    def cases(self, midog) -> tuple[Path, Path]:
        images, annotations = midog
        for number, name in zip((1, 2, 151), self.NAMES, strict=True):
            (images / f"{number:03d}.tiff").rename(images / name)
        self.rename(annotations, self.NAMES)
        return images, annotations

    def rename(self, annotations: Path, names: tuple[str, ...]) -> None:
        content = midog_json()
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
        annotations.write_text(json.dumps(content))

    def test_the_user_is_asked_whose_they_are(self, cases, out):
        images, annotations = cases
        message = rejected(import_midog, images, annotations, out=out)
        assert message.startswith(f"{images / 'case1roi1.tiff'}: whose field is this?") and "1 more image" in message
        assert f"`mitoscope fields {images}`" in message and "--patient-per-image" in message and "--fields" in message

    def test_a_table_says_it(self, cases, tmp_path):
        images, annotations = cases
        rows = "".join(f"{name},{name[:5]},{name[5:9]},0.23,Aperio\n" for name in self.NAMES)
        (images / "fields.csv").write_text(f"file,patient,field,microns_per_pixel,domain\n{rows}")
        summary = import_midog(images, annotations, Target(tmp_path / "data"))
        assert (summary.fields, summary.patients) == (2, 1)
        fields = list_fields(tmp_path / "data")
        assert [(field.name, field.microns_per_pixel, field.domain) for field in fields] == [
            ("case1_roi1", 0.23, "Aperio"),
            ("case1_roi2", 0.23, "Aperio"),
        ]

    def test_a_table_that_leaves_the_patient_empty_says_nothing(self, cases, out):
        images, annotations = cases
        (images / "fields.csv").write_text("file,patient,field\ncase1roi1.tiff,,01\ncase1roi2.tiff,,02\n")
        assert "whose field is this?" in rejected(import_midog, images, annotations, out=out)

    def test_the_user_says_that_all_are_different_patients(self, cases, tmp_path):
        images, annotations = cases
        summary = import_midog(images, annotations, Target(tmp_path / "data", patient_per_image=True))
        assert (summary.fields, summary.patients) == (2, 2)
        assert [field.name for field in list_fields(tmp_path / "data")] == ["case1roi1_01", "case1roi2_01"]

    def test_names_with_patient_and_field_say_it(self, cases, tmp_path):
        images, annotations = cases
        names = tuple(name.replace("roi", "_roi") for name in self.NAMES)
        for old, new in zip(self.NAMES, names, strict=True):
            (images / old).rename(images / new)
        self.rename(annotations, names)
        assert import_midog(images, annotations, Target(tmp_path / "data")).patients == 1

    @pytest.mark.parametrize("in_folders", [True, False])
    def test_numbers_in_a_folder_per_case_are_no_patients(self, cases, out, in_folders):
        images, annotations = cases
        names = ("case1/1.tiff", "case1/2.tiff", "case2/3.tiff")
        for old, new in zip(self.NAMES, names, strict=True):
            (images / new).parent.mkdir(exist_ok=True)
            (images / old).rename(images / (new if in_folders else Path(new).name))
        self.rename(annotations, names)
        if not in_folders:
            content = json.loads(annotations.read_text())
            content["annotations"].append(box(9, 9, image=151))
            annotations.write_text(json.dumps(content))
        assert "whose field is this?" in rejected(import_midog, images, annotations, out=out)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"hello", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"\xff\xfe\x00", "Invalid JSON"),
        (b"[]", "must be a block of entries"),
        (b"[" * 100_000, "Invalid JSON"),
        (json.dumps(midog_json())[:-30].encode(), "Invalid JSON"),
        (json.dumps({"images": [], "annotations": []}).encode(), "categories"),
        (b'{"type": "FeatureCollection", "features": []}', "`mitoscope import qupath`"),
        (b'[{"type": "Feature"}]', "`mitoscope import qupath`"),
        (b'<?xml version="1.0"?><Annotations/>', "`mitoscope import imagescope`"),
        (b"SQLite format 3\x00", "`mitoscope import sliderunner`"),
        (b"\x1f\x8b\x08", "is compressed"),
    ],
)
def test_what_is_not_midogs_json_is_rejected(midog, out, content, complaint):
    images, annotations = midog
    annotations.write_bytes(content)
    message = rejected(import_midog, images, annotations, out=out)
    assert message.startswith(f"{annotations}: ") and complaint in message


def image(**changes: object) -> dict[str, object]:
    return {"id": 1, "file_name": "001.tiff", "width": COLUMNS, "height": ROWS} | changes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"categories": [{"id": 1, "name": "tumor"}, {"id": 2, "name": "hard negative"}]}, "tumor, hard negative"),
        ({"categories": [{"id": 1, "name": "mitosis"}, {"id": 1, "name": "mast cell"}]}, "have the same id 1"),
        ({"annotations": []}, "has no box"),
        ({"annotations": [box(9, 9) | {"bbox": [0.1, 0.1, 0.2, 0.2]}]}, "1 of 1 boxes are not in their images"),
        ({"annotations": [box(9, 9) | {"bbox": [9, 9, 9]}]}, "annotations.0.bbox"),
        ({"images": [image(), image(file_name="002.tiff")]}, "have the same id 1"),
        ({"images": [image(id=None)]}, "images.0.id"),
        ({"images": [image(height=10**400)]}, "images.0.height"),
        ({"images": [image(id=1.5)]}, "images.0.id"),
    ],
)
def test_wrong_entries_of_midogs_json_are_rejected(midog, out, changes, complaint):
    images, annotations = midog
    annotations.write_text(json.dumps(midog_json() | changes))
    message = rejected(import_midog, images, annotations, out=out)
    assert message.startswith(f"{annotations}: ") and complaint in message


def test_an_image_of_two_patients_is_named_where_it_came_from(midog, tmp_path):
    images, annotations = midog
    shutil.copy(images / "001.tiff", images / "002.tiff")
    (note,) = [
        note for note in import_midog(images, annotations, Target(tmp_path / "data")).notes if "pixels of" in note
    ]
    assert note.startswith(f"{images / '002.tiff'}: has the pixels of 001_01.tiff, which is of another patient, so")


def test_one_image_under_two_names_is_rejected(midog, out):
    images, annotations = midog
    content = midog_json(images=[image(), image(id=2, file_name="part2/001.tiff")])
    annotations.write_text(json.dumps(content))
    assert "is annotated as 001.tiff and as part2/001.tiff" in rejected(import_midog, images, annotations, out=out)


def test_a_name_in_the_json_cannot_lead_out_of_the_images(midog, out):
    images, annotations = midog
    shutil.move(images / "001.tiff", images.parent / "secret.tiff")
    annotations.write_text(json.dumps(midog_json(images=[image(file_name="../secret.tiff")])))
    assert "secret.tiff: no such image" in rejected(import_midog, images, annotations, out=out)


def test_a_bad_image_is_named_where_it_came_from(midog, out):
    images, annotations = midog
    path = images / "002.tiff"
    path.write_bytes(path.read_bytes()[:-500])
    message = rejected(import_midog, images, annotations, out=out)
    assert message.startswith(f"{path}: ") and "truncated" in message


def test_an_image_of_another_size_than_the_json_says_is_rejected(midog, out):
    images, annotations = midog
    (images / "001.tiff").write_bytes(encode(".tif", tissue(1)[:25]))
    message = rejected(import_midog, images, annotations, out=out)
    assert message.startswith(f"{images / '001.tiff'}: is 48 x 25 px, but the annotations are for 48 x 40 px")


def test_missing_midog_files_are_rejected(midog, tmp_path, out):
    images, annotations = midog
    assert f"{tmp_path / 'no'}: no such folder" in rejected(import_midog, tmp_path / "no", annotations, out=out)
    assert f"{tmp_path / 'no.json'}: cannot" in rejected(import_midog, images, tmp_path / "no.json", out=out)


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["001.tiff", "../001.tiff", "a\x00b.tiff", "mitotic figure", [], {}, [1, 2, 3, 4], 10**400]),
)


@pytest.mark.slow  # many examples
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_odd_json_gives_a_clear_line_or_a_valid_dataset(midog, out, data):
    images, annotations = midog
    content = copy.deepcopy(midog_json())
    for _ in range(data.draw(st.integers(1, 3))):
        part: Any = content
        while True:
            keys = sorted(part) if isinstance(part, dict) else range(len(part))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(part[key], (dict, list)) and part[key] and data.draw(st.booleans()):
                part = part[key]
            elif isinstance(part, dict) and data.draw(st.booleans()):
                del part[key]
                break
            else:
                part[key] = data.draw(odd_values)
                break
    annotations.write_text(json.dumps(content))
    before = contents(out)
    target = out.with_name("imported")
    try:
        summary = import_midog(images, annotations, Target(target, replace=True))
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
        shutil.rmtree(target, ignore_errors=True)
    else:
        report = check_dataset(target)
        assert not report.problems
        assert (report.mitoses, report.lookalikes) == (summary.mitoses, summary.lookalikes)
    assert contents(out) == before and not list(out.parent.glob(".*"))
