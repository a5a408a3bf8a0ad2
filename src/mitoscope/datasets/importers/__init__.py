"""Import public datasets into the raw layout; one module per source.

If an import fails, the output folder is left unchanged: an importer collects the files in a temporary folder
(`files.atomic_folder`) and ends with `check_import`, so that only a dataset without problems replaces the output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitoscope.datasets.validation import Progress, check_dataset
from mitoscope.errors import InputError


@dataclass(frozen=True)
class Summary:
    """The counts of an imported dataset, and the names of the files that were skipped."""

    fields: int
    patients: int
    mitoses: int
    skipped: tuple[str, ...]


def check_import(
    folder: Path, *, origins: Mapping[Path, str], skipped: Sequence[str], on_progress: Progress
) -> Summary:
    """Read the whole collected dataset once and summarise it.

    Args:
        folder: the temporary folder with the dataset.
        origins: the source of each path in it; a problem names the source, because the folder will be deleted.
        skipped: the names of the skipped files.
        on_progress: called with the name of a step, the amount done and the total.

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
