"""What Python computes, as files for the tests of the page in web/tests/python.test.ts."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mitoscope.datasets.readers import read_picture
from mitoscope.datasets.synthetic import synthesize
from mitoscope.detection.calibration import Calibration
from mitoscope.detection.field_head import FieldHead
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import suppress
from mitoscope.histology.blue_ratio import find_candidates
from mitoscope.histology.stain import normalise
from mitoscope.histology.windows import FieldWindows, resize, window_size
from mitoscope.learning.scoring import cut_views
from mitoscope.params import CalibrationSettings, FieldHeadSettings


def write_cases(folder: Path, raw: Path) -> None:
    """Write cases.json and the files that it names."""
    field = read_picture(raw / "01_01.jpg").pixels
    Image.fromarray(field).save(folder / "field.png")
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (121, 173, 3)).astype(np.uint8), (0, 0), 1.2)
    Image.fromarray(noise).save(folder / "noise.png")
    cases = {
        "resized": [_resized(folder, noise, scale) for scale in (0.25, 0.37, 0.5, 0.61, 0.983, 1.3, 2.0)],
        "candidates": [
            {
                "scale": scale,
                "count": count,
                "sigma": sigma,
                "window": window,
                "points": find_candidates(field, None, scale=scale, count=count, sigma=sigma, window=window).tolist(),
            }
            for scale, count, sigma, window in ((0.5, 1000, 2.0, 11), (0.4912, 40, 1.0, 7), (1.0, 300, 4.3, 23))
        ],
        "patches": _patches(folder, noise),
        "stained": [_stained(folder, field, method) for method in ("macenko", "reinhard")],
        **_scores(rng),
        "files": _files(folder, field),
    }
    (folder / "cases.json").write_text(json.dumps(cases))


def _save(folder: Path, name: str, array: Any) -> dict[str, Any]:
    (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())
    return {"name": name, "height": array.shape[0], "width": array.shape[1]}


def _resized(folder: Path, image: Any, scale: float) -> dict[str, Any]:
    return {"scale": scale, **_save(folder, f"resized-{scale}.bin", resize(image, scale))}


def _patches(folder: Path, image: Any) -> dict[str, Any]:
    points = np.array([[60.2, 80.7], [3.0, 4.5], [119.6, 171.9], [0.0, 0.0], [40.5, 100.5]])
    windows = torch.from_numpy(FieldWindows(image, points, window_size(33)).cut()).permute(0, 3, 1, 2)
    content = torch.stack([view.contiguous() for view in cut_views(windows, 33, 8)]).numpy()
    (folder / "patches.bin").write_bytes(content.tobytes())
    return {"size": 33, "points": points.tolist(), "name": "patches.bin"}


def _stained(folder: Path, image: Any, method: Any) -> dict[str, Any]:
    result, changed = normalise(image, method)
    assert changed
    return {"method": method, **_save(folder, f"{method}.bin", result)}


def _scores(rng: np.random.Generator) -> dict[str, Any]:
    features = rng.normal(size=(50, 7)).astype(np.float32)
    mean, variance, weights = (rng.random(7).astype(np.float32) for _ in range(3))
    head = FieldHead(FieldHeadSettings(prior_candidates=20), mean, variance, weights, -0.3)
    probabilities = head.probabilities(features)
    settings = CalibrationSettings(percentiles=(50, 90), prior_candidates=30)
    points = rng.random((50, 2)) * 40
    return {
        "head": {
            "features": features.tolist(),
            "head": {name: np.asarray(value).tolist() for name, value in head.content().items()},
            "prior": 20,
            "probabilities": probabilities.tolist(),
        },
        "calibration": {
            "middle": -1.2,
            "upper": 2.1,
            "percentiles": [50, 90],
            "priorCandidates": 30,
            "probabilities": Calibration(settings, -1.2, 2.1).apply(probabilities).tolist(),
        },
        "suppression": {
            "points": points.tolist(),
            "radius": 5.0,
            "kept": suppress(points, probabilities, 5.0).tolist(),
        },
    }


def _files(folder: Path, image: Any) -> list[dict[str, Any]]:
    """Write image files of all kinds that the page decodes itself; what is expected is what Python reads."""
    small = image[:150, :200]
    alpha = np.full(small.shape[:2], 255, np.uint8)
    alpha[:40, :60] = 0
    rgba = np.dstack([small, alpha])
    resolution = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(folder / "plain.tif", small, photometric="rgb", **resolution)
    for name, compression in (("lzw", "lzw"), ("deflate", "zlib"), ("packbits", "packbits"), ("zstd", "zstd")):
        tifffile.imwrite(folder / f"{name}.tif", small, photometric="rgb", compression=compression)
    tifffile.imwrite(folder / "lzw_full.tif", image, photometric="rgb", compression="lzw")  # all 4096 codes
    tifffile.imwrite(folder / "tiles.tif", small, photometric="rgb", tile=(64, 64), predictor=True, compression="lzw")
    tifffile.imwrite(folder / "planes.tif", small.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(folder / "big.tif", small, photometric="rgb", bigtiff=True, byteorder=">")
    tifffile.imwrite(folder / "alpha.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    description = "Aperio |AppMag = 40|MPP = 0.2456"
    tifffile.imwrite(folder / "aperio.tif", small, photometric="rgb", description=description, metadata=None)
    tifffile.imwrite(
        folder / "ome.ome.tif", small, photometric="rgb", metadata={"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    )
    tifffile.imwrite(
        folder / "imagej.tif", small, imagej=True, resolution=(4.0, 4.0), metadata={"unit": "um", "axes": "YXS"}
    )
    Image.fromarray(small).save(folder / "plain.png", dpi=(101600, 101600))
    Image.fromarray(rgba).save(folder / "alpha.png")
    Image.fromarray(small).quantize(64).save(folder / "palette.png")
    (folder / "interlaced.png").write_bytes(_interlaced(small))
    good = [*folder.glob("*.tif"), *(folder / f"{name}.png" for name in ("plain", "alpha", "palette", "interlaced"))]
    found = []
    for path in sorted(good):
        picture = read_picture(path)
        pixels = path.with_suffix(".bin")
        entry = _save(folder, pixels.name, picture.pixels)
        opaque = None if picture.opaque is None else int(picture.opaque.sum())
        entry |= {"opaque": opaque, "microns": picture.microns_per_pixel}
        found.append({**entry, "file": path.name})
    return found + _bad_files(folder, small)


def _interlaced(image: Any) -> bytes:
    """Encode an image as PNG in seven passes (Adam7), which Pillow reads and does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    lines = b"".join(b"\0" + line.tobytes() for y, x, down, right in passes for line in image[y::down, x::right])

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def _bad_files(folder: Path, image: Any) -> list[dict[str, Any]]:
    """Write files that Python rejects, and so must the page."""
    tifffile.imwrite(folder / "grey-bad.tif", image[..., 0])
    tifffile.imwrite(folder / "deep-bad.tif", image.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(folder / "pages-bad.tif", np.stack([image, image]), photometric="rgb")
    (folder / "short-bad.tif").write_bytes((folder / "lzw.tif").read_bytes()[:-2000])
    whole = (folder / "lzw_full.tif").read_bytes()
    (folder / "half-bad.tif").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(folder / "ycbcr-bad.tif", image, photometric="ycbcr")
    unknown = np.dstack([image, np.full(image.shape[:2], 100, np.uint8)])
    tifffile.imwrite(folder / "fourth-bad.tif", unknown, photometric="rgb", extrasamples=["unspecified"])
    Image.fromarray(image[..., 0]).save(folder / "grey-bad.bmp")
    jpeg = (folder / "fill-bad.jpg").with_suffix(".tmp")
    Image.fromarray(image[..., 0]).save(jpeg, format="JPEG")
    (folder / "fill-bad.jpg").write_bytes(jpeg.read_bytes().replace(b"\xff\xdb", b"\xff\xff\xdb", 1))
    jpeg.unlink()
    (folder / "short-bad.png").write_bytes((folder / "plain.png").read_bytes()[:-2000])
    Image.fromarray(image[..., 0]).save(folder / "grey-bad.png")
    (folder / "deep-bad.png").write_bytes(imagecodecs.png_encode(image.astype(np.uint16)))
    (folder / "text-bad.png").write_text("nothing")
    frames = [Image.fromarray(image), Image.fromarray(image[::-1])]
    frames[0].save(folder / "frames-bad.png", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[274] = 6  # turned
    Image.fromarray(image).save(folder / "turned-bad.png", exif=exif)
    five = np.dstack([image, image[..., :2]])
    tifffile.imwrite(folder / "channels-bad.tif", five, photometric="rgb", extrasamples=["unspecified"] * 2)
    Image.fromarray(image[..., 0]).save(folder / "grey-bad.jpg")
    found = []
    for path in sorted(folder.glob("*-bad.*")):
        with pytest.raises(InputError) as error:
            read_picture(path)
        found.append({"file": path.name, "bad": True, "damaged": "damaged" in str(error.value)})
    return found


if __name__ == "__main__":
    import sys

    out = Path(sys.argv[1])
    (out / "raw").mkdir(parents=True)
    synthesize(out / "raw", seed=3, patients=4, fields_per_patient=2, size=400)
    write_cases(out, out / "raw")
