"""Command `export-patches`: write the patch store as PNG files, for viewing and for other tools."""

from pathlib import Path

import numpy as np

from mitoscope.datasets.patches import is_sample, read_index, read_summary, sample_name, store_path
from mitoscope.datasets.readers import encode_image
from mitoscope.files import atomic_folder
from mitoscope.params import read_params
from mitoscope.paths import PATCHES
from mitoscope.progress import console, progress


def export_patches(out: Path, *, network: str | None, replace: bool) -> None:
    """Write one PNG per (patch, angle) of all patients, with the rotations of `network` and the capstone's file names.

    Patches that reach over the edge of their field are skipped.

    Args:
        out: output folder.
        network: entry under `train` in params.yaml; None = the first.
        replace: replace `out` if it is not empty.
    """
    from torch import from_numpy

    from mitoscope.learning.augment import crop

    params = read_params()
    rotations = params.train_of(network or next(iter(params.train))).sampling.rotations
    patch_size = read_summary(PATCHES)["patch_size"]
    index = read_index(PATCHES)
    index = index[is_sample(index) & ~index.edge]
    angles = {1: rotations.positive, 0: rotations.negative}
    written, groups = 0, list(index.groupby(["patient", "field"]))
    with atomic_folder(out, replace=replace) as folder, progress() as show:
        for done, ((patient, field), rows) in enumerate(groups, start=1):
            windows = np.load(store_path(PATCHES, str(patient), str(field)), mmap_mode="r")
            for row in rows.itertuples():
                window = from_numpy(windows[row.record].copy()).permute(2, 0, 1)[None]
                for angle in angles[int(str(row.label))]:
                    patch = crop(window, angle, patch_size)[0].permute(1, 2, 0).numpy()
                    (folder / sample_name(row, angle)).write_bytes(encode_image(patch, ".png"))
                    written += 1
            show("export", done, len(groups))
    console.print(f"{written} patches in {out}")
