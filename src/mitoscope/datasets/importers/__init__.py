"""Bring public datasets into the raw layout; one module per source.

Whatever goes wrong, the output folder stays as it was: an importer gathers the files beside it (`files.atomic_folder`)
and ends with `check_import`, so that only a dataset without problems takes its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitoscope.datasets.validation import Progress, check_dataset
from mitoscope.errors import InputError


@dataclass(frozen=True)
class Summary:
    """What an import brought, and the names of the files that it left behind."""

    fields: int
    patients: int
    mitoses: int
    skipped: tuple[str, ...]


def check_import(
    folder: Path, *, origins: Mapping[Path, str], skipped: Sequence[str], on_progress: Progress
) -> Summary:
    """Read the gathered dataset through once.

    Args:
        folder: where it is gathered.
        origins: where what lies in it came from; a problem names this, as the gathered file is about to vanish.
        skipped: the names of the files that were left behind.
        on_progress: called with a step's name, how much of it is done and how much there is.

    Raises:
        InputError: the dataset has a problem.
    """
    report = check_dataset(folder, on_progress=on_progress)
    if report.problems:
        problem, others = report.problems[0], len(report.problems) - 1
        for path, origin in origins.items():
            problem = problem.replace(str(path), origin)
        raise InputError(problem + (f" (and {others} more problems; nothing was imported)" if others else ""))
    return Summary(len(report.fields), len(report.patients), report.mitoses, tuple(skipped))
