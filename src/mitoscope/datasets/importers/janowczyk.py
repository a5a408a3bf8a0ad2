"""Import Janowczyk's archive, or the folder that it unpacks to."""

import io
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from mitoscope.datasets.fields import Description, write_description
from mitoscope.datasets.images import IMAGE_SUFFIXES
from mitoscope.datasets.importers import Summary, check_import
from mitoscope.datasets.importers.archives import Member, archive_errors, archive_files
from mitoscope.datasets.validation import Progress
from mitoscope.errors import InputError
from mitoscope.files import atomic_folder

_MEGABYTE = 2**20


def import_janowczyk(
    source: Path, out: Path, *, replace: bool = False, on_progress: Progress = lambda step, done, total: None
) -> Summary:
    """Import a dataset in Janowczyk's flat layout into the folder `out`.

    Images, CSVs, masks and `dataset.yaml` are copied; other files are skipped. Folders inside an archive are ignored:
    only file names count.

    Args:
        source: The folder, or a .tgz, .tar or .zip archive of it.
        out: The new raw dataset; its parent folders are created.
        replace: Replace the contents of `out`.
        on_progress: Called with the name of a step, the amount done and the total.

    Raises:
        InputError: the source is missing, truncated, unsafe to unpack or not a valid dataset, or `out` is not empty and
            `replace` is false.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; give Janowczyk's archive or the folder it unpacks to")
    skipped = []
    with atomic_folder(out, replace=replace) as folder:
        for member in _folder_files(source, on_progress) if source.is_dir() else archive_files(source, on_progress):
            name = PurePosixPath(member.name).name
            if not _is_recognised(name):
                skipped.append(member.name)
                continue
            if (folder / name).exists():
                raise InputError(f"{source}: contains {name} twice; keep one of them")
            with archive_errors(source), member.open() as packed, (folder / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _MEGABYTE)
        if not (folder / "dataset.yaml").exists():
            write_description(folder, Description(name="Janowczyk", source="Janowczyk's mitosis set"))
        return check_import(folder, origins={folder: str(source)}, skipped=skipped, on_progress=on_progress)


def _is_recognised(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return not name.startswith(".") and (suffix in (*IMAGE_SUFFIXES, ".csv") or name == "dataset.yaml")


def _folder_files(source: Path, on_progress: Progress) -> Iterator[Member]:
    paths = sorted(path for path in source.iterdir() if path.is_file())
    for done, path in enumerate(paths, start=1):
        yield Member(path.name, path.stat().st_size, "file", partial(io.FileIO, path))
        on_progress("copying", done, len(paths))
