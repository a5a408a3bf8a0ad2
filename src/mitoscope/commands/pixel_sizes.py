"""The pixel sizes of the images that `mitoscope detect` gets, and what it says about them."""

from pathlib import Path

from mitoscope.datasets import field_table
from mitoscope.datasets.field_table import Entry, composed, read_field_table
from mitoscope.datasets.fields import Description, PixelSize, contradicted, pixel_size, read_description
from mitoscope.errors import InputError

OPTION, MODEL = "--microns-per-pixel", "model"
_MOST_NAMES = 3


class PixelSizes:
    """Finds the pixel size of each image, and remembers which were used.

    It is that of the option, else that of the image's dataset, by its rules: `fields.csv`, the image file itself,
    `dataset.yaml`. The dataset is the nearest folder above the image whose `fields.csv` names it, else the image's own
    folder. Where nothing gives a size, it is the model's.

    Args:
        option: um per pixel of all images; None = not given.
        model: um per pixel of the fields that the model was trained on.
    """

    def __init__(self, option: float | None, model: float) -> None:
        self._option = option
        self._model = model
        self._tables: dict[Path, dict[str, Entry]] = {}
        self._descriptions: dict[Path, Description] = {}
        self._used: dict[tuple[str, str], list[str]] = {}  # names by size as shown, and source
        self._off: dict[str, list[str]] = {}

    def find(self, image: Path, tag: float | None) -> PixelSize:
        """Return the pixel size of an image and where it is from.

        Args:
            image: path of the image.
            tag: um per pixel that the image file itself gives, if any.

        Raises:
            InputError: `fields.csv` or `dataset.yaml` is bad or of another program.
        """
        if self._option is not None:
            return PixelSize(self._option, OPTION)
        try:
            entry, description = self._dataset(image)
        except InputError as error:
            raise InputError(f"{error}; correct it, or give the pixel size with {OPTION}") from error
        size = pixel_size(entry.microns_per_pixel if entry else None, tag, description)
        return PixelSize(self._model, MODEL) if size.source == "default" else size

    def note(self, image: Path, name: str, tag: float | None, size: PixelSize) -> None:
        """Remember the size that was used for an image, and what the image file itself gives."""
        self._used.setdefault((f"{size.microns:.4g}", size.source), []).append(name)
        description = self._dataset(image)[1] if size.source == "file" else Description()
        if setting := contradicted(size, tag, description):
            line = f"{name}: {tag:.4g} um in the file, {setting.microns:.4g} um in {setting.source}"
            self._off.setdefault(setting.source, []).append(line)

    def lines(self) -> list[str]:
        """Return a line for each size and source that was used."""
        lines = []
        for (microns, source), names in self._used.items():
            which = ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} images"
            if source == MODEL:
                lines.append(
                    f"nothing gives the pixel size of {which}; the model's, {microns} um, is assumed "
                    f"({OPTION} gives another)"
                )
            else:
                lines.append(f"pixel size {microns} um, from {'the file' if source == 'file' else source}: {which}")
        return lines

    def warnings(self) -> list[str]:
        """Return a line for each setting that image files disagree with by more than 5 %."""
        images = sum(len(names) for names in self._used.values())
        used = {OPTION: "the option's", field_table.NAME: "the table's"}
        return [
            f"{len(off)} of {images} images say another pixel size than {source}; "
            f"{used.get(source, 'theirs')} is used. {off[0]}"
            for source, off in self._off.items()
        ]

    def _dataset(self, image: Path) -> tuple[Entry | None, Description]:
        """Return the row of an image in `fields.csv` and the description of its dataset."""
        image = image.absolute()
        for folder in image.parents:
            if entry := self._table(folder).get(composed(image.relative_to(folder).as_posix())):
                return entry, self._description(folder)
        return None, self._description(image.parent)

    def _table(self, folder: Path) -> dict[str, Entry]:
        if folder not in self._tables:
            path = folder / field_table.NAME
            self._tables[folder] = (
                {composed(entry.file): entry for entry in read_field_table(path)} if path.is_file() else {}
            )
        return self._tables[folder]

    def _description(self, folder: Path) -> Description:
        if folder not in self._descriptions:
            self._descriptions[folder] = read_description(folder)
        return self._descriptions[folder]
