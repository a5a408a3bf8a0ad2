"""Import Janowczyk's archive, or the folder that it unpacks to."""

import io
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from mitoscope.datasets import field_table
from mitoscope.datasets.field_table import read_field_table, split_name
from mitoscope.datasets.fields import (
    IMAGE_SUFFIXES,
    Description,
    is_mask,
    list_images,
    read_description,
    write_description,
)
from mitoscope.datasets.importers import Summary, Target, check_import, only_import, require_outside
from mitoscope.datasets.importers.archives import Member, archive_errors, archive_files
from mitoscope.datasets.validation import Progress
from mitoscope.errors import InputError
from mitoscope.files import atomic_folder

_MEGABYTE = 2**20
_TUPAC = "`mitoscope import tupac` takes a folder per patient"
# Which command reads annotation files that are left out.
_READERS = {
    (".geojson", ".geojson.gz"): "qupath",
    (".xml",): "imagescope",
    (".sqlite", ".db"): "sliderunner",
    (".json",): "midog",
}


def import_janowczyk(source: Path, target: Target, on_progress: Progress = lambda step, done, total: None) -> Summary:
    """Import a dataset in Janowczyk's flat layout.

    Images, CSVs, masks, `fields.csv` and `dataset.yaml` are copied; other files are skipped. Folders inside an archive
    are ignored: only file names count. The files at the top of a folder are taken, and if it has a `fields.csv`, those
    in its folders too.

    Args:
        source: the folder, or a .tgz, .tar or .zip archive of it.
        target: where to; `add` and `patient_per_image` do not apply.
        on_progress: called with the name of a step, the amount done and the total.

    Raises:
        InputError: the source is missing, truncated, unsafe to unpack or not a valid dataset, or the output folder is
            not empty and not replaced, or another import writes there.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; give Janowczyk's archive or the folder it unpacks to")
    require_outside(source, target)
    skipped: list[str] = []
    taken: dict[str, str] = {}
    with only_import(target.out), atomic_folder(target.out, replace=target.replace) as folder:
        for member in _folder_files(source, on_progress) if source.is_dir() else archive_files(source, on_progress):
            name = member.name if source.is_dir() else PurePosixPath(member.name).name
            if not _is_recognised(PurePosixPath(name).name):
                skipped.append(member.name)
                continue
            if (first := taken.setdefault(name, member.name)) != member.name or (folder / name).exists():
                raise InputError(
                    f"{source}: contains {name} twice, {first} and {member.name}; keep one of them ({_TUPAC})"
                )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with archive_errors(source), member.open() as packed, (folder / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _MEGABYTE)
        if target.fields:
            read_field_table(target.fields)
            shutil.copyfile(target.fields, folder / field_table.NAME)
        _reject_patient_folders(source, taken, mapped=(folder / field_table.NAME).exists())
        _describe(folder, target.microns_per_pixel)
        report = check_import(
            folder, origins={folder: str(source)}, on_progress=on_progress, scheduler=target.scheduler
        )
    counts = (len(report.fields), len(report.patients), report.mitoses, report.lookalikes)
    notes = (*_deeper_images(source), *_unread(skipped), *report.copies, *report.pixel_sizes)
    return Summary(*counts, tuple(skipped), notes)


def _is_recognised(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return not name.startswith(".") and (suffix in (*IMAGE_SUFFIXES, ".csv") or name == "dataset.yaml")


def _folder_files(source: Path, on_progress: Progress) -> Iterator[Member]:
    mapped = (source / field_table.NAME).exists()
    paths = sorted(path for path in (source.rglob("*") if mapped else source.iterdir()) if path.is_file())
    top = any(path.suffix.lower() in IMAGE_SUFFIXES for path in paths)
    if not mapped and not top and (inner := list_images(source)):
        raise InputError(f"{source}: has its images in folders, such as {inner[0].relative_to(source)}; {_TUPAC}")
    for done, path in enumerate(paths, start=1):
        yield Member(path.relative_to(source).as_posix(), path.stat().st_size, "file", partial(io.FileIO, path))
        on_progress("copying", done, len(paths))


def _deeper_images(source: Path) -> Iterator[str]:
    """Name the images in the folders of a folder without `fields.csv`, of which only the top is taken."""
    if source.is_dir() and not (source / field_table.NAME).exists():
        deeper = [path for path in list_images(source) if path.parent != source]
        if deeper:
            example = deeper[0].relative_to(source)
            yield (
                f"images in folders that were left out: {len(deeper)}, such as {example}; `mitoscope fields {source}` "
                f"writes a {field_table.NAME}, with which they are taken"
            )


def _reject_patient_folders(source: Path, taken: dict[str, str], *, mapped: bool) -> None:
    """Reject images that lie in several folders and do not name their patient: the folders do."""
    paths = [Path(member) for member in taken.values()]
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not is_mask(path)]
    unnamed = [path for path in images if not split_name(path.stem)]
    if unnamed and not mapped and len({path.parent for path in images}) > 1:
        raise InputError(
            f"{source}: has images in folders, such as {unnamed[0]}, without a patient in the name; {_TUPAC}"
        )


def _describe(folder: Path, microns_per_pixel: float | None) -> None:
    """Write `dataset.yaml` if there is none, or the pixel size that the user gives."""
    given = {} if microns_per_pixel is None else {"microns_per_pixel": microns_per_pixel}
    if not (folder / "dataset.yaml").exists():
        description = Description(name="Janowczyk", source="Janowczyk's mitosis set")
    elif given:
        description = read_description(folder)
    else:
        return
    write_description(folder, description.model_copy(update=given))


def _unread(skipped: Iterable[str]) -> Iterator[str]:
    """Name the annotation files that were left out, and the command that reads them."""
    files = [PurePosixPath(name).name for name in skipped]
    for suffixes, command in _READERS.items():
        of_kind = [name for name in files if name.lower().endswith(suffixes) and not name.startswith(".")]
        if of_kind:
            reader = f"`mitoscope import {command}` reads them"
            yield f"annotation files that were not read: {len(of_kind)}, such as {of_kind[0]}; {reader}"
