"""Safe unpacking of .tar (with any compression) and .zip archives.

`extractall` is avoided, because the safety of its filters depends on the Python release. Members are streamed to names
that mitoscope chooses instead, so that an archive controls neither where nor as what type of file it is written.
"""

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal, cast

from mitoscope.datasets.validation import Progress
from mitoscope.errors import InputError

# Janowczyk's archive has about 1,500 files and 3.5 GB; MIDOG++ unpacked has 65 GB. An archive that exceeds these limits
# is a decompression bomb or another dataset.
MAX_MEMBERS = 20_000
MAX_BYTES = 64 * 2**30

_MEGABYTE = 2**20
# Absolute paths, parent folders, Windows separators and drives, and control characters, which would break a message.
# Backslashes in a .zip are separators of old Windows tools, and have become slashes before this is applied.
_UNSAFE_NAME = re.compile(r"^/|(^|/)\.\.(/|$)|[\\:\x00-\x1f]")


@dataclass(frozen=True)
class Member:
    """A member of an archive or a folder. Call `open` before requesting the next member."""

    name: str
    size: int
    kind: Literal["file", "folder", "other"]
    open: Callable[[], IO[bytes]]


def archive_files(source: Path, on_progress: Progress) -> Iterator[Member]:
    """Yield the files of an archive.

    Raises:
        InputError: a member is unsafe, or the archive is too large or cannot be read.
    """
    total = source.stat().st_size
    size = 0
    with archive_errors(source), source.open("rb") as raw:
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


def _tar_members(raw: IO[bytes]) -> Iterator[Member]:
    raw.seek(0)
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            kind: Literal["file", "folder", "other"] = (
                "file" if member.isfile() else "folder" if member.isdir() else "other"
            )
            yield Member(member.name, member.size, kind, partial(_extract, tar, member))
        # A truncated or damaged header ends the loop just like the end marker, so check for the marker. Then read to
        # the end, because the checksum of the compressed stream follows it.
        stream = cast(IO[bytes], tar.fileobj)
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end marker")
        while stream.read(_MEGABYTE):
            pass


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile(member))  # None only for members that are not files


def _zip_members(raw: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            name = member.filename.replace("\\", "/")
            kind: Literal["file", "folder", "other"] = (
                "other" if not plain else "folder" if name.endswith("/") else "file"
            )
            yield Member(name, member.file_size, kind, partial(archive.open, member))


@contextmanager
def archive_errors(source: Path) -> Iterator[None]:
    """Turn the readers' errors about a damaged or encrypted archive into one line."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the system, such as a full disk; those of the decompressors have no errno
        raise InputError(
            f"{source}: is truncated, damaged, encrypted, or not a .tgz, .tar or .zip archive; download it again"
        ) from error
