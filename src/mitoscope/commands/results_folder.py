"""The folder that `mitoscope detect` writes into: its summary.csv and model.json are true of all results in it."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mitoscope.errors import InputError
from mitoscope.files import read_json, write_json
from mitoscope.reporting.exports import FieldCount, read_counts, write_summary

_CENTRES = "_mitoses.csv"
_ENDINGS = ("_mitoses.geojson", "_mitoses.json", "_overlay.jpg", "_overlay.png", _CENTRES)
_REMEDY = "use another --out, or remove them with --replace"
_OTHER = "use another --out"


class ResultsFolder:
    """Results of one model. Further calls add to them, if the model is the same.

    Args:
        out: the folder; it appears with the first result.
        names: the fields of this call; their earlier results are replaced.
        evidence: what model.json says: `model` is the name as the user gave it, all else must be equal.
        replace: remove all earlier results.

    Raises:
        InputError: `out` has results of another model that would stay.
    """

    def __init__(self, out: Path, names: Iterable[str], evidence: dict[str, Any], *, replace: bool) -> None:
        self.out = out
        self._evidence = evidence
        self._begun = False
        self._rows: dict[str, FieldCount] = {}
        self._clear = True
        found = self._found()
        if not found:
            self._check_others()
        if not found or replace:
            return
        if differing := self._differing():
            if found <= set(names):  # all of it will be made again
                return
            raise InputError(f"--out {out}: has results of {differing}; {_REMEDY}")
        self._clear = False
        if self._summary.exists():
            try:
                self._rows = {row.name: row for row in read_counts(self._summary) if row.name in found}
            except InputError as error:
                raise InputError(f"{error}; {_REMEDY}") from error

    @property
    def unknown(self) -> list[str]:
        """The fields whose files are there, but not in the summary: those that a killed process was writing."""
        return [] if self._clear else sorted(self._found() - self._rows.keys())

    def has(self, name: str) -> bool:
        """Whether there are results of this field that stay."""
        return name in self._rows

    @contextmanager
    def field(self, name: str) -> Iterator[None]:
        """Write all files of a field in this block, and end it with `add`; if that fails, nothing of the field stays.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        try:
            self._begin()
            self._remove(name)
            yield
        except BaseException as error:  # Ctrl-C too
            with suppress(OSError):
                self._remove(name)
            if isinstance(error, OSError) and error.errno is not None:  # which names a hidden file
                raise OSError(error.errno, error.strerror, str(self.out)) from error
            raise

    def add(self, count: FieldCount) -> None:
        """Add a field to the summary."""
        self._rows[count.name] = count
        write_summary(self._summary, list(self._rows.values()))

    @property
    def _summary(self) -> Path:
        return self.out / "summary.csv"

    @property
    def _model(self) -> Path:
        return self.out / "model.json"

    def _differing(self) -> str:
        """Say whose the results in the folder are, if not this model's; empty if they are."""
        if not self._model.exists():
            return "an unknown model"
        old, new = read_json(self._model, _REMEDY), json.loads(json.dumps(self._evidence))
        if all(old.get(key) == new.get(key) for key in (old.keys() | new.keys()) - {"model"}):
            return ""
        return f"another model, {old.get('model')}"

    def _check_others(self) -> None:
        """Check that no file of somebody else would be replaced.

        Raises:
            InputError: there is one.
        """
        if self._summary.exists():
            read_counts(self._summary)
        if self._model.exists() and "threshold" not in read_json(self._model, _OTHER):
            raise InputError(f"{self._model}: is no file of `mitoscope detect`; {_OTHER}")

    def _begin(self) -> None:
        """Before the first result: remove those of earlier calls that do not stay, and say which model it is."""
        if self._begun:
            return
        if self._clear:
            for name in self._found():
                self._unlink(name)
            self._summary.unlink(missing_ok=True)
        write_json(self._model, self._evidence)
        self._begun = True

    def _remove(self, name: str) -> None:
        """Remove what is there of a field."""
        self._unlink(name)
        if self._rows.pop(name, None):
            self._summary.unlink(missing_ok=True)  # first, so that a full disk leaves none that is not true
            if self._rows:
                write_summary(self._summary, list(self._rows.values()))

    def _found(self) -> set[str]:
        """Return the fields with results in the folder."""
        if not self.out.is_dir():
            return set()
        return {path.name.removesuffix(_CENTRES) for path in self.out.iterdir() if path.name.endswith(_CENTRES)}

    def _unlink(self, name: str) -> None:
        for ending in _ENDINGS:
            (self.out / f"{name}{ending}").unlink(missing_ok=True)


def check_out(out: Path, images: Iterable[Path]) -> None:
    """Check before any work that results can be written.

    Raises:
        InputError: `out` is a file, cannot be written to, or is the folder of an image.
    """
    if blocking := next((place for place in (out, *out.parents) if place.exists() and not place.is_dir()), None):
        raise InputError(f"--out {out}: {blocking} is a file, not a folder; choose another folder")
    if image := next((path for path in images if path.absolute().parent.resolve() == out.resolve()), None):
        raise InputError(
            f"--out {out}: is the folder of {image.name!r}; choose another, so that fields and results part"
        )
    place = next(place for place in (out, *out.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise InputError(
            f"--out {out}: {place} cannot be written to ({error.strerror}); choose another folder"
        ) from error
