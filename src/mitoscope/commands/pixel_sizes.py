"""The pixel sizes of the images that `mitoscope detect` gets, and what it says about them."""

from pathlib import Path

from mitoscope.datasets import field_table
from mitoscope.datasets.field_table import Entry, read_field_table
from mitoscope.datasets.fields import Description, FieldOfView, PixelSize, disagrees, pixel_size, read_description

OPTION, MODEL = "--microns-per-pixel", "model"
_MOST_NAMES = 3


class PixelSizes:
    """Finds the pixel size of each image, and remembers which were used.

    It is that of the option, else that of a dataset with `fields.csv` or `dataset.yaml` in the image's folder, by its
    rules: `fields.csv`, the image file itself, `dataset.yaml`. The folder above counts too, if its `fields.csv` names
    the image. Where nothing gives a size, it is the model's.

    Args:
        option: um per pixel of all images; None = not given.
        model: um per pixel of the fields that the model was trained on.
    """

    def __init__(self, option: float | None, model: float) -> None:
        self._option = option
        self._model = model
        self._tables: dict[Path, dict[str, Entry]] = {}
        self._descriptions: dict[Path, Description] = {}
        self._used: dict[PixelSize, list[str]] = {}
        self._off: dict[str, list[str]] = {}

    def find(self, image: Path, tag: float | None) -> PixelSize:
        """Return the pixel size of an image and where it is from.

        Args:
            image: path of the image.
            tag: um per pixel that the image file itself gives, if any.

        Raises:
            InputError: `fields.csv` or `dataset.yaml` beside the image is bad.
        """
        if self._option is not None:
            return PixelSize(self._option, OPTION)
        entry, description = self._dataset(image.absolute())
        size = pixel_size(FieldOfView(image, "", "", entry.microns_per_pixel if entry else None), tag, description)
        return PixelSize(self._model, MODEL) if size.source == "default" else size

    def note(self, image: Path, name: str, tag: float | None, size: PixelSize) -> None:
        """Remember the size that was used for an image."""
        self._used.setdefault(size, []).append(name)
        setting, source = size
        if source == "file":
            _, description = self._dataset(image.absolute())
            if "microns_per_pixel" in description.model_fields_set:
                setting, source = description.microns_per_pixel, "dataset.yaml"
        if tag is not None and source in (OPTION, field_table.NAME, "dataset.yaml") and disagrees(tag, setting):
            line = f"{name}: {tag:.4g} um in the file, {setting:.4g} um in {source}"
            self._off.setdefault(source, []).append(line)

    def lines(self) -> list[str]:
        """Return a line for each size and source that was used."""
        lines = []
        for size, names in self._used.items():
            which = ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} images"
            if size.source == MODEL:
                lines.append(
                    f"nothing gives the pixel size of {which}; the model's, {size.microns:.4g} um, is assumed "
                    f"({OPTION} gives another)"
                )
            else:
                source = "the file" if size.source == "file" else size.source
                lines.append(f"pixel size {size.microns:.4g} um, from {source}: {which}")
        return lines

    def warnings(self) -> list[str]:
        """Return a line for each setting that image files disagree with by more than 5 %."""
        images = sum(len(names) for names in self._used.values())
        used = {
            OPTION: "the option's is used",
            field_table.NAME: "the table's is used",
            "dataset.yaml": "theirs is used",
        }
        return [
            f"{len(off)} of {images} images say another pixel size than {source}; {used[source]}. {off[0]}"
            for source, off in self._off.items()
        ]

    def _dataset(self, image: Path) -> tuple[Entry | None, Description]:
        """Return the row of an image in `fields.csv` and the description of its dataset."""
        for folder in (image.parent, image.parent.parent):
            if entry := self._table(folder).get(image.relative_to(folder).as_posix()):
                return entry, self._description(folder)
        return None, self._description(image.parent)

    def _table(self, folder: Path) -> dict[str, Entry]:
        if folder not in self._tables:
            path = folder / field_table.NAME
            self._tables[folder] = {entry.file: entry for entry in read_field_table(path)} if path.is_file() else {}
        return self._tables[folder]

    def _description(self, folder: Path) -> Description:
        if folder not in self._descriptions:
            self._descriptions[folder] = read_description(folder)
        return self._descriptions[folder]
