"""Import the layout of AMIDA13 and TUPAC16: a folder per patient, a CSV per image, beside it or in a folder of labels.

    05/01.tif                          field 01 of patient 05
    05/01.csv                          its mitoses, `row,col` per line; missing = no mitosis

Source: tupac.grand-challenge.org, "Dataset" and "Submission format". The alternative labels of Bertram et al. 2020,
"Are pathologist-defined labels reproducible?", are in the same form in two folders (github.com/DeepMicroscopy/
TUPAC16_AlternativeLabels): TUPAC_AL/mitoses_ground_truth/05/01.csv and TUPAC_AL/nonmitoses_ground_truth/05/01.csv.
"""

from pathlib import Path

import numpy as np

from mitoscope.datasets import field_table
from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.field_table import Entry, as_id
from mitoscope.datasets.fields import Description, list_images
from mitoscope.datasets.importers import Annotations, Found, Summary, Target, require_outside
from mitoscope.datasets.importers.assemble import assemble
from mitoscope.datasets.tables import read_table
from mitoscope.datasets.validation import Progress
from mitoscope.errors import InputError

_LOOKALIKES = "nonmitoses"  # how the name of the folder of look-alikes starts


def import_tupac(
    images: Path,
    labels: Path | None,
    target: Target,
    on_progress: Progress = lambda step, done, total: None,
) -> Summary:
    """Import folders per patient: 05/01.tif becomes field 01 of patient 05.

    Args:
        images: the folder with a folder per patient; these may lie deeper, as in the parts that are published.
        labels: a folder with the same folders of CSV files; None = they are beside the images.
        target: where to, and what the user says about the images.
        on_progress: called with the name of a step, the amount done and the total.

    Raises:
        InputError: the folders are not in this layout, a CSV is bad, or as in `assemble`.
    """
    if not images.is_dir():
        raise InputError(
            f"{images}: {_no_folder(images)}; give the folder that has a folder per patient, as in 05/01.tif"
        )
    if labels and not labels.is_dir():
        raise InputError(f"{labels}: {_no_folder(labels)}; give the folder of the labels, as in 05/01.csv")
    require_outside(labels or images, target)
    known = _patients(images)
    mitoses, lookalikes = _label_files(labels or images)
    keys = {file: (Path(file).parent.name, Path(file).stem) for file in known}
    unused = [path for files in (mitoses, lookalikes) for key, path in files.items() if key not in keys.values()]
    if len(unused) == len(mitoses) + len(lookalikes):
        raise InputError(f"{labels or images}: has no CSV for any image in {images}; expected 05/01.csv for 05/01.tif")
    by_image = {file: Annotations(_read(mitoses.get(key)), _read(lookalikes.get(key))) for file, key in keys.items()}
    notes = []
    if unused:
        notes.append(f"CSV files of other images: {len(unused)} left out, such as {unused[0]}")
    labelled = {folder for folder, _ in (*mitoses, *lookalikes)}
    if silent := sorted({entry.patient for file, entry in known.items() if keys[file][0] not in labelled}):
        notes.append(
            f"patients without a CSV for any image: {len(silent)}, such as {', '.join(silent[:5])}; they are taken to "
            "have no mitosis, so leave out the folders of those whom nobody has annotated"
        )
    description = Description(name="TUPAC16", source=(labels or images).name)
    return assemble(images, Found(by_image, tuple(notes)), target, description, on_progress, known=known)


def _patients(images: Path) -> dict[str, Entry]:
    """Return patient and field of each image by its path relative to `images`; the patient is the folder.

    Raises:
        InputError: there is no image, one is in no folder, or it is not clear which folders are patients.
    """
    known: dict[str, Entry] = {}
    folder_of: dict[str, Path] = {}
    for path in list_images(images):
        file = path.relative_to(images)
        if path.parent == images:
            raise InputError(
                f"{path}: is in no patient's folder; expected PATIENT/FIELD{path.suffix}, as in 05/01.tif "
                "(`mitoscope import janowczyk` takes PATIENT_FIELD names)"
            )
        patient = as_id(path.parent.name)
        if (first := folder_of.setdefault(patient, path.parent)) != path.parent:
            raise InputError(
                f"{path.parent}: would be patient {patient!r}, as {first} is; give the folder that has a folder per "
                "patient"
            )
        known[file.as_posix()] = Entry(file.as_posix(), patient, as_id(path.stem))
    if not known:
        raise InputError(f"{images}: has no images in folders; expected PATIENT/FIELD.tif, as in 05/01.tif")
    return known


def _label_files(labels: Path) -> tuple[dict[tuple[str, str], Path], dict[tuple[str, str], Path]]:
    """Return the CSV files of mitoses and of look-alikes by the names of folder and file.

    Raises:
        InputError: there are two files for one image.
    """
    mitoses: dict[tuple[str, str], Path] = {}
    lookalikes: dict[tuple[str, str], Path] = {}
    for path in sorted(labels.rglob("*.[cC][sS][vV]")):
        parts = path.relative_to(labels.parent).parts
        if path.name == field_table.NAME or any(part.startswith(".") for part in parts[1:]):
            continue
        stem = path.stem.removesuffix("_nonmitotic")
        is_lookalikes = stem != path.stem or any(part.startswith(_LOOKALIKES) for part in parts[:-1])
        first = (lookalikes if is_lookalikes else mitoses).setdefault((path.parent.name, stem), path)
        if first != path:
            raise InputError(f"{path}: is for the same image as {first}; keep one of them")
    return mitoses, lookalikes


def _read(path: Path | None) -> Centres:
    """Read the (N, 2) centres of a CSV with `row,col` per line; no file has none.

    Raises:
        InputError: the file cannot be read, or a row is not two numbers.
    """
    if path is None:
        return np.empty((0, 2))
    table = read_table(path)
    centres = []
    for line, cells in table.rows:
        numbers = [table.number(cell) for cell in cells]
        if len(numbers) != 2 or None in numbers:
            raise InputError(
                f"{path}: row {line}: {','.join(cells)[:60]!r} is not two numbers; expected `row,col` per line"
            )
        centres.append(numbers)
    return np.array(centres, dtype=np.float64).reshape(-1, 2)


def _no_folder(path: Path) -> str:
    return "is a file; unpack it first" if path.is_file() else "no such folder"
