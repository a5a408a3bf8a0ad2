"""Make published centres usable: inside their image, each once, and no look-alike at the place of a mitosis."""

import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres, distance_to_nearest
from mitoscope.datasets.importers import Annotations

HALF_BOX = 25.0  # px; MIDOG's boxes are 50 px wide, so the cell of a centre this far outside is cut by the edge
_SAME_PLACE = 1.0  # px


def near_image(centres: Centres, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which of (N, 2) row, col lie in an image of `shape` (rows, columns), or up to half a box outside; (N,)."""
    last = np.array(shape) - 1.0
    return np.asarray(((centres >= -HALF_BOX) & (centres <= last + HALF_BOX)).all(axis=1), dtype=np.bool_)


class Tidy:
    """Tidies the annotations of one image after the other, and counts what it has changed.

    Attributes:
        mitoses: number of mitoses returned so far.
        lookalikes: number of look-alikes returned so far.
    """

    def __init__(self) -> None:
        self.mitoses = self.lookalikes = 0
        self._moved = self._outside = self._repeated = self._contradicted = self._kept = self._replaced = 0

    def tidy(self, found: Annotations, shape: tuple[int, int], earlier: Centres) -> Annotations:
        """Return the annotations of an image as they can be written.

        Args:
            found: its annotations, with centres anywhere.
            shape: rows and columns of the image.
            earlier: (N, 2) look-alikes that the image had; those with no annotation within half a box are kept.
        """
        mitoses = self._inside(found.mitoses, shape)
        lookalikes = self._inside(found.lookalikes, shape)
        contradicted = distance_to_nearest(lookalikes, mitoses) < _SAME_PLACE  # NaN is not
        self._contradicted += int(contradicted.sum())
        lookalikes = lookalikes[~contradicted]
        replaced = distance_to_nearest(earlier, np.concatenate([mitoses, lookalikes])) <= HALF_BOX  # NaN is not
        self._replaced += int(replaced.sum())
        self._kept += int((~replaced).sum())
        lookalikes = np.concatenate([earlier[~replaced], lookalikes])
        self.mitoses += len(mitoses)
        self.lookalikes += len(lookalikes)
        return Annotations(mitoses, lookalikes)

    def notes(self) -> tuple[str, ...]:
        """Return one line for each kind of change."""
        lines = {
            f"centres outside their image: {self._moved} moved to its edge, {self._outside} more than {HALF_BOX:g} px "
            "away left out": self._moved + self._outside,
            f"centres given again: {self._repeated} left out": self._repeated,
            f"look-alikes at the place of a mitosis: {self._contradicted} left out": self._contradicted,
            f"earlier look-alikes: {self._kept} kept, {self._replaced} replaced by a new mitosis or look-alike within "
            f"{HALF_BOX:g} px": self._kept + self._replaced,
        }
        return tuple(line for line, count in lines.items() if count)

    def _inside(self, centres: Centres, shape: tuple[int, int]) -> Centres:
        """Return the centres in or near the image, moved into it, each once."""
        last = np.array(shape) - 1.0
        outside = ~np.asarray(((centres >= 0) & (centres < shape)).all(axis=1))  # also what is not a number
        near = near_image(centres, shape)
        self._moved += int((outside & near).sum())
        self._outside += int((outside & ~near).sum())
        moved = np.where(outside[:, None], np.clip(centres, 0, last), centres)[near]
        distinct = np.array(list(dict.fromkeys(map(tuple, moved.tolist()))), dtype=np.float64).reshape(-1, 2)
        self._repeated += len(moved) - len(distinct)
        return distinct
