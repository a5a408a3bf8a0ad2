"""Make published centres usable: inside their image, each once, and no look-alike at the place of a mitosis."""

import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres, distance_to_nearest
from mitoscope.datasets.importers import Annotations

# Half of MIDOG's boxes, which are 50 px wide at about 0.25 um: a cell whose centre is this far outside its image is cut
# by the edge.
HALF_BOX_UM = 6.25
_SAME_PLACE_UM = 0.25


def near_image(centres: Centres, shape: tuple[int, int], microns_per_pixel: float) -> npt.NDArray[np.bool_]:
    """Return which of (N, 2) row, col lie in an image of `shape` (rows, columns), or up to half a box outside; (N,)."""
    last, margin = np.array(shape) - 1.0, HALF_BOX_UM / microns_per_pixel
    return np.asarray(((centres >= -margin) & (centres <= last + margin)).all(axis=1), dtype=np.bool_)


class Tidy:
    """Tidies the annotations of one image after the other, and counts what it has changed.

    Attributes:
        mitoses: number of mitoses returned so far.
        lookalikes: number of look-alikes returned so far.
    """

    def __init__(self) -> None:
        self.mitoses = self.lookalikes = 0
        self._moved = self._outside = self._repeated = self._contradicted = self._kept = self._replaced = 0

    def tidy(
        self, found: Annotations, shape: tuple[int, int], microns_per_pixel: float, earlier: Centres
    ) -> Annotations:
        """Return the annotations of an image as they can be written.

        Args:
            found: its annotations, with centres anywhere.
            shape: rows and columns of the image.
            microns_per_pixel: um per pixel of the image.
            earlier: (N, 2) look-alikes that the image had; those with no annotation within half a box are kept.
        """
        mitoses = self._inside(found.mitoses, shape, microns_per_pixel)
        lookalikes = self._inside(found.lookalikes, shape, microns_per_pixel)
        same_place = _SAME_PLACE_UM / microns_per_pixel
        contradicted = distance_to_nearest(lookalikes, mitoses) < same_place  # NaN is not
        self._contradicted += int(contradicted.sum())
        lookalikes = lookalikes[~contradicted]
        near = HALF_BOX_UM / microns_per_pixel
        replaced = distance_to_nearest(earlier, np.concatenate([mitoses, lookalikes])) <= near  # NaN is not
        self._replaced += int(replaced.sum())
        self._kept += int((~replaced).sum())
        lookalikes = np.concatenate([earlier[~replaced], lookalikes])
        self.mitoses += len(mitoses)
        self.lookalikes += len(lookalikes)
        return Annotations(mitoses, lookalikes)

    def notes(self) -> tuple[str, ...]:
        """Return one line for each kind of change."""
        lines = {
            f"centres outside their image: {self._moved} moved to its edge, {self._outside} more than {HALF_BOX_UM:g} "
            "um away left out": self._moved + self._outside,
            f"centres given again: {self._repeated} left out": self._repeated,
            f"look-alikes at the place of a mitosis: {self._contradicted} left out": self._contradicted,
            f"earlier look-alikes: {self._kept} kept, {self._replaced} replaced by a new mitosis or look-alike within "
            f"{HALF_BOX_UM:g} um": self._kept + self._replaced,
        }
        return tuple(line for line, count in lines.items() if count)

    def _inside(self, centres: Centres, shape: tuple[int, int], microns_per_pixel: float) -> Centres:
        """Return the centres in or near the image, moved into it, each once."""
        last = np.array(shape) - 1.0
        outside = ~np.asarray(((centres >= 0) & (centres < shape)).all(axis=1))  # also what is not a number
        near = near_image(centres, shape, microns_per_pixel)
        self._moved += int((outside & near).sum())
        self._outside += int((outside & ~near).sum())
        moved = np.where(outside[:, None], np.clip(centres, 0, last), centres)[near]
        distinct = np.array(list(dict.fromkeys(map(tuple, moved.tolist()))), dtype=np.float64).reshape(-1, 2)
        self._repeated += len(moved) - len(distinct)
        return distinct
