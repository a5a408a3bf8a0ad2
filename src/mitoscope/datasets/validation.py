"""Check a raw dataset: read every image, annotation and mask, and collect all that is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed

from mitoscope.datasets.annotations import scan_centres
from mitoscope.datasets.fields import MASKS, Description, FieldOfView, read_description, scan_fields
from mitoscope.datasets.images import IMAGE_SUFFIXES, read_image, read_mask
from mitoscope.errors import InputError

Progress = Callable[[str, int, int], None]
"""Called with a step's name, how much of it is done and how much there is."""


@dataclass(frozen=True)
class CheckedField:
    """What one field holds; its size is 0 x 0 px where the image cannot be read."""

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
    """What a dataset holds and what is wrong with it.

    Attributes:
        fields: One entry per field, sorted by name.
        patients: The totals of each patient, sorted by name.
        problems: One line each, naming the file (and the row); any of them makes the dataset unusable.
        warnings: One line each; the dataset can be used, but perhaps not as it was meant.
    """

    fields: tuple[CheckedField, ...]
    patients: tuple[PatientTotal, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def mitoses(self) -> int:
        """The mitoses of all fields."""
        return sum(field.mitoses for field in self.fields)


def check_dataset(data: Path, *, on_progress: Progress = lambda step, done, total: None) -> Report:
    """Read everything in the folder `data` once, in parallel, and report on it.

    Args:
        data: The raw dataset.
        on_progress: Called after each field.

    Raises:
        InputError: there is no such folder.
    """
    fields, problems = scan_fields(data)
    description = Description()
    try:
        description = read_description(data)
    except InputError as error:
        problems.append(str(error))
    checked: list[CheckedField] = []
    # Threads: the time goes into OpenCV's decoders, which let go of Python's lock, and nothing has to be copied.
    for field in Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        delayed(_check_field)(field, description.annotation_order) for field in fields
    ):
        checked.append(field)
        on_progress("checking", len(checked), len(fields))
    problems += [problem for field in checked for problem in field.problems]
    # A field without CSV takes its centres from `_pc.png`, so what is wrong with this mask is found twice.
    distinct = tuple(dict.fromkeys(problems))
    patients = _total_patients(checked)
    warnings = (*_unused_files(data, fields), *_patients_without_mitosis(patients))
    return Report(tuple(checked), patients, distinct, warnings)


def _check_field(field: FieldOfView, order: str) -> CheckedField:
    """Read one field's files; what lies beside an unreadable image cannot be judged and waits for the image."""
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
    """Warn of annotations and masks that no field looks for: each may be a mitosis that goes uncounted."""
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
