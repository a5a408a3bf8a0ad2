"""Stage `extract`: fields -> the patch store patches/, and a gallery of examples."""

import hashlib
import shutil
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.cluster import results
from mitoscope.datasets.annotations import Centres, distance_to_nearest, read_centres, read_lookalikes
from mitoscope.datasets.conflicts import find_conflicts, hash_pixels
from mitoscope.datasets.fields import Description, FieldOfView, list_fields, pixel_size, read_description
from mitoscope.datasets.patches import COLUMNS, is_sample, read_summary, sample_name, store_path
from mitoscope.datasets.readers import read_candidate_mask, read_picture
from mitoscope.errors import InputError
from mitoscope.files import atomic_folder, hash_file, write_json
from mitoscope.histology.prepared import prepare
from mitoscope.histology.windows import window_size
from mitoscope.params import Extract, read_params
from mitoscope.paths import DATA, GALLERY, PATCHES
from mitoscope.progress import console, progress
from mitoscope.reporting.galleries import draw_gallery

_SHOWN_PER_CLASS = 40
_SAME_CELL_UM = 4.0  # the radius of a nucleus: how far a labelled look-alike may be from the candidate that it is


def extract(scheduler: str | None = None) -> None:
    """Write the patch store (an array per field, index.csv and summary.json) and the gallery.

    Args:
        scheduler: address of a Dask scheduler, whose workers cut the fields; None = threads of this process.

    Raises:
        InputError: params.yaml or a file of data/ is bad, or as in `cluster.results`; the old store stays as it was.
        OSError: the disk is full, or the cluster is lost; likewise.
    """
    settings = read_params().extract
    description = read_description(DATA)
    fields = list_fields(DATA)
    with atomic_folder(PATCHES, replace=True) as folder:
        index = _write_store(folder, fields, settings, description, scheduler)
    _draw_examples(index, settings, description)
    samples = index[is_sample(index)]
    mitoses = int(samples.label.sum())
    edge = samples[samples.edge].label
    console.print(
        f"{mitoses} mitoses and {len(samples) - mitoses} negatives from {len(fields)} fields, of which {edge.sum()} "
        f"and {(edge == 0).sum()} are too near an edge to train on; examples: {GALLERY}"
    )
    if unchanged := read_summary(PATCHES)["stain_unchanged"]:
        console.print(f"{unchanged} fields have too little tissue for stain normalisation and are left unchanged")


@dataclass(frozen=True)
class FieldPatches:
    """The patches of one field.

    Attributes:
        index: index rows, COLUMNS.
        windows: (N, S, S, 3) uint8, in the order of the rows.
        facts: size, area, pixel size, and the SHA-256 of the pixels, by which a detector recognises the field.
        normalised: whether the stain was normalised.
    """

    index: pd.DataFrame
    windows: npt.NDArray[np.uint8]
    facts: dict[str, Any]
    normalised: bool


def extract_field(field: FieldOfView, settings: Extract, description: Description) -> FieldPatches:
    """Cut windows around the annotated centres, the candidates and the labelled look-alikes of one field.

    Candidates and look-alikes within `exclusion_um` of a mitosis are no negatives. A look-alike at a candidate is that
    candidate, so that it counts once.

    Raises:
        InputError: the image, a CSV or the mask is bad.
    """
    picture = read_picture(field.image)
    shape = picture.shape
    microns, size_from = pixel_size(field.microns_per_pixel, picture.microns_per_pixel, description)
    centres, lookalikes = (read(field, shape, description.annotation_order) for read in (read_centres, read_lookalikes))
    prepared = prepare(picture, microns, settings)
    candidates = prepared.candidates(read_candidate_mask(field.image, shape))

    def is_near(points: Centres) -> npt.NDArray[np.bool_]:  # false for NaN, the distance in a field without mitoses
        return distance_to_nearest(points, centres) * microns <= settings.exclusion_um

    near = is_near(candidates)
    lookalikes = lookalikes[~is_near(lookalikes)]
    groups = {
        ("annotation", 1): centres,
        ("candidate", 1): candidates[near],
        ("candidate", 0): candidates[~near],
        ("lookalike", 0): lookalikes[~(distance_to_nearest(lookalikes, candidates) * microns <= _SAME_CELL_UM)],
    }
    points, counts = np.concatenate(list(groups.values())), [len(group) for group in groups.values()]
    sources, labels = (np.repeat(values, counts) for values in zip(*groups, strict=True))
    windows = prepared.windows(points)
    index = pd.DataFrame(
        {
            "patient": field.patient,
            "field": field.field,
            "domain": field.domain,
            "label": labels,
            "center": np.concatenate([np.arange((labels == label).sum()) for label in (1, 0)]),
            "row": points[:, 0].round(2),
            "col": points[:, 1].round(2),
            "source": sources,
            "distance": (distance_to_nearest(points, centres) * microns).round(2),
            "lookalike": distance_to_nearest(points, lookalikes) * microns <= _SAME_CELL_UM,
            "edge": windows.edge,
            "record": np.arange(len(points)),
        },
        columns=list(COLUMNS),
    )
    facts = {
        "height": shape[0],
        "width": shape[1],
        "microns_per_pixel": microns,
        "microns_from": size_from,
        "area_mm2": prepared.area_mm2,
        "domain": field.domain,
        "pixels_sha256": hash_pixels(picture.pixels),
    }
    return FieldPatches(index, windows.cut(), facts, prepared.normalised)


def _write_field(
    folder: Path, settings: Extract, description: Description, field: FieldOfView
) -> tuple[Path, str, FieldPatches]:
    """Cut the patches of a field into a new file in `folder`; return it, its SHA-256, and all else about them."""
    patches = extract_field(field, settings, description)
    path = folder / f"{uuid.uuid4().hex}.npy"  # a name of its own: a lost worker may still be writing the same field
    np.save(path, patches.windows)
    return path, hash_file(path), replace(patches, windows=patches.windows[:0].copy())


def _write_store(
    folder: Path, fields: list[FieldOfView], settings: Extract, description: Description, scheduler: str | None
) -> pd.DataFrame:
    """Write the arrays, the index and the summary; return the index."""
    found: dict[str, FieldPatches] = {}
    digest = hashlib.sha256()
    # Beside the store, which then never has what a lost worker still writes. `atomic_folder` knows the name as its own.
    unfinished = folder.with_name(f"{folder.name}_unfinished")
    unfinished.mkdir()
    write_field = partial(_write_field, unfinished, settings, description)
    try:
        with progress() as show, closing(results(write_field, fields, scheduler)) as written:
            for field, (path, sha256, patches) in zip(fields, written, strict=True):
                path.rename(store_path(folder, field.patient, field.field))
                digest.update(bytes.fromhex(sha256))
                found[field.name] = patches
                show("extract", len(found), len(fields))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    facts = [patches.facts for patches in found.values()]
    pixels, sources = ([str(fact[name]) for fact in facts] for name in ("pixels_sha256", "microns_from"))
    if conflict := next(find_conflicts(fields, pixels, sources), None):
        raise InputError(conflict)
    index: pd.DataFrame = pd.concat([patches.index for patches in found.values()], ignore_index=True)
    index.to_csv(folder / "index.csv", index=False)
    digest.update((folder / "index.csv").read_bytes())
    write_json(folder / "summary.json", _summarise(index, found, settings, description, digest.hexdigest()))
    return index


def _summarise(
    index: pd.DataFrame, found: dict[str, FieldPatches], settings: Extract, description: Description, digest: str
) -> dict[str, Any]:
    """Return the content of summary.json."""
    samples = index[is_sample(index)]
    edge = samples[samples.edge].label
    return {
        "dataset": description.model_dump(),
        "settings": settings.chosen(),
        "patch_size": settings.patch_size,
        "window_size": window_size(settings.patch_size),
        "mitoses": int(samples.label.sum()),
        "negatives": int((samples.label == 0).sum()),
        "candidates": int((index.source == "candidate").sum()),
        "patients": {
            str(patient): {"mitoses": int(labels.sum()), "negatives": int((labels == 0).sum())}
            for patient, labels in samples.groupby("patient").label
        },
        "fields": {name: patches.facts for name, patches in found.items()},
        "stain_unchanged": sum(settings.stain != "none" and not patches.normalised for patches in found.values()),
        "dropped": {
            "candidates within exclusion_um of a mitosis": len(index) - len(samples),
            "mitoses too near the edge to train on": int(edge.sum()),
            "negatives too near the edge to train on": int((edge == 0).sum()),
        },
        "digest": digest,
    }


def _draw_examples(index: pd.DataFrame, settings: Extract, description: Description) -> None:
    """Draw some unrotated patches of each class with their names."""
    size = settings.patch_size
    margin = (window_size(size) - size) // 2
    sections = []
    for label, title in ((1, "mitoses"), (0, "negatives")):
        inner = index[is_sample(index) & (index.label == label) & ~index.edge]
        shown = inner.sample(min(_SHOWN_PER_CLASS, len(inner)), random_state=0).sort_index()
        examples = []
        for row in shown.itertuples():
            window = np.load(store_path(PATCHES, str(row.patient), str(row.field)), mmap_mode="r")[row.record]
            examples.append((sample_name(row), window[margin : margin + size, margin : margin + size]))
        word = "synthetic " if description.synthetic else ""
        sections.append((f"{len(inner)} {word}{title}, {len(shown)} shown", examples))
    draw_gallery(GALLERY, sections)
