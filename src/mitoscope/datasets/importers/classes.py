"""The names that people give to mitoses and to look-alikes."""

import re
from dataclasses import dataclass
from typing import Literal

from mitoscope.errors import InputError

MITOSIS_NAMES = ("Mitosis", "Mitose", "Mitotic figure", "Mitotic cell", "Mitotic", "MF")
LOOKALIKE_NAMES = (
    *("Non-mitotic figure", "Not mitotic figure", "Non-mitotic cell", "Non-mitotic", "Not mitotic", "Nonmitotic"),
    *("Non-mitosis", "No mitosis", "Not mitosis", "Non-MF"),
    *("Hard negative", "Hard negative imposter", "Hard negative look-alike", "Imposter", "Impostor"),
    *("Look-alike", "Mitotic figure look-alike", "Mitosis look-alike", "Mitotic look-alike"),
    *("Mitotic-like figure", "Mitotic-like", "Mitosis-like", "Mitosis-like figure", "Mitosis-like cell", "Mimic"),
    *("Mitotic figure imposter", "Mitotic figure mimic", "Mitosis mimic"),
)

# A place without annotation in a list of `mitoscope suspects`; left out until somebody calls it otherwise.
SUSPECT = "mitoscope suspect"

Kind = Literal["mitosis", "lookalike"]

_SINGULAR = {"mitoses": "mitosis", "mitosen": "mitosis", "mitose": "mitosis"}


@dataclass(frozen=True)
class Classes:
    """The classes of an annotation file that are taken; annotations of all others are left out.

    Attributes:
        mitosis: names of the mitoses' classes.
        lookalike: names of the look-alikes' classes.

    Raises:
        InputError: one name is given for both.
    """

    mitosis: tuple[str, ...] = MITOSIS_NAMES
    lookalike: tuple[str, ...] = LOOKALIKE_NAMES

    def __post_init__(self) -> None:
        if self.mitosis != MITOSIS_NAMES and self.lookalike != LOOKALIKE_NAMES:
            both = {_key(name) for name in self.mitosis} & {_key(name) for name in self.lookalike}
            if name := next((name for name in self.mitosis if _key(name) in both), None):
                raise InputError(f"class {name!r}: is given for the mitoses and for the look-alikes; keep one of them")

    def kind(self, name: str) -> Kind | None:
        """Return whether a class is one of mitoses or of look-alikes; None = neither.

        Upper and lower case, singular and plural, and spaces, `-` and `_` do not matter. Other signs do: `Mitosis?` is
        another class than `Mitosis`.
        """
        key = _key(name)
        if not key:
            return None
        mitosis = key in {_key(name) for name in self.mitosis}
        lookalike = key in {_key(name) for name in self.lookalike}
        if mitosis and lookalike:  # one of them is the default, and what the user names takes precedence
            return "lookalike" if self.mitosis == MITOSIS_NAMES else "mitosis"
        return "mitosis" if mitosis else "lookalike" if lookalike else None


def _key(name: str) -> str:
    """Return a name without what does not matter."""
    words = re.split(r"[\s_-]+", name.casefold().strip())
    return "".join(
        _SINGULAR.get(word) or (word if word.endswith(("is", "ss")) else word.removesuffix("s")) for word in words
    )
