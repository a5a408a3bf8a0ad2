"""The folder that `mitoscope detect` writes into: its summary.csv and model.json describe all results in it."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mitoscope.errors import InputError
from mitoscope.files import exclusive, hash_file, read_json, write_json
from mitoscope.reporting.exports import FieldCount, read_counts, write_summary

_CENTRES, _GEOJSON = "_mitoses.csv", "_mitoses.geojson"
_ENDINGS = (_GEOJSON, "_mitoses.json", "_overlay.jpg", "_overlay.png", _CENTRES)
_HASHES = "geojson_sha256"  # entry of model.json: by field, what was written
_REMEDY = "use another --out, or remove them with --replace"
_OTHER = "use another --out"


class ResultsFolder:
    """Results of one model. Further calls add to them, if the model is the same.

    Only files of fields that summary.csv names, and of the fields of this call, are ever removed.

    Args:
        out: the folder; it appears with the first result.
        names: the fields of this call; their earlier results are replaced.
        evidence: what model.json says: `model` is the name as the user gave it, all else must be equal.
        replace: remove all earlier results, also GeoJSON files that were changed after they were written.

    Raises:
        InputError: `out` has results of another model that would stay, or files that `mitoscope detect` has not
            written and would replace.
    """

    def __init__(self, out: Path, names: Iterable[str], evidence: dict[str, Any], *, replace: bool) -> None:
        self.out = out
        self._evidence = evidence
        self._replace = replace
        self._begun = False
        self._rows: dict[str, FieldCount] = {}
        fields = set(names)
        old, rows = self._read(fields)
        self._hashes: dict[str, str] = dict(old.get(_HASHES, {}))
        self._clear = True
        self._leaving = fields | rows.keys()  # if `_clear`, their files are removed before the first result
        found = self._found()
        if not old or replace:
            return
        if not self._is_of(old):
            if found - fields:
                raise InputError(f"--out {out}: has results of another model, {old.get('model')}; {_REMEDY}")
            for name in found:  # all of it will be made again, and none may stay
                self.check(name)
            return
        self._clear = False
        self._rows = {name: row for name, row in rows.items() if name in found}

    @property
    def unknown(self) -> list[str]:
        """The fields whose files are there, but not in the summary, as those that a killed process was writing."""
        return [] if self._clear and not self._begun else sorted(self._found() - self._rows.keys())

    def has(self, name: str) -> bool:
        """Whether there are results of this field that stay."""
        return name in self._rows

    def check(self, name: str) -> None:
        """Check that the results of a field may be replaced.

        Raises:
            InputError: the GeoJSON is not as `mitoscope detect` wrote it, as after a correction.
        """
        path = self.out / f"{name}{_GEOJSON}"
        if not self._replace and path.exists() and hash_file(path) != self._hashes.get(name):
            raise InputError(
                f"{path}: is not as `mitoscope detect` wrote it, perhaps corrected; move it, or remove all results "
                "with --replace"
            )

    @contextmanager
    def field(self, name: str) -> Iterator[None]:
        """Write all files of a field in this block, and end it with `add`; if that fails, nothing of the field stays.

        Raises:
            InputError: as in `check`.
            OSError: the disk is full, or the folder cannot be written to.
        """
        self.check(name)  # again: detection takes its time
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
        self._hashes[count.name] = hash_file(self.out / f"{count.name}{_GEOJSON}")
        self._write_model()
        self._rows[count.name] = count
        write_summary(self._summary, list(self._rows.values()))

    @property
    def _summary(self) -> Path:
        return self.out / "summary.csv"

    @property
    def _model(self) -> Path:
        return self.out / "model.json"

    def _read(self, fields: set[str]) -> tuple[dict[str, Any], dict[str, FieldCount]]:
        """Return model.json, empty if there is none, and the rows of summary.csv by field.

        Raises:
            InputError: one of them, or a file that would be replaced, is not of `mitoscope detect`.
        """
        rows: dict[str, FieldCount] = {}
        if self._summary.exists():
            try:
                rows = {row.name: row for row in read_counts(self._summary)}
            except InputError as error:
                raise InputError(f"{error}; {_OTHER}") from error
        if self._model.exists():
            old = read_json(self._model, _OTHER)
            if "detector_sha256" not in old or not isinstance(old.get(_HASHES, {}), dict):
                raise InputError(f"{self._model}: is no file of `mitoscope detect`; {_OTHER}")
            return old, rows
        if rows or self._found() or any(path.exists() for name in fields for path in self._files(name)):
            raise InputError(f"--out {self.out}: has results of an unknown model, and no model.json; {_OTHER}")
        return {}, {}

    def _is_of(self, old: dict[str, Any]) -> bool:
        """Whether an earlier model.json is of this model and its settings."""
        new = json.loads(json.dumps(self._evidence))
        return all(old.get(key) == new.get(key) for key in (old.keys() | new.keys()) - {"model", _HASHES})

    def _begin(self) -> None:
        """Before the first result: remove those of earlier calls that do not stay, and say which model it is."""
        if self._begun:
            return
        if self._clear:
            self._summary.unlink(missing_ok=True)
            for name in self._leaving:
                self._unlink(name)
            self._hashes = {}
        self._write_model()
        self._begun = True

    def _write_model(self) -> None:
        write_json(self._model, self._evidence | {_HASHES: self._hashes})

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
        for path in self._files(name):
            path.unlink(missing_ok=True)

    def _files(self, name: str) -> list[Path]:
        return [self.out / f"{name}{ending}" for ending in _ENDINGS]


@contextmanager
def only_writer(out: Path) -> Iterator[Path]:
    """Let no other call write into a folder during the block; a folder in which nothing was written goes again.

    Yields a folder in it for unfinished results, which goes at the end with all that is left there.

    Raises:
        InputError: another call writes there.
        OSError: the disk is full.
    """
    new = [place for place in (out, *out.parents) if not place.exists()]
    lock, unfinished = out / ".detect.lock", out / ".unfinished"
    busy = "another `mitoscope detect` writes here, process {pid}; wait until it ends, or use another --out"
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(lock, busy))
                shutil.rmtree(unfinished, ignore_errors=True)  # of a call that was killed
                unfinished.mkdir(exist_ok=True)  # a lost worker may still be writing there
            except OSError as error:  # which names a hidden file
                raise OSError(error.errno, error.strerror, str(out)) from error
            try:
                yield unfinished
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
                lock.unlink(missing_ok=True)  # while it is held, so that it is no lock of another call
    finally:
        for place in new:
            with suppress(OSError):  # it has results
                place.rmdir()


def check_out(out: Path, images: Iterable[Path]) -> None:
    """Check before any work that results can be written.

    Raises:
        InputError: `out` is a file, cannot be written to, or is the folder of an image.
    """
    if blocking := next((place for place in (out, *out.parents) if place.exists() and not place.is_dir()), None):
        raise InputError(f"--out {out}: {blocking} is a file, not a folder; choose another folder")
    if image := next((path for path in images if path.absolute().parent.resolve() == out.resolve()), None):
        raise InputError(
            f"--out {out}: is the folder of {image.name!r}; choose another, so that results do not mix with the fields"
        )
    place = next(place for place in (out, *out.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise InputError(
            f"--out {out}: {place} cannot be written to ({error.strerror}); choose another folder"
        ) from error
