"""An archive is unpacked whole and nowhere else, or not at all."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mitoscope.datasets.importers import Target, archives
from mitoscope.datasets.importers.janowczyk import import_janowczyk
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import contents, pack, rejected, tissue

# Archives that are broken


@pytest.mark.parametrize("form", [".tgz", ".tar.xz", ".zip"])
@pytest.mark.parametrize("cut", [-1, -4, -9, -600, 0.5, 100, 1, 0])
def test_a_truncated_archive_is_rejected(tmp_path, source, out, form, cut):
    archive = pack(source, tmp_path / f"archive{form}")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    message = rejected(import_janowczyk, archive, out=out)
    assert message.startswith(f"{archive}: ") and "truncated" in message and "download it again" in message


@pytest.mark.parametrize("beyond", [0, 100, 512, 700])
def test_a_tar_without_its_end_is_rejected_even_between_two_files(tmp_path, source, out, beyond):
    archive = pack(source, tmp_path / "archive.tar")
    with tarfile.open(archive) as file:
        last = file.getmembers()[-1]
    archive.write_bytes(archive.read_bytes()[: last.offset + beyond])
    assert "truncated" in rejected(import_janowczyk, archive, out=out)


def test_a_tar_with_a_damaged_header_is_rejected(tmp_path, source, out):
    archive = pack(source, tmp_path / "archive.tar")
    with tarfile.open(archive) as file:
        last = file.getmembers()[-1]
    content = bytearray(archive.read_bytes())
    content[last.offset] ^= 1
    archive.write_bytes(content)
    assert "damaged" in rejected(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("form", [".tgz", ".tar.xz", ".zip"])
def test_a_flipped_bit_is_noticed(tmp_path, source, out, form):
    """Uncompressed pixels would not show it, the archive's checksums do."""
    archive = pack(source, tmp_path / f"archive{form}")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert "damaged" in rejected(import_janowczyk, archive, out=out)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 100, b"\x1f\x8b", b"PK\x05\x06", encode(".png", tissue(0))]
)
def test_what_is_no_archive_is_rejected(tmp_path, out, content):
    archive = tmp_path / "mitosis.tgz"
    archive.write_bytes(content)
    assert rejected(import_janowczyk, archive, out=out).startswith(f"{archive}: ")


# Unsafe archives


def tar_with(archive: Path, source: Path, **attributes: object) -> Path:
    """A good archive with one more member, which has these attributes."""
    pack(source, archive)
    with tarfile.open(archive, "a") as file:
        member = tarfile.TarInfo()
        member.size = 5
        for name, value in attributes.items():
            setattr(member, name, value)
        file.addfile(member, io.BytesIO(b"hello"))
    return archive


def test_backslashes_in_a_zip_are_folders(tmp_path, source):
    """Old tools on Windows write them."""
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as file:
        file.writestr("mitosis\\", "")
        for path in sorted(source.iterdir()):
            file.writestr(f"mitosis\\{path.name}", path.read_bytes())
    assert import_janowczyk(tmp_path / "archive.zip", Target(tmp_path / "data")).fields == 3
    assert contents(source).items() <= contents(tmp_path / "data").items()


EVIL_NAMES = [
    "../evil.tif",
    "mitosis/../../evil.tif",
    "..",
    "a/..",
    "..\\evil.tif",
    "a\\..\\..\\evil.tif",
    "\\evil.tif",
    "C:\\evil.tif",
    "C:evil.tif",
    "new\nline.tif",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_names_that_lead_elsewhere_are_rejected(tmp_path, source, out, name, form):
    archive = tmp_path / f"archive{form}"
    if form == ".tar":
        tar_with(archive, source, name=name)
    else:
        pack(source, archive)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(name, "hello")
    assert "not safe" in rejected(import_janowczyk, archive, out=out)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("form", [".tar", ".zip"])
def test_absolute_names_are_rejected(tmp_path, source, out, form):
    archive, evil = tmp_path / f"archive{form}", tmp_path / "evil.tif"
    if form == ".tar":
        tar_with(archive, source, name=str(evil))
    else:
        pack(source, archive)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(str(evil), "hello")
    message = rejected(import_janowczyk, archive, out=out)
    assert message.startswith(f"{archive}: ") and str(evil) in message and "not safe" in message
    assert not evil.exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../precious.txt", "mitosis/01_01.tif"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_rejected(tmp_path, source, out, kind, target):
    archive = tar_with(tmp_path / "archive.tar", source, name="03_01.tif", type=kind, linkname=target, size=0)
    assert "03_01.tif is a link or a device" in rejected(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_rejected(tmp_path, source, out, kind):
    archive = tar_with(tmp_path / "archive.tar", source, name="03_01.tif", type=kind, size=0)
    assert "03_01.tif is a link or a device" in rejected(import_janowczyk, archive, out=out)


def test_links_in_a_zip_are_rejected(tmp_path, source, out):
    archive = pack(source, tmp_path / "archive.zip")
    link = zipfile.ZipInfo("03_01.tif")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    assert "03_01.tif is a link or a device" in rejected(import_janowczyk, archive, out=out)


def test_an_encrypted_zip_is_rejected(tmp_path, source, out):
    archive = pack(source, tmp_path / "archive.zip")
    content = bytearray(archive.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 8] |= 1  # the flag in the first file's entry of the directory
    archive.write_bytes(content)
    assert "encrypted" in rejected(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("form", [".tgz", ".zip"])
def test_too_many_members_are_rejected(tmp_path, source, out, form, monkeypatch):
    archive = pack(source, tmp_path / f"archive{form}")
    members = len(contents(source)) + (form == ".tgz")
    monkeypatch.setattr(archives, "MAX_MEMBERS", members)
    import_janowczyk(archive, Target(tmp_path / "data"))
    monkeypatch.setattr(archives, "MAX_MEMBERS", members - 1)
    assert "more than" in rejected(import_janowczyk, archive, out=out)


@pytest.mark.parametrize("form", [".tgz", ".zip"])
def test_too_many_bytes_are_rejected_before_they_are_written(tmp_path, source, out, form, monkeypatch):
    size = sum(map(len, contents(source).values()))
    archive = pack(source, tmp_path / f"archive{form}")
    monkeypatch.setattr(archives, "MAX_BYTES", size)
    import_janowczyk(archive, Target(tmp_path / "data"))
    monkeypatch.setattr(archives, "MAX_BYTES", size - 1)
    assert "unpacks to more than" in rejected(import_janowczyk, archive, out=out)


def test_a_tar_that_claims_a_terabyte_is_rejected_at_once(tmp_path, source, out):
    archive = tar_with(tmp_path / "archive.tar", source, name="notes.txt")
    with tarfile.open(archive) as file:
        offset = file.getmember("notes.txt").offset
    header = tarfile.TarInfo("notes.txt")
    header.size = 2**40
    content = archive.read_bytes()
    archive.write_bytes(content[:offset] + header.tobuf(tarfile.GNU_FORMAT) + content[offset + 512 :])
    assert "unpacks to more than" in rejected(import_janowczyk, archive, out=out)


def test_the_same_name_in_two_folders_is_rejected(tmp_path, source, out):
    archive = tar_with(tmp_path / "archive.tar", source, name="elsewhere/01_01.csv")
    assert "contains 01_01.csv twice" in rejected(import_janowczyk, archive, out=out)
