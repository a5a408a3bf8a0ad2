"""Bring public datasets into the raw layout: Janowczyk's archive as it is, MIDOG's boxes as centres.

Whatever goes wrong, the output folder stays as it was: files are gathered beside it, read through once, and only
a dataset without problems takes its place.
"""

import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from mitoscope.datasets.annotations import Centres, write_centres
from mitoscope.datasets.fields import Description, write_description
from mitoscope.datasets.images import IMAGE_SUFFIXES
from mitoscope.datasets.validation import Progress, Report, check_dataset
from mitoscope.errors import InputError
from mitoscope.files import atomic_folder

# Janowczyk's archive has about 1,500 files and 3.5 GB; MIDOG++ unpacked has 65 GB. What exceeds these was made to
# fill the disk, or is not one of them.
MAX_MEMBERS = 20_000
MAX_BYTES = 64 * 2**30

_MEGABYTE = 2**20
# Absolute names, parent folders, Windows' separators and drives, and what would break a message into two lines.
_UNSAFE_NAME = re.compile(r"^/|(^|/)\.\.(/|$)|[\\:\x00-\x1f]")


@dataclass(frozen=True)
class Summary:
    """What an import brought, and the names of the files that it left behind."""

    fields: int
    patients: int
    mitoses: int
    skipped: tuple[str, ...]


def import_janowczyk(
    source: Path, out: Path, *, replace: bool = False, on_progress: Progress = lambda step, done, total: None
) -> Summary:
    """Bring a dataset in Janowczyk's flat layout into the folder `out`.

    Images, CSVs, masks and `dataset.yaml` are copied, other files are skipped. Folders inside an archive do not
    matter, names do.

    Args:
        source: The folder, or the .tgz, .tar or .zip archive of it.
        out: The new raw dataset; its parents are made.
        replace: Put the new dataset in the place of what `out` holds.
        on_progress: Called with a step's name, how much of it is done and how much there is.

    Raises:
        InputError: the source is missing, truncated, unsafe to unpack or not a valid dataset, or `out` is in use.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; give Janowczyk's archive or the folder it unpacks to")
    skipped = []
    with atomic_folder(out, replace=replace) as folder:
        for member in _folder_files(source, on_progress) if source.is_dir() else _archive_files(source, on_progress):
            name = PurePosixPath(member.name).name
            if not _is_recognised(name):
                skipped.append(member.name)
                continue
            if (folder / name).exists():
                raise InputError(f"{source}: holds {name} twice; keep one of them")
            with _archive_errors(source), member.open() as packed, (folder / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _MEGABYTE)
        if not (folder / "dataset.yaml").exists():
            write_description(folder, Description(name="Janowczyk", source="Janowczyk's mitosis set"))
        report = _check_import(folder, {folder: str(source)}, on_progress)
    return _summarise(report, skipped)


def import_midog(
    images: Path,
    annotations: Path,
    out: Path,
    *,
    replace: bool = False,
    on_progress: Progress = lambda step, done, total: None,
) -> Summary:
    """Bring MIDOG 2021, 2022 or ++ into the folder `out`: 001.tiff becomes field 01 of patient 001.

    The centres of the boxes of the category "mitotic figure" become mitosis centres; a centre given twice is one.
    MIDOG marks every image that it annotates, if only with look-alikes, so an image without any box comes from a
    scanner that was left unlabelled: it is skipped, as it would teach that its mitoses are none.

    Args:
        images: The folder of the TIFF images.
        annotations: `MIDOG.json` or `MIDOG++.json`.
        out: The new raw dataset; its parents are made.
        replace: Put the new dataset in the place of what `out` holds.
        on_progress: Called with a step's name, how much of it is done and how much there is.

    Raises:
        InputError: the JSON is not MIDOG's, an annotated image is missing or cannot be read, or `out` is in use.
    """
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder that holds MIDOG's images")
    centres = _read_midog(annotations)
    for name in centres:
        if not (images / name).is_file():
            raise InputError(f"{images / name}: no such image, yet {annotations.name} annotates it; download it again")
    origins: dict[Path, str] = {}
    with atomic_folder(out, replace=replace) as folder:
        for done, (name, of_image) in enumerate(centres.items(), start=1):
            image = folder / f"{Path(name).stem}_01{Path(name).suffix}"
            csv = image.with_suffix(".csv")
            shutil.copyfile(images / name, image)
            write_centres(csv, of_image)
            origins |= {image: str(images / name), csv: f"{annotations} as {csv.name}"}
            on_progress("copying", done, len(centres))
        write_description(folder, Description(name="MIDOG", source=annotations.name))
        report = _check_import(folder, origins, on_progress)
    left = sorted(path.name for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return _summarise(report, [name for name in left if name not in centres])


def _is_recognised(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return not name.startswith(".") and (suffix in (*IMAGE_SUFFIXES, ".csv") or name == "dataset.yaml")


def _check_import(folder: Path, origins: Mapping[Path, str], on_progress: Progress) -> Report:
    """Check the gathered dataset; problems name the file's origin, as the gathered one is about to vanish."""
    report = check_dataset(folder, on_progress=on_progress)
    if report.problems:
        problem, others = report.problems[0], len(report.problems) - 1
        for path, origin in origins.items():
            problem = problem.replace(str(path), origin)
        raise InputError(problem + (f" (and {others} more problems; nothing was imported)" if others else ""))
    return report


def _summarise(report: Report, skipped: list[str]) -> Summary:
    return Summary(len(report.fields), len(report.patients), report.mitoses, tuple(skipped))


# Archives. `extractall` is avoided: how safe its filters are depends on the Python release. Members are streamed to
# names of our own choice instead, so that nothing in an archive decides where, or as what, it is written.


@dataclass(frozen=True)
class _Member:
    """A file to copy. `open` must be called before the next member is asked for."""

    name: str
    size: int
    kind: Literal["file", "folder", "other"]
    open: Callable[[], IO[bytes]]


def _folder_files(source: Path, on_progress: Progress) -> Iterator[_Member]:
    paths = sorted(path for path in source.iterdir() if path.is_file())
    for done, path in enumerate(paths, start=1):
        yield _Member(path.name, path.stat().st_size, "file", partial(io.FileIO, path))
        on_progress("copying", done, len(paths))


def _archive_files(source: Path, on_progress: Progress) -> Iterator[_Member]:
    """The files of an archive, refused as soon as a member is unsafe or the archive is too large."""
    total = source.stat().st_size
    size = 0
    with _archive_errors(source), source.open("rb") as raw:
        for count, member in enumerate(_zip_members(raw) if zipfile.is_zipfile(raw) else _tar_members(raw), start=1):
            if _UNSAFE_NAME.search(member.name):
                raise InputError(f"{source}: {member.name!r} would be written elsewhere; the archive is not safe")
            if member.kind == "other":
                raise InputError(f"{source}: {member.name} is a link or a device; the archive is not safe")
            size += member.size
            if count > MAX_MEMBERS:
                raise InputError(f"{source}: has more than {MAX_MEMBERS} members; is it the right archive?")
            if size > MAX_BYTES:
                raise InputError(f"{source}: unpacks to more than {MAX_BYTES} bytes; is it the right archive?")
            if member.kind == "file":
                yield member
            on_progress("unpacking, MB", raw.tell() // _MEGABYTE, total // _MEGABYTE)


def _tar_members(raw: IO[bytes]) -> Iterator[_Member]:
    raw.seek(0)
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            kind: Literal["file", "folder", "other"] = (
                "file" if member.isfile() else "folder" if member.isdir() else "other"
            )
            yield _Member(member.name, member.size, kind, partial(_extract, tar, member))
        # A header that is cut or damaged ends the loop like the end mark does, so look for the mark; and read on, as
        # the compressed stream's checksum comes after it.
        stream = cast(IO[bytes], tar.fileobj)
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")
        while stream.read(_MEGABYTE):
            pass


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile(member))  # None is only for members that are no files


def _zip_members(raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            kind: Literal["file", "folder", "other"] = "other" if not plain else "folder" if member.is_dir() else "file"
            yield _Member(member.filename, member.file_size, kind, partial(archive.open, member))


@contextmanager
def _archive_errors(source: Path) -> Iterator[None]:
    """Turn what the readers raise at a broken or encrypted archive into one line."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, such as a full disk; the decompressors' own have no number
        raise InputError(
            f"{source}: is truncated, damaged, encrypted or no .tgz, .tar or .zip archive; download it again"
        ) from error


# MIDOG's JSON, which has COCO's entries but not its boxes.


class _Image(BaseModel):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]


class _Category(BaseModel):
    id: int
    name: str


class _Midog(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _read_midog(path: Path) -> dict[str, Centres]:
    """The file name of every annotated image with its (N, 2) mitosis centres: row, col in pixels."""
    try:
        midog = _Midog.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give MIDOG.json or MIDOG++.json") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {place}: {first['msg']}; is it MIDOG.json or MIDOG++.json?") from error
    images = {image.id: image for image in midog.images}
    mitotic = {category.id for category in midog.categories if category.name.lower().startswith("mitotic")}
    if not mitotic:
        raise InputError(f"{path}: has no category `mitotic figure`; is it MIDOG.json or MIDOG++.json?")
    for index, annotation in enumerate(midog.annotations):
        if annotation.image_id not in images:
            raise InputError(f"{path}: annotations.{index}: there is no image {annotation.image_id}; download it again")
    annotated = {annotation.image_id for annotation in midog.annotations}
    names = {image.id: _image_name(path, image) for image in midog.images if image.id in annotated}
    if not names:
        raise InputError(f"{path}: annotates no image; is it MIDOG.json or MIDOG++.json?")
    if len({Path(name).stem for name in names.values()}) < len(names):
        raise InputError(f"{path}: two images have the same name, thus the same patient; keep one of them")
    mitoses: dict[int, dict[tuple[float, float], None]] = {image_id: {} for image_id in names}
    for annotation, (x, y) in zip(midog.annotations, _box_centres(path, midog.annotations, images), strict=True):
        if annotation.category_id in mitotic:
            mitoses[annotation.image_id][y, x] = None
    return {names[image_id]: np.array(list(centres)).reshape(-1, 2) for image_id, centres in mitoses.items()}


def _image_name(path: Path, image: _Image) -> str:
    """The name of an image's file without the folder; its stem is going to be the patient's id."""
    name = PurePosixPath(image.file_name).name
    if not re.fullmatch(r"[A-Za-z0-9]+\.[A-Za-z]+", name) or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: image {image.id} is called {image.file_name!r}; expected a name such as 001.tiff")
    return name


def _box_centres(path: Path, annotations: list[_Annotation], images: Mapping[int, _Image]) -> npt.NDArray[np.float64]:
    """The (N, 2) centres x, y of all boxes.

    MIDOG's own files give two corners (x0, y0, x1, y1) of boxes of 50 x 50 px, where COCO, to which some copies have
    been converted, gives a corner and a size (x, y, width, height). All boxes of a file are of one kind, and only the
    true reading makes each of them a box around a point of its image: read as corners, COCO's boxes turn inside out
    as soon as x > width; read as COCO's, corners lead out of the image. Where both readings hold it is MIDOG's.
    """
    boxes = np.array([annotation.bbox for annotation in annotations])
    sizes = np.array([(images[a.image_id].width, images[a.image_id].height) for a in annotations])
    corner, other = boxes[:, :2], boxes[:, 2:]
    readings = [((corner + other) / 2, other - corner), (corner + other / 2, other)]
    wrong = []
    for centres, extents in readings:
        fits = ((extents > 0) & (centres >= 0) & (centres < sizes)).all(axis=1)
        if fits.all():
            return np.asarray(centres, dtype=np.float64)
        wrong.append(int(np.argmin(fits)))
    raise InputError(
        f"{path}: annotations.{wrong[0]}: {list(annotations[wrong[0]].bbox)} is no box around a point of its image; "
        "expected x0, y0, x1, y1 (MIDOG) or x, y, width, height (COCO) in pixels for all of them"
    )
