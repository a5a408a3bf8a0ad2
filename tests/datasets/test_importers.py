"""An import brings a whole, valid dataset or leaves everything as it was."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mitoscope.datasets import importers
from mitoscope.datasets.annotations import read_centres
from mitoscope.datasets.fields import FieldOfView, list_fields, read_description
from mitoscope.datasets.importers import Summary, import_janowczyk, import_midog
from mitoscope.errors import InputError

ROWS, COLUMNS = 40, 48


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def tissue(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path) -> Path:
    """Three fields of two patients with three mitoses, in Janowczyk's layout."""
    folder = tmp_path / "mitosis"
    folder.mkdir()
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    mask[5:15, 5:15] = 255
    for seed, name in enumerate(["01_01", "01_02", "02_01"]):
        (folder / f"{name}.tif").write_bytes(encode(".tif", tissue(seed)))
        for kind in ("brmask", "cmask", "pc"):
            (folder / f"{name}_{kind}.png").write_bytes(encode(".png", mask))
    (folder / "01_01.csv").write_text("10,10\n30,40\n")
    (folder / "01_02.csv").write_text("")
    (folder / "02_01.csv").write_text("12,8\n")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    """An output folder in which something lies that no failed import may touch."""
    folder = tmp_path / "work" / "data"
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("keep me")
    return folder


def pack(source: Path, archive: Path) -> Path:
    """Pack a folder under its own name, as people do."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(source.iterdir()):
                file.write(path, f"{source.name}/{path.name}")
    else:
        with tarfile.open(archive, {".tgz": "w:gz", ".tar": "w", ".xz": "w:xz"}[archive.suffix]) as file:
            file.add(source, source.name)
    return archive


def refused(function, *arguments, out: Path) -> str:
    """The one line with which an import ends, having left nothing behind."""
    before = contents(out.parent)
    with pytest.raises(InputError) as caught:
        function(*arguments, out, replace=True)
    message = str(caught.value)
    assert message.isprintable() and ".partial" not in message
    assert contents(out.parent) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return message


# Janowczyk


@pytest.mark.parametrize("form", ["folder", ".tgz", ".tar", ".tar.xz", ".zip"])
def test_a_dataset_comes_in_byte_for_byte(tmp_path, source, form):
    expected = contents(source)
    (source / "readme.txt").write_text("not part of a dataset")
    (source / "._01_01.tif").write_bytes(b"left by macOS")
    given = source if form == "folder" else pack(source, tmp_path / f"archive{form}")
    out = tmp_path / "new" / "data"
    summary = import_janowczyk(given, out)
    assert (summary.fields, summary.patients, summary.mitoses) == (3, 2, 3)
    assert sorted(Path(name).name for name in summary.skipped) == ["._01_01.tif", "readme.txt"]
    brought = contents(out)
    description = yaml.safe_load(brought.pop("dataset.yaml"))
    assert brought == expected
    assert description["name"] == "Janowczyk" and description["microns_per_pixel"] == 0.25
    assert description["annotation_order"] == "row,col" and description["synthetic"] is False
    assert [path.name for path in out.parent.iterdir()] == ["data"]


def test_a_description_that_is_there_is_kept(source, tmp_path):
    (source / "dataset.yaml").write_text("name: mine\nannotation_order: x,y\n")
    (source / "01_01.csv").write_text("47,39\n")  # only as x,y inside the image
    import_janowczyk(source, tmp_path / "data")
    assert read_description(tmp_path / "data").name == "mine"


def test_a_full_folder_is_replaced_only_on_demand(source, out):
    before = contents(out)
    with pytest.raises(InputError, match=r"is not empty.*--replace"):
        import_janowczyk(source, out)
    assert contents(out) == before
    import_janowczyk(source, out, replace=True)
    assert "precious.txt" not in contents(out) and len(list_fields(out)) == 3


@pytest.mark.parametrize("form", ["folder", ".tgz", ".zip"])
def test_progress_ends_when_all_is_done(tmp_path, source, form):
    given = source if form == "folder" else pack(source, tmp_path / f"archive{form}")
    said: list[tuple[str, int, int]] = []
    import_janowczyk(given, tmp_path / "data", on_progress=lambda *step: said.append(step))
    assert said[-1] == ("checking", 3, 3)
    assert all(0 <= done <= total for _, done, total in said)
    assert len(said) == 3 + len(contents(source)) + (form == ".tgz")  # in a tar the folder is a member too


BAD_FILES = {
    "an image that is none": ("02_01.tif", b"hello", "not an image"),
    "an empty image": ("02_01.tif", b"", "not an image"),
    "a truncated image": ("02_01.tif", encode(".tif", tissue(2))[:-500], "truncated"),
    "a 16-bit image": ("02_01.tif", encode(".tif", tissue(2).astype(np.uint16)), "16 bits"),
    "a grey image": ("02_01.tif", encode(".tif", tissue(2)[..., 0]), "grey"),
    "an RGBA image": ("02_01.tif", encode(".tif", np.dstack([tissue(2), tissue(3)[..., :1]])), "4 channels"),
    "a field without a patient": ("photo.tif", encode(".tif", tissue(2)), "no patient id"),
    "a field in two formats": ("02_01.tiff", encode(".tif", tissue(2)), "again"),
    "a mask of another size": ("02_01_cmask.png", encode(".png", tissue(2)[:9]), "must be equal"),
    "a mask that is none": ("02_01_brmask.png", b"hello", "not an image"),
    "a row outside": ("02_01.csv", b"1,2\n40,2\n", "row 2: row 40, col 2 lies outside"),
    "a row of letters": ("02_01.csv", b"row,col\n1,2\n", "row 1: 'row,col' is not two numbers"),
    "a row of nothing": ("02_01.csv", b"1,2\nnan,inf\n", "row 2: 'nan,inf' is not two numbers"),
    "the same centre twice": ("02_01.csv", b"1,2\n3,4\n1,2\n", "row 3: the same centre as row 1"),
    "a csv of bytes": ("02_01.csv", bytes(range(128, 256)), "not a text file"),
    "a wrong description": ("dataset.yaml", b"annotation_order: y,x", "annotation_order"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_where_it_came_from(tmp_path, source, out, case, packed):
    name, content, complaint = BAD_FILES[case]
    (source / name).write_bytes(content)
    given = pack(source, tmp_path / "archive.tgz") if packed else source
    message = refused(import_janowczyk, given, out=out)
    assert message.startswith(f"{given / name}: ") and complaint in message


def test_the_number_of_further_problems_is_told(source, out):
    (source / "01_01.tif").write_bytes(b"")
    (source / "02_01.csv").write_text("a,b\n99,99\n")
    message = refused(import_janowczyk, source, out=out)
    assert message.startswith(f"{source / '01_01.tif'}: ") and "(and 2 more problems; nothing was imported)" in message


def test_a_source_that_is_missing_or_holds_no_field_is_refused(tmp_path, out):
    assert "no such file or folder" in refused(import_janowczyk, tmp_path / "mitosis.tgz", out=out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(import_janowczyk, empty, out=out).startswith(f"{empty}: holds no field")
    assert "holds no field" in refused(import_janowczyk, pack(empty, tmp_path / "empty.tgz"), out=out)


# Archives that are broken


@pytest.mark.parametrize("form", [".tgz", ".tar.xz", ".zip"])
@pytest.mark.parametrize("cut", [-1, -4, -9, -600, 0.5, 100, 1, 0])
def test_a_truncated_archive_is_refused(tmp_path, source, out, form, cut):
    archive = pack(source, tmp_path / f"archive{form}")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    message = refused(import_janowczyk, archive, out=out)
    assert message.startswith(f"{archive}: ") and "truncated" in message and "download it again" in message


@pytest.mark.parametrize("beyond", [0, 100, 512, 700])
def test_a_tar_without_its_end_is_refused_even_between_two_files(tmp_path, source, out, beyond):
    archive = pack(source, tmp_path / "archive.tar")
    with tarfile.open(archive) as file:
        last = file.getmembers()[-1]
    archive.write_bytes(archive.read_bytes()[: last.offset + beyond])
    assert "truncated" in refused(import_janowczyk, archive, out=out)


def test_a_tar_with_a_damaged_header_is_refused(tmp_path, source, out):
    archive = pack(source, tmp_path / "archive.tar")
    with tarfile.open(archive) as file:
        last = file.getmembers()[-1]
    content = bytearray(archive.read_bytes())
    content[last.offset] ^= 1
    archive.write_bytes(content)
    assert "damaged" in refused(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("form", [".tgz", ".tar.xz", ".zip"])
def test_a_flipped_bit_is_noticed(tmp_path, source, out, form):
    """Uncompressed pixels would not show it, the archive's checksums do."""
    archive = pack(source, tmp_path / f"archive{form}")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert "damaged" in refused(import_janowczyk, archive, out=out)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 100, b"\x1f\x8b", b"PK\x05\x06", encode(".png", tissue(0))]
)
def test_what_is_no_archive_is_refused(tmp_path, out, content):
    archive = tmp_path / "mitosis.tgz"
    archive.write_bytes(content)
    assert refused(import_janowczyk, archive, out=out).startswith(f"{archive}: ")


# Archives that mean harm


def tar_with(archive: Path, source: Path, **attributes: object) -> Path:
    """A good archive with one more member, which has these attributes."""
    pack(source, archive)
    with tarfile.open(archive, "a") as file:
        member = tarfile.TarInfo()
        member.size = 5
        for name, value in attributes.items():
            setattr(member, name, value)
        file.addfile(member, io.BytesIO(b"hello"))
    return archive


EVIL_NAMES = ["../evil.tif", "mitosis/../../evil.tif", "..", "a/..", "..\\evil.tif", "C:evil.tif", "new\nline.tif"]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, source, out, name, form):
    archive = tmp_path / f"archive{form}"
    if form == ".tar":
        tar_with(archive, source, name=name)
    else:
        pack(source, archive)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(name, "hello")
    assert "not safe" in refused(import_janowczyk, archive, out=out)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_absolute_names_are_refused(tmp_path, source, out, form):
    archive, evil = tmp_path / f"archive{form}", tmp_path / "evil.tif"
    if form == ".tar":
        tar_with(archive, source, name=str(evil))
    else:
        pack(source, archive)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(str(evil), "hello")
    message = refused(import_janowczyk, archive, out=out)
    assert message.startswith(f"{archive}: ") and str(evil) in message and "not safe" in message
    assert not evil.exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../precious.txt", "mitosis/01_01.tif"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(tmp_path, source, out, kind, target):
    archive = tar_with(tmp_path / "archive.tar", source, name="03_01.tif", type=kind, linkname=target, size=0)
    assert "03_01.tif is a link or a device" in refused(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, source, out, kind):
    archive = tar_with(tmp_path / "archive.tar", source, name="03_01.tif", type=kind, size=0)
    assert "03_01.tif is a link or a device" in refused(import_janowczyk, archive, out=out)


def test_links_in_a_zip_are_refused(tmp_path, source, out):
    archive = pack(source, tmp_path / "archive.zip")
    link = zipfile.ZipInfo("03_01.tif")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    assert "03_01.tif is a link or a device" in refused(import_janowczyk, archive, out=out)


def test_an_encrypted_zip_is_refused(tmp_path, source, out):
    archive = pack(source, tmp_path / "archive.zip")
    content = bytearray(archive.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 8] |= 1  # the flag in the first file's entry of the directory
    archive.write_bytes(content)
    assert "encrypted" in refused(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("form", [".tgz", ".zip"])
def test_too_many_members_are_refused(tmp_path, source, out, form, monkeypatch):
    archive = pack(source, tmp_path / f"archive{form}")
    members = len(contents(source)) + (form == ".tgz")
    monkeypatch.setattr(importers, "MAX_MEMBERS", members)
    import_janowczyk(archive, tmp_path / "data")
    monkeypatch.setattr(importers, "MAX_MEMBERS", members - 1)
    assert "more than" in refused(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("form", [".tgz", ".zip"])
def test_too_many_bytes_are_refused_before_they_are_written(tmp_path, source, out, form, monkeypatch):
    size = sum(map(len, contents(source).values()))
    archive = pack(source, tmp_path / f"archive{form}")
    monkeypatch.setattr(importers, "MAX_BYTES", size)
    import_janowczyk(archive, tmp_path / "data")
    monkeypatch.setattr(importers, "MAX_BYTES", size - 1)
    assert "unpacks to more than" in refused(import_janowczyk, archive, out=out)


def test_a_tar_that_claims_a_terabyte_is_refused_at_once(tmp_path, source, out):
    archive = tar_with(tmp_path / "archive.tar", source, name="notes.txt")
    with tarfile.open(archive) as file:
        offset = file.getmember("notes.txt").offset
    header = tarfile.TarInfo("notes.txt")
    header.size = 2**40
    content = archive.read_bytes()
    archive.write_bytes(content[:offset] + header.tobuf(tarfile.GNU_FORMAT) + content[offset + 512 :])
    assert "unpacks to more than" in refused(import_janowczyk, archive, out=out)


def test_the_same_name_in_two_folders_is_refused(tmp_path, source, out):
    archive = tar_with(tmp_path / "archive.tar", source, name="elsewhere/01_01.csv")
    assert "holds 01_01.csv twice" in refused(import_janowczyk, archive, out=out)


# MIDOG


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
        (b"[]", "the file"),
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
        ({"annotations": []}, "annotates no image"),
        ({"annotations": [GOOD_BOX, box(1, 1, 7, 7, image_id=9)]}, "annotations.1: there is no image 9"),
        ({"annotations": [GOOD_BOX, box(36, 30, 30, 36)]}, "annotations.1: [36.0, 30.0, 30.0, 36.0] is no box"),
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
