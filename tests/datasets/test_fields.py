"""A dataset reads back as it was written, and whatever is wrong with it is refused in one line that names the file."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from mitoscope.datasets.annotations import read_centres, scan_centres, write_centres
from mitoscope.datasets.fields import (
    Description,
    FieldOfView,
    list_fields,
    read_description,
    scan_fields,
    write_description,
)
from mitoscope.datasets.images import read_image, read_mask
from mitoscope.errors import InputError

ROWS, COLUMNS = 60, 50
SHAPE = (ROWS, COLUMNS)


def tissue() -> np.ndarray:
    """A smooth coloured image, so that JPEG has something to keep and LZW something to compress."""
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def encode(suffix: str, pixels: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(suffix, pixels, settings)[1].tobytes()


def pillow(kind: str, pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind)
    return file.getvalue()


def refusal(function, *arguments) -> str:
    """The one line with which a function refuses its arguments."""
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def field_with_csv(folder: Path, content: str | bytes) -> FieldOfView:
    field = FieldOfView(folder / "01_02.tif", "01", "02")
    field.annotation.write_bytes(content if isinstance(content, bytes) else content.encode())
    return field


# Images

ENCODED = {
    "uncompressed.tif": encode(".tif", tissue(), cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "directory-first.tif": pillow("TIFF", tissue()),  # cutting its end cuts pixels, not the directory
    "lzw.tif": encode(".tif", tissue(), cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "deflate.tiff": encode(".tif", tissue(), cv2.IMWRITE_TIFF_COMPRESSION, 8),
    "plain.png": encode(".png", tissue()),
    "baseline.jpg": encode(".jpg", tissue()),
    "progressive.jpeg": encode(".jpg", tissue(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "plain.bmp": encode(".bmp", tissue()),
}


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg"])
def test_red_stays_red_in_every_format(tmp_path, suffix):
    path = tmp_path / f"01_01{suffix}"
    red_in_opencv = np.full((ROWS, COLUMNS, 3), (10, 20, 200), np.uint8)
    path.write_bytes(encode(suffix, red_in_opencv))
    image = read_image(path)
    assert image.shape == (ROWS, COLUMNS, 3) and image.dtype == np.uint8
    assert np.allclose(image, (200, 20, 10), atol=3)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("cut", [-1, -2, -5, -13, -100, 0.9, 0.5, 0.1, 20, 9, 3])
def test_a_truncated_image_is_refused_wherever_it_ends(tmp_path, name, cut):
    path = tmp_path / name
    content = ENCODED[name]
    path.write_bytes(content)
    assert read_image(path).shape == (ROWS, COLUMNS, 3)
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    message = refusal(read_image, path)
    assert message.startswith(f"{path}: ") and "truncated" in message and "copy it again" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 500, b"%PDF-1.7\n", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "01_01.tif"
    path.write_bytes(content)
    assert str(path) in refusal(read_image, path)


def test_a_missing_image_and_a_folder_in_its_place_are_refused(tmp_path):
    assert "No such file" in refusal(read_image, tmp_path / "01_01.tif")
    (tmp_path / "01_02.tif").mkdir()
    assert "cannot be read" in refusal(read_image, tmp_path / "01_02.tif")


def test_the_end_mark_of_a_thumbnail_is_not_that_of_the_image(tmp_path):
    image, thumbnail = ENCODED["baseline.jpg"], encode(".jpg", tissue()[:8, :8])
    header = b"\xff\xe1" + (2 + len(thumbnail)).to_bytes(2, "big") + thumbnail
    path = tmp_path / "01_01.jpg"
    path.write_bytes(image[:2] + header + image[2:])
    assert np.array_equal(read_image(path), cv2.imdecode(np.frombuffer(image, np.uint8), 1)[..., ::-1])
    path.write_bytes(image[:2] + header + image[2:-50])
    assert "truncated" in refusal(read_image, path)


def test_a_png_with_a_flipped_bit_is_refused(tmp_path):
    content = bytearray(ENCODED["plain.png"])
    content[len(content) // 2] ^= 1
    path = tmp_path / "01_01.png"
    path.write_bytes(content)
    assert "damaged" in refusal(read_image, path)


def test_a_header_of_absurd_size_is_refused(tmp_path):
    content = bytearray(ENCODED["plain.bmp"])
    content[18:26] = (2**30).to_bytes(4, "little") * 2  # width and height
    path = tmp_path / "01_01.bmp"
    path.write_bytes(content)
    assert "not an image that can be read" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (np.zeros((9, 8), np.uint8), "grey image"),
        (np.zeros((9, 8, 3), np.uint16), "16 bits per channel"),
        (np.zeros((9, 8), np.uint16), "16 bits per channel"),
        (np.zeros((9, 8, 4), np.uint8), "4 channels"),
    ],
)
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_only_8_bit_rgb_is_a_field(tmp_path, pixels, complaint, suffix):
    path = tmp_path / f"01_01{suffix}"
    path.write_bytes(encode(suffix, pixels))
    message = refusal(read_image, path)
    assert message.startswith(f"{path}: ") and complaint in message and "8-bit RGB" in message


def test_refusing_images_writes_nothing_to_the_terminal(tmp_path):
    """OpenCV, libpng, libjpeg and libtiff like to complain there by themselves."""
    for name, content in ENCODED.items():
        for part in (2, 3, 7):
            end = len(content) // part
            (tmp_path / f"{part}-cut-{name}").write_bytes(content[:end])
            if not name.endswith(("jpg", "jpeg")):  # JPEG has no checksum: what is damaged inside is just other pixels
                (tmp_path / f"{part}-damaged-{name}").write_bytes(content[:end] + b"\xa5" * 40 + content[end + 40 :])
    script = (
        "import sys; from pathlib import Path; from mitoscope.datasets.images import read_image, InputError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path)\n"
        "    except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) > 3 * len(ENCODED) and all(line.startswith(f"{tmp_path}/") for line in lines)


# Masks


def test_a_mask_is_set_where_anything_is_above_zero(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    wanted = np.zeros(SHAPE, bool)
    wanted[3:9, 4:20] = True
    for pixels in (wanted.astype(np.uint8), wanted * np.uint8(255), np.dstack([wanted * np.uint8(7)] * 3)):
        path.write_bytes(encode(".png", pixels))
        assert np.array_equal(read_mask(path, SHAPE), wanted)
    bilevel = encode(".png", wanted * np.uint8(255), cv2.IMWRITE_PNG_BILEVEL, 1)  # as Janowczyk's are
    path.write_bytes(bilevel)
    assert np.array_equal(read_mask(path, SHAPE), wanted)


def test_the_alpha_channel_of_a_mask_sets_nothing(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    opaque_black = np.zeros((*SHAPE, 4), np.uint8)
    opaque_black[..., 3] = 255
    path.write_bytes(encode(".png", opaque_black))
    assert not read_mask(path, SHAPE).any()


def test_a_mask_of_another_size_is_refused(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    path.write_bytes(encode(".png", np.zeros((COLUMNS, ROWS), np.uint8)))
    message = refusal(read_mask, path, SHAPE)
    assert message.startswith(f"{path}: ") and "60 x 50 px" in message and "50 x 60 px" in message


# Centres


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_row_and_col_whatever_wrote_them(tmp_path, start, end):
    field = field_with_csv(tmp_path, start + end.join(["12,34", "", " 5.5 , 6 ", "0,0", "59,49"]) + end)
    assert read_centres(field, SHAPE).tolist() == [[12, 34], [5.5, 6], [0, 0], [59, 49]]


def test_x_y_order_is_turned_into_row_col(tmp_path):
    field = field_with_csv(tmp_path, "34,55\n1,2\n")
    assert read_centres(field, SHAPE, "x,y").tolist() == [[55, 34], [2, 1]]
    assert "annotation_order" in refusal(read_centres, field_with_csv(tmp_path, "34,55\n"), SHAPE, "row,col")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_csv_means_no_mitosis(tmp_path, content):
    assert read_centres(field_with_csv(tmp_path, content), SHAPE).shape == (0, 2)


def test_no_csv_and_no_discs_mean_no_mitosis(tmp_path):
    assert read_centres(FieldOfView(tmp_path / "01_02.tif", "01", "02"), SHAPE).shape == (0, 2)


@pytest.mark.parametrize(
    "row",
    [
        "nan,5",
        "5,inf",
        "-inf,5",
        ",",
        "5,",
        ",5",
        "5",
        "5,6,7",
        "row,col",
        "5;6",
        "5 6",
        "0x10,5",
        "5,6,",
        "\x1b[31m,5",
    ],
)
def test_a_row_that_is_not_two_numbers_is_refused(tmp_path, row):
    field = field_with_csv(tmp_path, f"1,2\n\n{row}\n")
    message = refusal(read_centres, field, SHAPE)
    assert message.startswith(f"{field.annotation}: row 3: ")
    assert "is not two numbers; expected `row,col`" in message and message.isprintable()


@pytest.mark.parametrize("row", ["60,5", "5,50", "-1,5", "5,-0.5", "1e300,5"])
def test_a_row_outside_the_image_is_refused(tmp_path, row):
    field = field_with_csv(tmp_path, f"1,2\n{row}\n")
    message = refusal(read_centres, field, SHAPE)
    assert message.startswith(f"{field.annotation}: row 2: ") and "outside the image of 60 rows and 50" in message


def test_the_same_centre_twice_is_refused(tmp_path):
    field = field_with_csv(tmp_path, "1,2\n3,4\n1.0,2.0\n")
    assert f"{field.annotation}: row 3: the same centre as row 1" in refusal(read_centres, field, SHAPE)


@pytest.mark.parametrize("content", [b"\xff\xfe1\x00,\x002\x00", bytes(range(128, 256)), encode(".png", tissue())])
def test_binary_garbage_is_refused(tmp_path, content):
    field = field_with_csv(tmp_path, content)
    assert f"{field.annotation}: is not a text file" in refusal(read_centres, field, SHAPE)


def test_text_garbage_is_refused_in_a_short_line(tmp_path):
    field = field_with_csv(tmp_path, b"\x00" * 200_000)
    assert len(refusal(read_centres, field, SHAPE)) < len(str(field.annotation)) + 400


def test_a_folder_in_place_of_the_csv_is_refused(tmp_path):
    field = FieldOfView(tmp_path / "01_02.tif", "01", "02")
    field.annotation.mkdir()
    assert f"{field.annotation}: cannot be read" in refusal(read_centres, field, SHAPE)


def test_scanning_goes_on_after_a_bad_row(tmp_path):
    field = field_with_csv(tmp_path, "1,2\nx,y\n99,1\n3,4\n1,2\n")
    centres, problems = scan_centres(field, SHAPE)
    assert centres.tolist() == [[1, 2], [3, 4]]
    assert [problem.split(": ")[1] for problem in problems] == ["row 2", "row 3", "row 5"]


def test_discs_are_centres_where_there_is_no_csv(tmp_path):
    field = FieldOfView(tmp_path / "01_02.tif", "01", "02")
    discs = np.zeros(SHAPE, np.uint8)
    for row, col in [(10, 30), (45, 7)]:
        cv2.circle(discs, (col, row), 4, 255, -1)
    field.mask("pc").write_bytes(encode(".png", discs))
    assert read_centres(field, SHAPE).tolist() == [[10, 30], [45, 7]]
    assert "must be equal" in refusal(read_centres, field, (ROWS, COLUMNS + 1))
    field.annotation.write_text("1,2\n")
    assert read_centres(field, SHAPE).tolist() == [[1, 2]]


coordinate = st.floats(0, 1e6, exclude_max=True) | st.integers(0, 10**6 - 1).map(float)


@settings(max_examples=60, deadline=None)
@given(centres=st.lists(st.tuples(coordinate, coordinate), unique=True, max_size=20), swapped=st.booleans())
def test_centres_read_back_equal(tmp_path_factory, centres, swapped):
    field = FieldOfView(tmp_path_factory.getbasetemp() / "77_01.tif", "77", "01")
    written = np.array(centres, float).reshape(-1, 2)
    write_centres(field.annotation, written[:, ::-1] if swapped else written)
    read = read_centres(field, (10**6, 10**6), "x,y" if swapped else "row,col")
    assert np.array_equal(read, written)


# Folders


def test_fields_are_the_images_that_are_no_masks(tmp_path):
    for name in ["10_02.TIF", "01_02.png", "01_01.jpg", "A7_x1.bmp", "02_01.tiff", "02_02.jpeg"]:
        (tmp_path / name).touch()
    for name in ["01_01.csv", "01_01_cmask.png", "01_01_pc.png", "01_01_brmask.png", "dataset.yaml", "readme.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "._01_03.tif").touch()  # macOS leaves these in archives
    fields = list_fields(tmp_path)
    assert [field.name for field in fields] == ["01_01", "01_02", "02_01", "02_02", "10_02", "A7_x1"]
    assert fields[4].image.name == "10_02.TIF" and fields[4].patient == "10" and fields[4].field == "02"
    assert fields[0].annotation == tmp_path / "01_01.csv"
    assert fields[0].mask("cmask") == tmp_path / "01_01_cmask.png"


@pytest.mark.parametrize("name", ["photo.tif", "01.tif", "_01.tif", "01_.tif", "01_02_03.tif", "01 02.tif", "1-2.png"])
def test_a_field_without_a_patient_id_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / name}: no patient id") and "PATIENT_FIELD" in message


def test_a_field_in_two_formats_is_refused(tmp_path):
    (tmp_path / "01_01.png").touch()
    (tmp_path / "01_01.tif").touch()
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / '01_01.tif'}: ") and "01_01.png" in message


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    assert "no such folder" in refusal(list_fields, tmp_path / "data")
    (tmp_path / "01_01.csv").touch()
    assert "holds no field" in refusal(list_fields, tmp_path)


def test_scanning_goes_on_after_a_bad_name(tmp_path):
    for name in ["photo.tif", "01_01.tif", "scan.png"]:
        (tmp_path / name).touch()
    fields, problems = scan_fields(tmp_path)
    assert [field.name for field in fields] == ["01_01"]
    assert [Path(problem.split(": ")[0]).name for problem in problems] == ["photo.tif", "scan.png"]


def test_a_description_reads_back_and_has_defaults(tmp_path):
    assert read_description(tmp_path) == Description(microns_per_pixel=0.25, annotation_order="row,col")
    written = Description(name="mine: a # test", microns_per_pixel=0.5, annotation_order="x,y", synthetic=True)
    write_description(tmp_path, written)
    assert read_description(tmp_path) == written
    (tmp_path / "dataset.yaml").write_text("")
    assert read_description(tmp_path) == Description()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"microns_per_pixel: 0", "microns_per_pixel"),
        (b"microns_per_pixel: tiny", "microns_per_pixel"),
        (b"annotation_order: y,x", "annotation_order"),
        (b"micron_per_pixel: 0.25", "micron_per_pixel"),
        (b"- a list", "the file"),
        (b"name: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, content, complaint):
    path = tmp_path / "dataset.yaml"
    path.write_bytes(content)
    message = refusal(read_description, tmp_path)
    assert message.startswith(f"{path}: ") and complaint in message
