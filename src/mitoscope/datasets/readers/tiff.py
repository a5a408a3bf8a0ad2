"""TIFF files, through tifffile and imagecodecs.

These two decode what pathology has (JPEG 2000 and JPEG XL of slide scanners, ZSTD, LZW and many more), say what a page
is, and raise an error where a strip is damaged. OpenCV returned black for all that its libtiff could not decode.
"""

import json
import logging
import math
import re
import struct
from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.readers import jpeg
from mitoscope.datasets.readers.ifd import ORIENTATION, Directory, read_directories
from mitoscope.datasets.readers.pixel_size import from_description
from mitoscope.datasets.readers.stored import NO_IMAGE, SEVERAL, ImageError, Stored, check_size

if TYPE_CHECKING:
    from tifffile import TiffPage  # importing it takes 0.4 s, and only TIFF files need it

KIND = "TIFF"
STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _LENGTH, _DESCRIPTION = 254, 255, 256, 257, 270
_TILE_WIDTH, _DEPTH = 322, 32997
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "RGB", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
_WHITE_IS_ZERO, _PALETTE, _YCBCR = 0, 3, 6
_ALPHA: dict[int, Literal["unknown", "multiplied", "straight"]] = {0: "unknown", 1: "multiplied", 2: "straight"}
_JPEG, _APERIO_YCBCR, _JPEG_2000 = (7, 34892, 33007), 33003, (33003, 33004, 33005, 34712)
_LZW, _REVERSED = 5, 2
_SLACK = 65536  # px; a strip or tile may reach over the edge of its page
# Old JPEG was never defined well. PNG and JPEG XR in TIFF are rare, and their decoders write to the terminal.
_NOT_READ = (6, 34933, 34934, 22610)

# The only setting of the whole process: it hides tifffile's remarks on odd files, which our own line replaces.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def open_image(file: BinaryIO) -> Stored:
    """Read the header of the page that is the field, without its pixels.

    Raises:
        ImageError: the file has several such pages, or a compression that is not known.
        ValueError: the file is truncated or damaged.
    """
    from tifffile import COMPRESSION, PHOTOMETRIC, TIFF, TiffFile

    directories = list(read_directories(file))
    index = _choose_page(directories)
    directory = directories[index]
    width, height = directory.number(_WIDTH), directory.number(_LENGTH)
    check_size(width, height)
    description = directory.content(_DESCRIPTION).rstrip(b"\0").decode("utf-8", "replace")
    file.seek(0)
    page = TiffFile(file, name="").pages[index].aspage()
    if page.compression in _JPEG_2000:
        page.subsampling = (1, 1)  # JPEG 2000 says it itself
    if directory.number(_DEPTH, 1) > 1 or _is_stack(description, page.size):
        raise ImageError(f"is a stack of several images; {SEVERAL}")
    if page.compression in _NOT_READ or page.compression not in TIFF.DECOMPRESSORS:
        name = _name(COMPRESSION, page.compression)
        raise ImageError(f"has the compression {name}, which cannot be read; save it with LZW or without compression")
    colours = _COLOURS.get(page.photometric) or _name(PHOTOMETRIC, page.photometric)
    if page.photometric == _YCBCR:
        converted = page.planarconfig == 1 and not page.extrasamples
        colours = "RGB" if converted and page.compression in (*_JPEG, _APERIO_YCBCR) else "YCbCr"
    depths = page.bitspersample if isinstance(page.bitspersample, tuple) else (page.bitspersample,)
    if page.sampleformat != 1 and max(depths) == 8:
        colours = f"{colours} as signed numbers"
    has_fourth = colours == "RGB" and page.samplesperpixel == 4
    is_palette = page.photometric == _PALETTE and max(depths) <= 8
    return Stored(
        width,
        height,
        colours,
        channels=page.samplesperpixel * 3 if is_palette else page.samplesperpixel,
        bits=8 if is_palette else next((bits for bits in depths if bits != 8), 8),
        alpha=_ALPHA.get((*page.extrasamples, 0)[0], "unknown") if has_fourth else "none",
        orientation=directory.number(ORIENTATION, 1),
        microns_per_pixel=from_description(description, *directory.resolution()) or directory.microns_per_pixel(),
        decode=lambda: _decode(file, page),
    )


def _choose_page(directories: list[Directory]) -> int:
    """Return the index of the page at full resolution; reduced copies, thumbnails and labels are marked as reduced.

    In Aperio's files some are not marked, but the slide comes first and is the only large one.

    Raises:
        ImageError: there is no such page, or there are several.
    """
    full = [index for index, directory in enumerate(directories) if not _is_reduced(directory)]
    if not full and len(directories) == 1:
        full = [0]
    sizes = [(directory.number(_WIDTH), directory.number(_LENGTH)) for directory in directories]
    is_slide = directories and directories[0].content(_DESCRIPTION).startswith(b"Aperio")
    if is_slide and full[:1] == [0] and directories[0].numbers(_TILE_WIDTH):
        width, height = sizes[0]
        full = [index for index in full if not (sizes[index][0] < width and sizes[index][1] < height)]
    if len(full) == 1:
        return full[0]
    if not directories:
        raise ImageError(NO_IMAGE)
    shown = [f"{sizes[index][0]} x {sizes[index][1]}" for index in full or range(len(sizes))]
    listed = " and ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) < 4 else ", ".join((*shown[:3], "..."))
    raise ImageError(f"has {len(shown)} pages of {listed} px; {SEVERAL}")


def _is_reduced(directory: Directory) -> bool:
    return bool(directory.number(_SUBFILE_TYPE) & 1) or directory.number(_OLD_SUBFILE_TYPE) == 2


def _is_stack(description: str, values: int) -> bool:
    """Whether the page is the first image of several that lie in the file without directories of their own."""
    if description.startswith("ImageJ="):
        images = re.search(r"^images=(\d+)", description, re.MULTILINE)
        return images is not None and int(images[1]) > 1
    if description.startswith('{"shape":'):  # tifffile
        try:
            return bool(math.prod(json.loads(description)["shape"]) > values)
        except (ValueError, TypeError, KeyError):
            return False
    return False


def _name(names: Any, value: int) -> str:
    """Return the name of a compression or a colour space; unknown ones have a number only."""
    try:
        return f"{names(value).name} ({int(value)})"
    except ValueError:
        return f"number {value}"


def _decode(file: BinaryIO, page: "TiffPage") -> npt.NDArray[Any]:
    """Decode a page, (H, W) or (H, W, channels).

    Raises:
        ImageError: a strip or tile is missing, outside the file, damaged, or has fewer colours than pixels.
    """
    kind, number = "tile" if page.is_tiled else "strip", math.prod(page.chunked)
    if len(page.dataoffsets) < number or len(page.databytecounts) < number:
        raise ImageError(_damage(kind, min(len(page.dataoffsets), len(page.databytecounts)), number))
    size = file.seek(0, SEEK_END)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:number]
    for index, (offset, length) in enumerate(segments):  # before there is memory for all of them
        if not offset or not length or offset + length > size:
            raise ImageError(_damage(kind, index, number))
    planes, _, height, width, channels = page.shaped
    values = np.empty((planes, height, width, channels), page.dtype)
    for index, (offset, length) in enumerate(segments):
        file.seek(offset)
        content = file.read(length)
        try:
            plane, top, left, block = _decode_segment(page, content, index)
            if block.dtype != values.dtype:
                raise ValueError("values of another kind")
            values[plane, top : top + len(block), left : left + block.shape[1]] = block[: height - top, : width - left]
        except (MemoryError, ImageError):
            raise
        except Exception as error:  # each codec has its own exceptions
            raise ImageError(_damage(kind, index, number)) from error
    image = values[0] if planes == 1 else np.moveaxis(values[..., 0], 0, -1)
    if page.photometric == _PALETTE:
        palette: npt.NDArray[Any] = np.asarray(page.colormap)  # (3, number of colours) uint16
        palette = palette >> 8 if palette.max() > 255 else palette  # some programs write 8-bit values
        image = palette.astype(np.uint8).T[image[..., 0]]
    if page.photometric == _WHITE_IS_ZERO and page.dtype and page.dtype.kind == "u":
        image = (1 << int(page.bitspersample)) - 1 - image
    return image[..., 0] if image.shape[2] == 1 else image


def _decode_segment(page: "TiffPage", content: bytes, index: int) -> tuple[int, int, int, npt.NDArray[Any]]:
    """Decode a strip or tile; return its plane, its first row and column, and its values (h, w, channels).

    Raises:
        Exception: it is damaged.
    """
    pixels = 0
    if page.compression in _JPEG:
        if not jpeg.is_whole(content):
            raise ValueError("no end marker")
        header = jpeg.open_image(BytesIO(content))
        pixels = header.width * header.height
    elif page.compression in _JPEG_2000 and (start := content.find(b"\xff\x4f\xff\x51")) >= 0:
        if not content.rstrip(b"\0").endswith(b"\xff\xd9"):  # the decoder fills up what is missing
            raise ValueError("no end marker")
        right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
        pixels = (right - left) * (bottom - top)
        # Three bytes per channel: its depth, and its sampling along x and y.
        (channels,) = struct.unpack_from(">H", content, start + 40)
        if any(step > 1 for index in range(channels) for step in content[start + 43 + 3 * index :][:2]):
            raise ImageError("is JPEG 2000 with reduced colours, which cannot be read; convert it to 8-bit RGB")
    length, width = page.chunks[:2]
    if pixels > 2 * length * width + _SLACK:  # the decoders would take memory for all of them first
        raise ValueError("of another size")
    block, (plane, _, top, left, _), _ = page.decode(content, index, jpegtables=page.jpegtables)
    if block is None:
        raise ValueError("nothing decoded")
    values: npt.NDArray[Any] = block[0]
    # Changed bits often make LZW longer. The last strip may be as long as the others.
    if page.compression == _LZW and page.bitspersample == 8:
        packed = imagecodecs.bitorder_decode(content) if page.fillorder == _REVERSED else content
        lengths = (values.nbytes, math.prod(page.chunks))
        if len(imagecodecs.lzw_decode(packed, out=max(lengths) + 1)) not in lengths:
            raise ValueError("decodes to more than its pixels")
    if page.compression == _APERIO_YCBCR and not _is_converted(content):
        # JPEG's YCbCr in OpenCV's order of channels: Y, Cr, Cb.
        values = cv2.cvtColor(np.ascontiguousarray(values[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
    return plane, top, left, values


def _is_converted(codestream: bytes) -> bool:
    """Whether a JPEG 2000 codestream (its marker COD) says that decoding it gives RGB."""
    start = codestream.find(b"\xff\x52")
    return start >= 0 and codestream[start + 8 : start + 9] == b"\x01"


def _damage(kind: str, index: int, number: int) -> str:
    return f"the image is truncated or damaged in {kind} {index + 1} of {number}; copy it again from its source"
