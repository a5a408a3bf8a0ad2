"""Check a raw dataset: read every image, annotation and mask, and collect all problems."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed

from mitoscope.datasets.annotations import scan_centres
from mitoscope.datasets.fields import MASKS, Description, FieldOfView, read_description, scan_fields
from mitoscope.datasets.images import IMAGE_SUFFIXES, read_image, read_mask
from mitoscope.errors import InputError

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the amount done and the total."""


@dataclass(frozen=True)
class CheckedField:
    """The contents of one field; its size is 0 x 0 px if the image cannot be read."""

    name: str
    patient: str
    width: int
    height: int
    mitoses: int
    masks: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PatientTotal:
    """The fields and mitoses of one patient."""

    patient: str
    fields: int
    mitoses: int


@dataclass(frozen=True)
class Report:
    """The contents of a dataset, and its problems.

    Attributes:
        fields: One entry per field, sorted by name.
        patients: The totals of each patient, sorted by name.
        problems: One line each, naming the file (and the row); any problem makes the dataset unusable.
        warnings: One line each; the dataset can be used, but perhaps not as intended.
    """

    fields: tuple[CheckedField, ...]
    patients: tuple[PatientTotal, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def mitoses(self) -> int:
        """Number of mitoses in all fields."""
        return sum(field.mitoses for field in self.fields)


def check_dataset(data: Path, *, on_progress: Progress = lambda step, done, total: None) -> Report:
    """Read every file of the dataset in the folder `data` once, in parallel, and report on it.

    Args:
        data: The raw dataset.
        on_progress: Called after each field.

    Raises:
        InputError: the folder does not exist.
    """
    fields, problems = scan_fields(data)
    description = Description()
    try:
        description = read_description(data)
    except InputError as error:
        problems.append(str(error))
    checked: list[CheckedField] = []
    # Threads: most of the time is spent in OpenCV's decoders, which release the GIL, and no data has to be copied.
    for field in Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        delayed(_check_field)(field, description.annotation_order) for field in fields
    ):
        checked.append(field)
        on_progress("checking", len(checked), len(fields))
    problems += [problem for field in checked for problem in field.problems]
    # A field without a CSV takes its centres from `_pc.png`, so a problem with this mask is found twice.
    distinct = tuple(dict.fromkeys(problems))
    patients = _total_patients(checked)
    warnings = (*_unused_files(data, fields), *_patients_without_mitosis(patients))
    return Report(tuple(checked), patients, distinct, warnings)


def _check_field(field: FieldOfView, order: str) -> CheckedField:
    """Read one field's files. If its image cannot be read, its annotation and masks cannot be checked either."""
    masks = tuple(kind for kind in MASKS if field.mask(kind).exists())
    try:
        shape = read_image(field.image).shape[:2]
    except InputError as error:
        return CheckedField(field.name, field.patient, 0, 0, 0, masks, (str(error),))
    problems: list[str] = []
    mitoses = 0
    try:
        centres, problems = scan_centres(field, shape, order)
        mitoses = len(centres)
    except InputError as error:
        problems.append(str(error))
    for kind in masks:
        try:
            read_mask(field.mask(kind), shape)
        except InputError as error:
            problems.append(str(error))
    return CheckedField(field.name, field.patient, shape[1], shape[0], mitoses, masks, tuple(problems))


def _total_patients(checked: list[CheckedField]) -> tuple[PatientTotal, ...]:
    groups: dict[str, list[CheckedField]] = {}
    for field in checked:
        groups.setdefault(field.patient, []).append(field)
    return tuple(
        PatientTotal(patient, len(fields), sum(field.mitoses for field in fields))
        for patient, fields in sorted(groups.items())
    )


def _unused_files(data: Path, fields: list[FieldOfView]) -> Iterator[str]:
    """Warn about annotations and masks that belong to no field: their mitoses would not be counted."""
    used = {path for field in fields for path in (field.annotation, *map(field.mask, MASKS))}
    for path in sorted(data.iterdir()):
        suffix = path.suffix.lower()
        belongs_to_field = suffix == ".csv" or (suffix in IMAGE_SUFFIXES and path.stem.rpartition("_")[2] in MASKS)
        if belongs_to_field and not path.name.startswith(".") and path not in used:
            yield f"{path}: belongs to no field and is not used; is its image missing, or its name misspelt?"


def _patients_without_mitosis(patients: tuple[PatientTotal, ...]) -> Iterator[str]:
    for patient in patients:
        if not patient.mitoses:
            yield f"patient {patient.patient}: no mitosis in any field ({patient.fields}); are annotations missing?"
