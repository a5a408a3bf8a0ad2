"""Import datasets and annotations into the raw layout; one module per source.

A reader returns what it has found in the annotation files (`Found`); `assemble.assemble` puts it together with the
images. If an import fails, the output folder is left unchanged: the files are collected in a temporary folder
(`files.atomic_folder`), and only a dataset without problems replaces the output.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.validation import Progress, Report, check_dataset
from mitoscope.errors import InputError
from mitoscope.files import exclusive


class Annotations(NamedTuple):
    """The annotations of one image, (N, 2) and (M, 2) row, col in pixels."""

    mitoses: Centres
    lookalikes: Centres


@dataclass(frozen=True)
class Found:
    """What annotation files contain.

    Attributes:
        by_image: by the image's name as the files know it: a file name with or without suffix, a path relative to the
            folder of the images, or PATIENT_FIELD. An image without an entry is not annotated.
        notes: one line each, to print: which classes were taken, what was left out.
        shapes: rows and columns of images, where the files say so; an image of another size is rejected.
    """

    by_image: dict[str, Annotations]
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Where an import goes, and what the user says about its images.

    Attributes:
        out: the raw dataset; its parent folders are created.
        replace: replace the contents of `out`.
        add: keep the dataset in `out`; add new images, and replace the mitoses of those that are there.
        fields: a `fields.csv` with paths relative to the folder of the images; None = the one in that folder, if any.
        patient_per_image: each image is a patient of its own.
        microns_per_pixel: pixel size, um, of the imported images for which neither a table nor the file gives it; None
            = not given.
        scheduler: address of a Dask scheduler, whose workers read the images; None = threads of this process.
    """

    out: Path
    replace: bool = False
    add: bool = False
    fields: Path | None = None
    patient_per_image: bool = False
    microns_per_pixel: float | None = None
    scheduler: str | None = None


@dataclass(frozen=True)
class Summary:
    """The counts of the dataset in the output folder, the names of the files left out, and lines to print."""

    fields: int
    patients: int
    mitoses: int
    lookalikes: int
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_import(folder: Path, *, origins: Mapping[Path, str], on_progress: Progress, scheduler: str | None) -> Report:
    """Read the whole collected dataset once.

    Args:
        folder: the temporary folder with the dataset.
        origins: the source of each path in it; a line names the source, because the folder will be deleted.
        on_progress: called with the name of a step, the amount done and the total.
        scheduler: as in `Target`.

    Raises:
        InputError: the dataset has a problem, or as in `cluster.results`.
        OSError: the cluster is lost.
    """
    report = check_dataset(folder, on_progress=on_progress, scheduler=scheduler)

    def name_source(line: str) -> str:
        for path, origin in sorted(origins.items(), reverse=True):  # the longest first: one path may start another one
            line = line.replace(str(path), origin)
        return line

    if report.problems:
        others = len(report.problems) - 1
        more = f" (and {others} more problems; nothing was imported)" if others else ""
        raise InputError(name_source(report.problems[0]) + more)
    return replace(report, copies=tuple(name_source(line) for line in report.copies))


@contextmanager
def only_import(out: Path) -> Iterator[None]:
    """Let no other import write to a folder during the block: the one that ends later would undo the other.

    The lock is beside the folder, under a name that git and DVC ignore, and is removed.

    Raises:
        InputError: another import writes there.
    """
    real = out.resolve() if out.exists() else out.absolute()
    lock = real.parent / f".{real.name}.partial.lock"
    with exclusive(lock, "another import writes here, process {pid}; import again when it has ended"):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is held, so that it is no lock of another import


def require_outside(source: Path, target: Target) -> None:
    """Check that replacing the output folder would not delete the source.

    Raises:
        InputError: it would.
    """
    real, out = (os.path.realpath(path) for path in (source, target.out))  # a loop of links raises nothing here
    if not target.add and Path(real).is_relative_to(out):
        raise InputError(
            f"{source}: lies in the output folder {target.out}, which would be replaced; choose another --out"
        )
