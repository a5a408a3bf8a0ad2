"""Images and annotations become a dataset, or are added to one, and a failure leaves everything as it was."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mitoscope.datasets.annotations import read_centres, read_lookalikes
from mitoscope.datasets.fields import Description, list_fields, read_description
from mitoscope.datasets.importers import Annotations, Found, Summary, Target
from mitoscope.datasets.importers.assemble import assemble
from mitoscope.datasets.validation import check_dataset
from mitoscope.errors import InputError
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import COLUMNS, ROWS, contents, notes, rejected, tissue

Points = list[tuple[float, float]]


def centres(points: Points) -> np.ndarray:
    return np.array(points, dtype=float).reshape(-1, 2)


def found(**by_image: Points | tuple[Points, Points]) -> Found:
    """Mitoses, or mitoses and look-alikes, by the stems of the images."""
    pairs = {name: of_image if isinstance(of_image, tuple) else (of_image, []) for name, of_image in by_image.items()}
    return Found({name: Annotations(centres(first), centres(second)) for name, (first, second) in pairs.items()})


def import_found(images: Path, annotations: Found, target: Target) -> Summary:
    return assemble(images, annotations, target, Description(name="mine"))


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(["01_01", "01_02", "02_01"]):
        (folder / f"{name}.png").write_bytes(encode(".png", tissue(seed)))
    return folder


@pytest.fixture
def data(tmp_path, images) -> Path:
    """A dataset of the fields 01_01 and 01_02, with mitoses and look-alikes."""
    folder = tmp_path / "work" / "data"
    import_found(images, found(**{"01_01": ([(3, 4)], [(20, 20)]), "01_02": [(5, 6)]}), Target(folder))
    return folder


def mitoses(data: Path) -> dict[str, list[list[float]]]:
    order = read_description(data).annotation_order
    return {field.name: read_centres(field, (ROWS, COLUMNS), order).tolist() for field in list_fields(data)}


def lookalikes(data: Path) -> dict[str, list[list[float]]]:
    order = read_description(data).annotation_order
    return {field.name: read_lookalikes(field, (ROWS, COLUMNS), order).tolist() for field in list_fields(data)}


class TestNewDataset:
    def test_annotated_images_come_in_and_the_others_are_named(self, images, tmp_path):
        (images / "01_02_cmask.png").write_bytes(encode(".png", tissue(0)[..., 0]))
        summary = import_found(images, found(**{"01_02": [(5, 6)]}), Target(tmp_path / "data", microns_per_pixel=0.5))
        assert summary == Summary(1, 1, 1, 0, ("01_01.png", "02_01.png"), ())
        assert sorted(contents(tmp_path / "data")) == ["01_02.csv", "01_02.png", "01_02_cmask.png", "dataset.yaml"]
        description = read_description(tmp_path / "data")
        assert (description.name, description.microns_per_pixel) == ("mine", 0.5)

    def test_names_of_any_kind_are_mapped_by_a_table(self, images, tmp_path):
        (images / "03").mkdir()
        (images / "01_01.png").rename(images / "03" / "Präparat 7.png")
        (tmp_path / "mine.csv").write_text("file,patient,domain\n03/Präparat 7.png,03,Leica\n")
        import_found(images, found(**{"Präparat 7": [(1, 2)]}), Target(tmp_path / "data", fields=tmp_path / "mine.csv"))
        (field,) = list_fields(tmp_path / "data")
        assert (field.name, field.domain, field.image.name) == ("03_Praparat-7", "Leica", "03_Praparat-7.png")

    @pytest.mark.parametrize(
        ("table", "complaint"),
        [
            ("file,patient,field\n01_01.png,05,1\n01_02.png,05,1\n", "would be the field 05_1"),
            ("file,patient,field\n01_01.png,05,cmask\n", "the name of masks"),
            ("file,patient,microns_per_pixel\n01_01.png,05,250\n", "row 2: microns_per_pixel"),
        ],
    )
    def test_a_table_that_cannot_be_is_rejected(self, images, out, table, complaint):
        (images / "fields.csv").write_text(table)
        assert complaint in rejected(import_found, images, found(**{"01_01": [], "01_02": []}), out=out)

    @pytest.mark.parametrize("names", [["漢.png"], ["ü.png", "u.png"], ["a b.png", "a-b.png"]])
    def test_names_that_make_no_distinct_patients_are_rejected(self, tmp_path, out, names):
        for seed, name in enumerate(names):
            (tmp_path / name).write_bytes(encode(".png", tissue(seed)))
        annotations = found(**{Path(name).stem: [] for name in names})
        with pytest.raises(InputError, match=r"whose field is this|would be the field (u|a-b)_01"):
            import_found(tmp_path, annotations, Target(tmp_path / "new", patient_per_image=True))

    @pytest.mark.parametrize("told", ["fields.csv", "--fields"])
    @pytest.mark.parametrize("row", ["01_01.tiff,07", "01_01,07", "a/01_01.png,07"])
    def test_a_row_of_the_table_that_names_no_image_is_rejected(self, images, tmp_path, told, row):
        """Its image would be imported under the patient in its name, who may be another one."""
        table = images / "fields.csv" if told == "fields.csv" else tmp_path / "mine.csv"
        table.write_text(f"file,patient\n01_02.png,01\n{row}\n")
        target = Target(tmp_path / "new", fields=None if told == "fields.csv" else table)
        with pytest.raises(InputError) as caught:
            import_found(images, found(**{"01_01": [(1, 2)], "01_02": []}), target)
        assert str(caught.value).startswith(f"{table}: names {row.split(',')[0]}, but {images} has no such image; ")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("forms", [("NFC", "NFD", "NFC"), ("NFD", "NFC", "NFC"), ("NFC", "NFC", "NFD")])
    def test_composed_and_decomposed_umlauts_are_the_same(self, images, tmp_path, forms):
        on_disk, in_table, annotated = (unicodedata.normalize(form, "Präparat 7") for form in forms)
        (images / "01_01.png").rename(images / f"{on_disk}.png")
        (tmp_path / "mine.csv").write_text(f"file,patient,field\n{in_table}.png,03,01\n")
        target = Target(tmp_path / "data", fields=tmp_path / "mine.csv")
        import_found(images, found(**{annotated: [(1, 2)]}), target)
        assert mitoses(tmp_path / "data") == {"03_01": [[1, 2]]}

    @pytest.mark.parametrize(
        "names", [("a/1.png", "b/1.png"), ("a/1", "b/1"), ("A_1", "B_1"), ("/scans/a/1.png", "scans\\b\\1.png")]
    )
    def test_equal_names_in_folders_are_told_apart_by_path_or_as_patient_and_field(self, tmp_path, names):
        for seed, folder in enumerate(("a", "b")):
            (tmp_path / "images" / folder).mkdir(parents=True)
            (tmp_path / "images" / folder / "1.png").write_bytes(encode(".png", tissue(seed)))
        (tmp_path / "images" / "fields.csv").write_text("file,patient\na/1.png,A\nb/1.png,B\n")
        annotations = found(**{names[0]: [(1, 2)], names[1]: [(3, 4)]})
        import_found(tmp_path / "images", annotations, Target(tmp_path / "data"))
        assert mitoses(tmp_path / "data") == {"A_1": [[1, 2]], "B_1": [[3, 4]]}

    @pytest.mark.parametrize("name", ["b/1", "b/1.png", "scans/b/1", "b\\1"])
    def test_the_image_of_another_folder_is_not_taken_for_one_that_is_missing(self, tmp_path, out, name):
        """a/1.png may be another patient's."""
        (tmp_path / "images" / "a").mkdir(parents=True)
        (tmp_path / "images" / "a" / "1.png").write_bytes(encode(".png", tissue(1)))
        (tmp_path / "images" / "fields.csv").write_text("file,patient\na/1.png,A\n")
        message = rejected(import_found, tmp_path / "images", found(**{name: [(1, 2)]}), out=out)
        assert "no such image, but it is annotated; get the images again, each in the folder that its" in message

    @pytest.mark.parametrize(
        ("name", "file"), [("b/1", "1.png"), ("scans/a/1", "a/1.png"), ("b/A_1", "a/1.png"), ("1", "a/1.png")]
    )
    def test_folders_around_those_of_the_image_do_not_matter(self, tmp_path, name, file):
        image = tmp_path / "images" / file
        image.parent.mkdir(parents=True)
        image.write_bytes(encode(".png", tissue(1)))
        (tmp_path / "images" / "fields.csv").write_text(f"file,patient\n{file},A\n")
        import_found(tmp_path / "images", found(**{name: [(1, 2)]}), Target(tmp_path / "data"))
        assert mitoses(tmp_path / "data") == {"A_1": [[1, 2]]}

    def test_a_field_has_the_name_that_it_would_have_in_a_dataset(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a b_01.png").write_bytes(encode(".png", tissue(1)))
        (tmp_path / "images" / "fields.csv").write_text("file,patient\na b_01.png,07\n")
        import_found(tmp_path / "images", found(**{"a b_01": [(1, 2)]}), Target(tmp_path / "data"))
        names = [[field.name for field in list_fields(tmp_path / folder)] for folder in ("images", "data")]
        assert names == [["07_a-b-01"], ["07_a-b-01"]]

    def test_a_name_that_two_images_have_is_rejected(self, images, out):
        for folder in ("a", "b"):
            (images / folder).mkdir()
            (images / folder / "05_01.png").write_bytes(encode(".png", tissue(9)))
        message = rejected(import_found, images, found(**{"05_01.png": []}), out=out)
        assert "there are a/05_01.png and b/05_01.png" in message

    def test_missing_images_are_named(self, images, out):
        message = rejected(import_found, images, found(**{"01_01": [], "09_01": [], "09_02.tif": []}), out=out)
        assert message.startswith(f"{images / '09_01'}: no such image, but it is annotated (and 1 more)")

    def test_no_annotation_at_all_is_rejected(self, images, out):
        assert "no image has an annotation" in rejected(import_found, images, found(), out=out)

    def test_the_images_are_not_deleted_with_the_output_folder(self, images):
        before = contents(images)
        for out in (images, images.parent):
            with pytest.raises(InputError, match="lies in the output folder"):
                import_found(images, found(**{"01_01": []}), Target(out, replace=True))
        assert contents(images) == before

    def test_a_link_is_followed(self, images, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "data").symlink_to(tmp_path / "disk")
        import_found(images, found(**{"01_01": []}), Target(tmp_path / "data"))
        assert (tmp_path / "data").is_symlink() and "01_01.png" in contents(tmp_path / "disk")


@pytest.mark.parametrize("mine", [True, False])
def test_what_the_images_folder_says_of_its_data_is_taken_over(images, tmp_path, mine):
    own = "name: drawn\nsynthetic: true\nmicrons_per_pixel: 0.5\nannotation_order: x,y\n"
    (images / "dataset.yaml").write_text(own if mine else "train: images\n")  # the other one is YOLO's
    import_found(images, found(**{"01_01": [(1, 2)]}), Target(tmp_path / "data"))
    description = read_description(tmp_path / "data")
    assert description.synthetic is mine and description.microns_per_pixel == (0.5 if mine else 0.25)
    assert (tmp_path / "data/01_01.csv").read_text() == "1.0,2.0\n" and description.annotation_order == "row,col"


class TestAdd:
    def test_new_fields_are_added_and_the_others_stay(self, data, images):
        before = contents(data)
        summary = import_found(images, found(**{"02_01": [(7, 8)]}), Target(data, add=True))
        assert (summary.fields, summary.patients, summary.mitoses, summary.lookalikes) == (3, 2, 3, 1)
        assert before.items() <= contents(data).items()
        assert mitoses(data) == {"01_01": [[3, 4]], "01_02": [[5, 6]], "02_01": [[7, 8]]}

    @pytest.mark.parametrize("source", ["images", "data"])
    def test_annotations_of_fields_that_are_there_are_replaced(self, data, images, source):
        annotations = found(**{"01_01": ([(9, 9)], [(30, 30)]), "01_02": []})
        folder = images if source == "images" else data
        summary = import_found(folder, annotations, Target(data, add=True))
        assert mitoses(data) == {"01_01": [[9, 9]], "01_02": []}
        assert lookalikes(data) == {"01_01": [[30, 30]], "01_02": []}
        assert (summary.fields, summary.mitoses, summary.lookalikes) == (2, 1, 1)
        assert summary.skipped == (("02_01.png",) if source == "images" else ())

    def test_look_alikes_are_kept_where_the_new_annotations_have_none(self, data, images):
        """What `detect` writes has none, so a corrected file of it cannot say that there are none."""
        summary = import_found(images, found(**{"01_01": [(3, 46)]}), Target(data, add=True))
        assert lookalikes(data)["01_01"] == [[20, 20]]
        assert notes(summary) == (
            f"replaced in {data}: 01_01: 1 -> 1 mitoses (other positions)",
            "earlier look-alikes: 1 kept, 0 replaced by a new mitosis or look-alike within 6.25 um",
        )

    def test_a_new_look_alike_joins_those_elsewhere_and_replaces_the_one_at_its_place(self, data, images):
        summary = import_found(images, found(**{"01_01": ([(3, 46)], [(22, 46)])}), Target(data, add=True))
        assert lookalikes(data)["01_01"] == [[20, 20], [22, 46]] and summary.lookalikes == 2
        summary = import_found(images, found(**{"01_01": ([], [(21, 47)])}), Target(data, add=True))
        assert lookalikes(data)["01_01"] == [[20, 20], [21, 47]] and summary.lookalikes == 2
        assert "earlier look-alikes: 1 kept, 1 replaced by" in notes(summary)[1]

    def test_what_was_replaced_is_said_field_by_field(self, data, images):
        annotations = found(**{"01_01": ([(9, 9), (1, 1)], []), "01_02": [(5, 6.01)], "02_01": [(7, 8)]})
        summary = import_found(images, annotations, Target(data, add=True))
        assert notes(summary)[:2] == (
            f"replaced in {data}: 01_01: 1 -> 2 mitoses and 1 -> 0 look-alikes",
            f"unchanged in {data}: the annotations of 1 fields",
        )

    def test_a_long_list_of_what_was_replaced_is_cut(self, images, tmp_path):
        names = [f"{number:02}_01" for number in range(3, 10)]
        for seed, name in enumerate(names, start=3):
            (images / f"{name}.png").write_bytes(encode(".png", tissue(seed)))
        for points in ([(1, 1)], []):
            summary = import_found(images, found(**dict.fromkeys(names, points)), Target(tmp_path / "data", add=True))
        assert notes(summary)[0].endswith("; 07_01: 1 -> 0 mitoses; and 2 more fields")

    def test_a_look_alike_that_has_become_a_mitosis_is_not_kept(self, data, images):
        import_found(images, found(**{"01_01": [(22, 19)]}), Target(data, add=True))
        assert lookalikes(data)["01_01"] == [] and not (data / "01_01_nonmitotic.csv").exists()

    def test_fields_with_other_names_are_corrected_where_they_are(self, tmp_path):
        data = tmp_path / "data"
        (data / "05").mkdir(parents=True)
        (data / "05" / "Schnitt 3.png").write_bytes(encode(".png", tissue(1)))
        (data / "05" / "Schnitt 3.csv").write_text("1,2\n")
        (data / "fields.csv").write_text(
            "file,patient,field,microns_per_pixel,domain\n05/Schnitt 3.png,05,03,0.3,Leica\n"
        )
        import_found(data, found(**{"Schnitt 3": [(9, 8)]}), Target(data, add=True))
        assert sorted(contents(data)) == ["05/Schnitt 3.csv", "05/Schnitt 3.png", "fields.csv"]
        (field,) = list_fields(data)
        assert (field.name, field.microns_per_pixel, field.domain) == ("05_03", 0.3, "Leica")
        assert mitoses(data) == {"05_03": [[9, 8]]}

    def test_a_bad_table_of_before_is_replaced(self, data, images):
        (data / "01_01.csv").write_text("999,999\n")
        import_found(images, found(**{"01_01": [(9, 9)]}), Target(data, add=True))
        assert mitoses(data)["01_01"] == [[9, 9]]

    def test_the_order_of_the_datasets_numbers_is_kept(self, data, images):
        (data / "dataset.yaml").write_text("annotation_order: x,y\n")
        import_found(images, found(**{"01_01": ([(3, 40)], [(5, 45)])}), Target(data, add=True))
        assert (data / "01_01.csv").read_text() == "40.0,3.0\n"
        assert (data / "01_01_nonmitotic.csv").read_text() == "20.0,20.0\n45.0,5.0\n"

    def test_a_pixel_size_holds_for_the_new_fields_only(self, data, images):
        (data / "dataset.yaml").write_text("microns_per_pixel: 0.3\n")
        import_found(images, found(**{"02_01": []}), Target(data, add=True, microns_per_pixel=0.4))
        assert [field.microns_per_pixel for field in list_fields(data)] == [None, None, 0.4]

    def test_a_pixel_size_is_for_images_of_which_neither_a_table_nor_the_file_says_it(self, data, images):
        (data / "dataset.yaml").write_text("microns_per_pixel: 0.3\n")
        for name in ("02_01", "02_02"):
            (images / f"{name}.png").unlink(missing_ok=True)
            pixels = tissue(len(name))
            tifffile.imwrite(images / f"{name}.tif", pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
        (images / "03_01.png").write_bytes(encode(".png", tissue(5)))
        (images / "03_02.png").write_bytes(encode(".png", tissue(6)))
        (images / "fields.csv").write_text("file,microns_per_pixel\n02_02.tif,0.45\n03_01.png,0.29\n")
        (data / "fields.csv").write_text("file,microns_per_pixel\n01_01.png,0.35\n")
        annotations = found(**{name: [(1, 2)] for name in ("01_01", "02_01", "02_02", "03_01", "03_02")})
        import_found(images, annotations, Target(data, add=True, microns_per_pixel=0.4))
        sizes = {field.name: field.pixel for field in check_dataset(data).fields}
        assert {name: (pixel.microns, pixel.source) for name, pixel in sizes.items() if pixel} == {
            "01_01": (0.35, "fields.csv"),
            "01_02": (0.3, "dataset.yaml"),
            "02_01": (0.5, "file"),
            "02_02": (0.45, "fields.csv"),
            "03_01": (0.29, "fields.csv"),
            "03_02": (0.4, "fields.csv"),
        }

    def test_a_pixel_size_is_not_lost_where_only_a_description_is_kept(self, images, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "dataset.yaml").write_text("name: mine\n")
        import_found(images, found(**{"01_01": []}), Target(tmp_path / "data", add=True, microns_per_pixel=0.4))
        assert [field.microns_per_pixel for field in list_fields(tmp_path / "data")] == [0.4]

    def test_a_pixel_size_that_new_fields_inherit_is_said(self, data, images):
        (data / "dataset.yaml").write_text("microns_per_pixel: 0.3\n")
        summary = import_found(images, found(**{"02_01": []}), Target(data, add=True))
        assert len(notes(summary)) == 1 and "take the pixel size of dataset.yaml, 0.3 um" in notes(summary)[0]

    def test_another_image_under_the_name_of_one_that_is_there_is_rejected(self, data, images):
        (images / "01_01.png").write_bytes(encode(".png", tissue(77)))
        annotations = found(**{"01_01": [], "02_01": []})
        with pytest.raises(InputError, match=r"would be the field 01_01, but .* is another image"):
            import_found(images, annotations, Target(data, add=True))

    def test_a_failure_changes_nothing(self, data, images):
        before = contents(data.parent)
        (images / "02_01.png").write_bytes(encode(".png", tissue(2))[:-50])
        with pytest.raises(InputError, match=r"02_01\.png: .*truncated"):
            import_found(images, found(**{"01_01": [(9, 9)], "02_01": []}), Target(data, add=True))
        assert contents(data.parent) == before

    def test_another_import_at_the_same_time_is_rejected_and_nothing_is_lost(self, data, images):
        annotations = found(**{"01_02": [(9, 9)]})
        meanwhile = []

        def on_progress(step: str, done: int, total: int) -> None:
            if not meanwhile:
                with pytest.raises(
                    InputError, match=r"another import writes here, process \d+; import again"
                ) as caught:
                    import_found(images, annotations, Target(data, add=True))
                meanwhile.append(caught.value)

        assemble(images, found(**{"02_01": [(7, 8)]}), Target(data, add=True), Description(), on_progress)
        import_found(images, annotations, Target(data, add=True))
        assert meanwhile and mitoses(data) == {"01_01": [[3, 4]], "01_02": [[9, 9]], "02_01": [[7, 8]]}
        assert [path.name for path in data.parent.iterdir()] == ["data"]

    def test_files_are_linked_and_the_links_of_a_cache_stay_links(self, data, images, tmp_path):
        cache = tmp_path / "cache.png"
        (data / "01_02.png").rename(cache)
        (data / "01_02.png").symlink_to(cache)
        number = (data / "01_01.png").stat().st_ino
        import_found(images, found(**{"01_02": [(9, 9)]}), Target(data, add=True))
        assert (data / "01_01.png").stat().st_ino == number
        assert (data / "01_02.png").is_symlink() and mitoses(data)["01_02"] == [[9, 9]]

    def test_where_nothing_is_it_makes_a_new_dataset(self, images, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / ".gitignore").write_text("/x\n")
        import_found(images, found(**{"01_01": [(1, 2)]}), Target(tmp_path / "data", add=True))
        assert sorted(contents(tmp_path / "data")) == [".gitignore", "01_01.csv", "01_01.png", "dataset.yaml"]

    def test_it_cannot_be_combined_with_replacing(self, data, images):
        with pytest.raises(InputError, match="give one of them"):
            import_found(images, found(**{"01_01": []}), Target(data, add=True, replace=True))
