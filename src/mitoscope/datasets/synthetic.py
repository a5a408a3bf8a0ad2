"""Synthetic H&E fields with known mitotic figures, for trying and testing everything without real data.

Objects are painted as amounts of haematoxylin and eosin, and then converted to light by the Beer-Lambert law,
with the stain vectors of Ruifrok & Johnston, "Quantification of histochemical staining by color deconvolution",
Anal Quant Cytol Histol 23 (2001) 291-299. Mitotic figures have ragged edges and no membrane. The look-alikes around
them are just as dark, but smooth: round, tapered or broken into drops. They differ in shape and edges, not in colour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from mitoscope.datasets.readers import encode_image
from mitoscope.files import write_text

Rng = np.random.Generator
_Floats = NDArray[np.float32]
_Places = NDArray[np.int64]  # (N, 2) row and column

HAEMATOXYLIN = (0.65, 0.70, 0.29)
"""Optical density of haematoxylin in red, green and blue (Ruifrok & Johnston 2001)."""
EOSIN = (0.07, 0.99, 0.11)
"""Optical density of eosin in red, green and blue (Ruifrok & Johnston 2001)."""

_MARGIN = 64  # px painted around the field and then cropped, so that objects can cross the border
_REACH = 48  # px from an object's centre to the edge of the tile it is painted on; below _MARGIN
_JPEG_QUALITY = 89


@dataclass(frozen=True)
class Stain:
    """How one patient's slide was stained and scanned.

    Attributes:
        vectors: (2, 3) optical density of haematoxylin and of eosin in red, green and blue, of unit length.
        strengths: (2,) factors on the amounts of haematoxylin and of eosin.
        background: (3,) red, green and blue of empty glass, 0 to 255.
        chromatin: Contrast of the granules in nuclei; 1 is normal.
        blur: Sigma of the scanner's point spread in pixels.
    """

    vectors: NDArray[np.float64]
    strengths: NDArray[np.float64]
    background: NDArray[np.float64]
    chromatin: float
    blur: float


def draw_stain(rng: Rng) -> Stain:
    """Draw one patient's stain."""
    shift = rng.uniform([(-0.06, -0.05, 0.0), (0.0, -0.15, 0.15)], [(0.06, 0.08, 0.2), (0.08, 0.0, 0.4)])
    vectors = np.array([HAEMATOXYLIN, EOSIN]) + shift
    return Stain(
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        strengths=rng.uniform((0.8, 0.65), (1.15, 1.2)),
        background=rng.uniform(228, 246) + rng.uniform(-5, 5, 3),
        chromatin=rng.uniform(0.7, 1.3),
        blur=rng.uniform(0.7, 1.1),
    )


@dataclass(frozen=True)
class _Tile:
    """The surroundings of one object: views of the stain amounts to paint on, and coordinates relative to the object.

    Shapes are depths in pixels: positive inside, negative outside.
    """

    rng: Rng
    haematoxylin: _Floats
    eosin: _Floats
    grain: _Floats  # noise the size of chromatin granules, standard deviation about 1
    x: _Floats
    y: _Floats

    def draw(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def paint(self, cover: _Floats, haematoxylin: _Floats | float, eosin: _Floats | float) -> None:
        """Set the amounts of stain where `cover` is 1, and blend where it is between 0 and 1."""
        for stain, amount in ((self.haematoxylin, haematoxylin), (self.eosin, eosin)):
            stain += cover * (amount - stain)

    def disc(self, size: float, x: float, y: float) -> _Floats:
        depth: _Floats = size / 2 - np.hypot(self.x - x, self.y - y)
        return depth

    def blob(self, length: float, width: float, rough: float = 0.06, y: float = 0) -> _Floats:
        """An ellipse at (0, y) whose outline varies by the fraction `rough`."""
        along, across = self.x * (2 / length), (self.y - y) * (2 / width)
        angle = np.arctan2(across, along)
        swell = sum(np.cos(k * angle + self.draw(0, 2 * pi)) / k for k in (2, 3, 5))
        depth: _Floats = (1 + rough * swell - np.hypot(along, across)) * (min(length, width) / 2)
        return depth

    def bar(self, length: float, width: float, bend: float, y: float = 0) -> _Floats:
        """A blunt bar along x at `y` whose ends are bent sideways by `bend` px."""
        across = self.y - y - bend * (self.x * (2 / length)) ** 2
        beyond = np.maximum(np.abs(self.x) - (length - width) / 2, 0)
        depth: _Floats = width / 2 - np.hypot(beyond, across).astype(np.float32)
        return depth

    def spindle(self, length: float, width: float, bend: float) -> _Floats:
        """A lens along x with tapered ends that are bent sideways by `bend` px."""
        along = (self.x * (2 / length)) ** 2
        return (1 - along) * (width / 2) - np.abs(self.y - bend * along)

    def dark(self, depth: _Floats, texture: float) -> None:
        """Paint dark chromatin with a smooth edge: a look-alike."""
        self.paint(_cover(depth), self.darkness() + texture * self.grain, 0.3)

    def chromosomes(self, *depths: _Floats) -> None:
        """Paint condensed chromosomes, whose arms make the edge ragged: a mitotic figure."""
        darkness, ragged = self.darkness(), self.draw(1.5, 2.3)
        for depth in depths:
            self.paint(_cover(depth + ragged * self.grain, 2), darkness + 0.12 * self.grain, 0.3)

    def darkness(self) -> float:
        """Amount of haematoxylin in a dark object, the same for mitotic figures and look-alikes."""
        return self.draw(0.85, 1.45)

    def clear(self, depth: _Floats) -> None:
        """Clear the cytoplasm of a rounded cell to a random degree."""
        self.paint(self.draw(0.45, 0.95) * _cover(depth, 5), 0.04, 0.15 + 0.05 * self.grain)


def _cover(depth: _Floats, softness: float = 1.5) -> _Floats:
    """Return the fraction of each pixel inside a shape whose edge is `softness` px wide."""
    cover: _Floats = np.clip(depth / softness + 0.5, 0, 1)
    return cover


# Ordinary tissue


def _hole(tile: _Tile) -> None:
    length = tile.draw(18, 64)
    tile.paint(_cover(tile.blob(length, length * tile.draw(0.5, 1), 0.15)), 0, 0)


def _fibroblast(tile: _Tile) -> None:
    depth = tile.spindle(tile.draw(30, 60), tile.draw(6, 12), tile.draw(-4, 4))
    tile.paint(_cover(depth), tile.draw(0.35, 0.7) + 0.1 * tile.grain, 0.4)


def _epithelial(tile: _Tile) -> None:
    length = tile.draw(28, 48)
    depth = tile.blob(length, length * tile.draw(0.6, 0.95), 0.12)
    membrane = tile.draw(0.15, 0.45) * np.exp(-(((depth - 1.5) / 1.5) ** 2))
    tile.paint(_cover(depth), tile.draw(0.18, 0.5) + 0.13 * tile.grain + membrane, 0.22)
    for _ in range(tile.rng.integers(3)):
        x, y = tile.rng.uniform(-0.2, 0.2, 2) * length
        tile.paint(_cover(tile.disc(tile.draw(5, 8), x, y)), tile.draw(0.6, 0.9), 0.5)


# Look-alikes


def _pyknotic(tile: _Tile) -> None:
    size = tile.draw(15, 22)
    tile.paint(tile.draw(0, 0.9) * _cover(tile.blob(size + 14, size + 12), 4), 0.02, 0.1)
    tile.paint(0.8 * _cover(tile.blob(size + 8, size + 6), 3), 0.1, tile.draw(0.4, 0.8))
    tile.dark(tile.blob(size, size * tile.draw(0.8, 1)), 0.03)


def _apoptotic(tile: _Tile) -> None:
    cell = tile.draw(28, 40)
    tile.paint(tile.draw(0, 0.9) * _cover(tile.blob(cell + 8, cell + 8), 4), 0.02, 0.1)
    tile.paint(0.8 * _cover(tile.blob(cell, cell * 0.9), 3), 0.1, tile.draw(0.4, 0.8) + 0.04 * tile.grain)
    for _ in range(tile.rng.integers(2, 6)):
        tile.dark(tile.disc(tile.draw(7, 15), *tile.rng.uniform(-0.22, 0.22, 2) * cell), 0.03)


def _lymphocyte(tile: _Tile) -> None:
    size = tile.draw(23, 28)
    tile.paint(0.5 * _cover(tile.blob(size + 6, size + 6), 2), 0.05, 0.2)
    tile.dark(tile.blob(size, size * tile.draw(0.85, 1)), 0.2)


def _hyperchromatic(tile: _Tile) -> None:
    length = tile.draw(28, 44)
    tile.dark(tile.blob(length, length * tile.draw(0.55, 0.85), 0.1), 0.16)


def _tangential(tile: _Tile) -> None:
    tile.paint(tile.draw(0, 0.65) * _cover(tile.blob(52, 34), 5), 0.04, 0.15)
    tile.dark(tile.spindle(tile.draw(36, 58), tile.draw(12, 18), tile.draw(-4, 4)), 0.08)


# Mitotic figures


def _prometaphase(tile: _Tile) -> None:
    size = tile.draw(24, 34)
    tile.clear(tile.blob(size + 24, size + 20))
    tile.chromosomes(tile.blob(size, size * tile.draw(0.65, 0.95), 0.35))


def _metaphase(tile: _Tile) -> None:
    length = tile.draw(30, 40)
    tile.clear(tile.blob(length + 16, length + 14))
    tile.chromosomes(tile.bar(length, tile.draw(10, 14), tile.draw(-2, 2)))


def _polar_metaphase(tile: _Tile) -> None:
    """A metaphase plate seen from a pole, which looks like a ring."""
    size = tile.draw(26, 34)
    tile.clear(tile.blob(size + 20, size + 18))
    outer = tile.blob(size, size * tile.draw(0.85, 1), 0.15)
    tile.chromosomes(np.minimum(outer, tile.draw(8, 10) - outer))


def _anaphase(tile: _Tile) -> None:
    apart, length = tile.draw(14, 25), tile.draw(24, 34)
    tile.clear(tile.blob(length + 16, apart + 32))
    tile.chromosomes(*_sisters(tile, apart, length))


def _telophase(tile: _Tile) -> None:
    """Two daughter cells; the waist between their cleared discs is the cleavage furrow."""
    apart, length = tile.draw(28, 38), tile.draw(20, 28)
    tile.clear(np.maximum(*(tile.blob(length + 12, 30, y=side * apart * 0.55) for side in (-1, 1))))
    tile.chromosomes(*_sisters(tile, apart, length))


def _sisters(tile: _Tile, apart: float, length: float) -> list[_Floats]:
    """Two sets of chromosomes whose arms trail towards each other."""
    width = tile.draw(8, 11)
    return [tile.bar(length, width, -3 * side, side * apart / 2) for side in (-1, 1)]


_LOOK_ALIKES = (_pyknotic, _apoptotic, _lymphocyte, _hyperchromatic, _tangential)
_MITOSES = (_prometaphase, _metaphase, _polar_metaphase, _anaphase, _telophase)
_MITOSIS_SHARES = (0.27, 0.37, 0.09, 0.18, 0.09)  # the early phases last longer


class _Slide:
    """The amounts of the two stains in a field and a margin around it."""

    def __init__(self, rng: Rng, size: int, chromatin: float) -> None:
        self.rng = rng
        self.size = size
        self.taken: list[tuple[int, int, int]] = []  # row, column and radius
        self.grain = chromatin * self.noise(4.5)
        nests = self.noise(300) + 0.15 * self.noise(40)
        self.epithelium = nests > np.quantile(nests, rng.uniform(0.2, 0.4))
        fibres, self.angles = self.fibres()
        self.haematoxylin = 0.05 + 0.02 * self.noise(8)
        self.eosin = 0.45 + 0.09 * fibres + 0.08 * self.noise(80) + 0.03 * self.noise(4)
        self.empty(_cover(-1.7 - fibres, 0.5))

    def noise(self, scale: float) -> _Floats:
        """Return (size, size) noise of mean 0 and standard deviation 1 whose bumps are about `scale` px wide."""
        step = max(1, int(scale // 4))  # wide bumps can be drawn at low resolution
        few = -(-self.size // step) + 8
        noise = cv2.GaussianBlur(self.rng.standard_normal((few, few), np.float32), (0, 0), scale / step / 2)
        noise = (noise - noise.mean()) / noise.std()
        large: _Floats = cv2.resize(noise, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        return large[: self.size, : self.size]

    def fibres(self) -> tuple[_Floats, _Floats]:
        """Return (size, size) noise stretched along wavy fibres, and the direction of the fibres in radians."""
        x, y = np.meshgrid(*[np.arange(self.size, dtype=np.float32)] * 2)
        turn = self.rng.uniform(0, pi)
        along, across = x * cos(turn) + y * sin(turn), y * cos(turn) - x * sin(turn)
        across += 40 * self.noise(240) + 5 * self.noise(60)
        drawn_out = cv2.remap(self.noise(5), 0.08 * along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        down, right = np.gradient(across)
        return drawn_out.astype(np.float32), np.arctan2(-right, down).astype(np.float32)

    def place(self, count: float, radius: int, allowed: NDArray[np.bool_], margin: int = _REACH) -> _Places:
        """Choose up to `count` places where `allowed` is true, whose circles of `radius` px overlap no others."""
        free = allowed.astype(np.uint8)
        for row, col, other in self.taken:
            cv2.circle(free, (col, row), radius + other, 0, cv2.FILLED)
        found: list[tuple[int, int]] = []
        for row, col in self.rng.integers(margin, self.size - margin, (40 * round(count), 2)).tolist():
            if free[row, col] and len(found) < round(count):
                cv2.circle(free, (col, row), 2 * radius, 0, cv2.FILLED)
                found.append((row, col))
        self.taken += [(row, col, radius) for row, col in found]
        return np.array(found, np.int64).reshape(-1, 2)

    def empty(self, cover: _Floats) -> None:
        """Make the field empty glass where `cover` is 1."""
        self.haematoxylin *= 1 - cover
        self.eosin *= 1 - cover

    def fill_cells(self, nuclei: _Places) -> None:
        """Divide the epithelium into one cell around each nucleus, with borders and clefts between them."""
        seeds = np.ones((self.size, self.size), np.uint8)
        seeds[tuple(nuclei.T)] = 0
        _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        edges = (cells != np.roll(cells, 1, 0)) | (cells != np.roll(cells, 1, 1))
        borders = 3 * cv2.GaussianBlur(edges.astype(np.float32), (0, 0), 1.3)
        tones = self.rng.uniform(0.2, 0.4, cells.max() + 1).astype(np.float32)
        texture = 0.05 * self.noise(3) + 0.04 * self.noise(7)
        inside = cv2.GaussianBlur(self.epithelium.astype(np.float32), (0, 0), 2)
        self.haematoxylin += inside * (0.1 + texture - self.haematoxylin)
        self.eosin += inside * (tones[cells] + texture + 0.08 * borders - self.eosin)
        self.empty(0.8 * inside * np.clip(borders * (self.noise(30) - 0.5), 0, 1))

    def paint(self, painter: Callable[[_Tile], None], row: int, col: int, angle: float | None = None) -> None:
        """Paint one object, rotated by `angle` in radians, or by a random angle."""
        window = slice(row - _REACH, row + _REACH + 1), slice(col - _REACH, col + _REACH + 1)
        stains = self.haematoxylin[window], self.eosin[window], self.grain[window]
        y, x = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].astype(np.float32)
        angle = self.rng.uniform(0, 2 * pi) if angle is None else angle
        painter(_Tile(self.rng, *stains, x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)))

    def scan(self, stain: Stain) -> NDArray[np.uint8]:
        """Convert the amounts of stain to light: (size, size, 3) RGB."""
        amounts = np.maximum(np.stack([self.haematoxylin, self.eosin], axis=2), 0)
        density = amounts @ (stain.strengths[:, None] * stain.vectors).astype(np.float32)
        light = stain.background.astype(np.float32) * np.exp(-np.float32(np.log(10)) * density)
        light = cv2.GaussianBlur(light, (0, 0), stain.blur)
        light += (0.7 + 0.12 * np.sqrt(light)) * self.rng.standard_normal(light.shape, np.float32)
        image: NDArray[np.uint8] = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        return image


def render_field(
    rng: Rng, stain: Stain, size: int, mitoses: int, look_alikes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render one field at 0.25 um per pixel.

    Args:
        rng: Random generator that determines the field.
        stain: The patient's stain.
        size: Height and width in pixels.
        mitoses: Number of mitotic figures, at least 60 px apart; fewer if there is no room.
        look_alikes: Number of other objects that are as dark as a mitotic figure.

    Returns:
        The image, (size, size, 3) RGB, and the centres of the mitotic figures, (N, 2) row and column in pixels.
    """
    whole = size + 2 * _MARGIN
    painted = whole - 2 * _REACH  # objects are also placed slightly outside the field
    megapixels = painted**2 / 1e6
    slide = _Slide(rng, whole, stain.chromatin)
    nests, anywhere = slide.epithelium, np.ones_like(slide.epithelium)
    centres = slide.place(mitoses, 31, nests, _MARGIN + 8)
    holes = slide.place(rng.uniform(4, 14) * megapixels, 30, anywhere)
    look_alikes_at = slide.place(look_alikes * (painted / size) ** 2, 23, anywhere)
    nuclei = slide.place(rng.uniform(320, 560) * megapixels, 19, nests)
    fibroblasts = slide.place(rng.uniform(60, 180) * megapixels, 14, ~nests)

    slide.fill_cells(np.vstack([centres, look_alikes_at, nuclei]))
    for row, col in holes:
        slide.paint(_hole, row, col)
    for row, col in fibroblasts:
        slide.paint(_fibroblast, row, col, slide.angles[row, col])
    for row, col in nuclei:
        slide.paint(_epithelial, row, col)
    for row, col in look_alikes_at:
        slide.paint(_LOOK_ALIKES[rng.integers(len(_LOOK_ALIKES))], row, col)
    for row, col in centres:
        slide.paint(_MITOSES[rng.choice(len(_MITOSES), p=_MITOSIS_SHARES)], row, col)
    return slide.scan(stain)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN], centres - _MARGIN


def synthesize(
    out: Path,
    *,
    seed: int = 0,
    patients: int = 12,
    fields_per_patient: int = 2,
    size: int = 1000,
    on_field: Callable[[str], None] = lambda name: None,
) -> None:
    """Write a synthetic dataset: `PP_FF.jpg`, `PP_FF.csv` for fields with mitoses, and `dataset.yaml`.

    A field depends only on the seed, its patient and field number, and `size`. The second field of the patients 02, 08,
    14 and so on has no mitosis, and therefore no CSV.

    Args:
        out: An existing empty folder.
        seed: Seed that determines the whole dataset.
        patients: Number of patients.
        fields_per_patient: Number of fields per patient.
        size: Height and width of a field in pixels.
        on_field: Called with the name of each field, such as `01_02`, after it is written.
    """
    megapixels = size**2 / 1e6
    for patient, patient_rng in enumerate(np.random.default_rng(seed).spawn(patients), start=1):
        stain, usual_mitoses = draw_stain(patient_rng), patient_rng.uniform(5, 20)
        for field, rng in enumerate(patient_rng.spawn(fields_per_patient), start=1):
            name = f"{patient:02d}_{field:02d}"
            quiet = patient % 6 == 2 and field == 2
            mitoses = 0 if quiet else max(1, rng.poisson(usual_mitoses * megapixels))
            image, centres = render_field(rng, stain, size, mitoses, round(rng.integers(42, 60) * megapixels))
            (out / f"{name}.jpg").write_bytes(encode_image(image, ".jpg", quality=_JPEG_QUALITY))
            if len(centres):
                write_text(out / f"{name}.csv", "".join(f"{row},{col}\n" for row, col in centres))
            on_field(name)
    description = {
        "name": f"synthetic H&E fields, seed {seed}",
        "source": "generated by mitoscope; shows no real tissue",
        "licence": "CC0-1.0",
        "microns_per_pixel": 0.25,
        "annotation_order": "row,col",
        "synthetic": True,
    }
    write_text(out / "dataset.yaml", yaml.safe_dump(description, sort_keys=False))
