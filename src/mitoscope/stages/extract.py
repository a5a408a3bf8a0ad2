"""Stage `extract`: fields -> the patch store patches/, and a gallery of what is in it."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from mitoscope.datasets.annotations import read_centres
from mitoscope.datasets.fields import Description, FieldOfView, list_fields, read_description
from mitoscope.datasets.images import read_candidate_mask, read_image
from mitoscope.datasets.patches import COLUMNS, is_sample, read_summary, sample_name, store_path
from mitoscope.evaluation.matching import nearest
from mitoscope.files import atomic_folder, write_json
from mitoscope.histology.blue_ratio import find_candidates
from mitoscope.histology.stain import Method as Stain
from mitoscope.histology.stain import normalise
from mitoscope.histology.windows import Windows, cut_windows, resize, to_scale, window_size
from mitoscope.params import Extract, read_params
from mitoscope.paths import DATA, GALLERY, PATCHES
from mitoscope.progress import console, progress
from mitoscope.reporting.galleries import draw_gallery

_SHOWN_PER_CLASS = 40


def extract() -> None:
    """Write the patch store: an array per field, index.csv and summary.json.

    Raises:
        InputError: params.yaml or a file of data/ is bad; the old store stays as it was.
    """
    settings = read_params().extract
    description = read_description(DATA)
    fields = list_fields(DATA)
    with atomic_folder(PATCHES, replace=True) as folder:
        index = _write_store(folder, fields, settings, description)
    _draw_examples(index, settings, description)
    samples = index[is_sample(index)]
    mitoses = int(samples.label.sum())
    edge = samples[samples.edge].label
    console.print(
        f"{mitoses} mitoses and {len(samples) - mitoses} negatives from {len(fields)} fields, of which {edge.sum()} "
        f"and {(edge == 0).sum()} are too near an edge to train on; see {GALLERY}"
    )
    if unchanged := read_summary(PATCHES)["stain_unchanged"]:
        console.print(f"{unchanged} fields have too little tissue to normalise their stain: left as they are")


@dataclass(frozen=True)
class FieldPatches:
    """What one field gave: its index rows, their windows, its area, and whether its stain could be normalised."""

    index: pd.DataFrame
    windows: Windows
    area_mm2: float
    normalised: bool


def extract_field(
    field: FieldOfView,
    *,
    stain: Stain,
    scale: float,
    patch_size: int,
    sigma: float,
    peak_window: int,
    candidates_per_mm2: float,
    exclusion_um: float,
    microns_per_pixel: float,
    annotation_order: str,
) -> FieldPatches:
    """Cut the windows of one field: its mitoses, the candidates near them, the other candidates; strongest first.

    Raises:
        InputError: the image, the CSV or the mask is bad.
    """
    image = read_image(field.image)
    shape = (image.shape[0], image.shape[1])
    centres = read_centres(field, shape, annotation_order)
    mask = read_candidate_mask(field.image, shape)
    image, normalised = normalise(image, stain)
    area_mm2 = shape[0] * shape[1] * microns_per_pixel**2 / 1e6
    candidates = find_candidates(
        image, mask, count=math.ceil(candidates_per_mm2 * area_mm2), sigma=sigma, window=peak_window
    )
    distance_um = nearest(candidates, centres) * microns_per_pixel
    near = distance_um <= exclusion_um  # false for NaN: without a mitosis nothing is near one
    places = np.concatenate([centres, candidates[near], candidates[~near]])
    windows, edge = cut_windows(resize(image, scale), to_scale(places, scale), window_size(patch_size))
    positives, negatives = len(centres) + int(near.sum()), int((~near).sum())
    index = pd.DataFrame(
        {
            "patient": field.patient,
            "field": field.field,
            "label": np.repeat([1, 0], (positives, negatives)),
            "center": np.concatenate([np.arange(positives), np.arange(negatives)]),
            "row": places[:, 0].round(2),
            "col": places[:, 1].round(2),
            "source": np.repeat(["annotation", "candidate"], (len(centres), len(candidates))),
            "distance": np.concatenate([np.zeros(len(centres)), distance_um[near], distance_um[~near]]).round(2),
            "edge": edge,
            "record": np.arange(len(places)),
        },
        columns=list(COLUMNS),
    )
    return FieldPatches(index, windows, area_mm2, normalised)


def _write_store(folder: Path, fields: list[FieldOfView], settings: Extract, description: Description) -> pd.DataFrame:
    """Write the arrays, the index, which is returned, and the summary."""
    parts: dict[str, dict[str, Any]] = {}
    # Threads: OpenCV and NumPy release the interpreter's lock. They only cut; what they cut is written here, so that
    # no thread still writes into the folder when a bad field ends the stage.
    with progress() as show:
        jobs = Parallel(n_jobs=-1, prefer="threads", return_as="generator_unordered")(
            delayed(_cut_field)(field, settings, description) for field in fields
        )
        for field, found in jobs:
            path = store_path(folder, field.patient, field.field)
            np.save(path, found.windows)
            parts[field.name] = {
                "name": field.name,
                "index": found.index,
                "area_mm2": found.area_mm2,
                "normalised": found.normalised,
                "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            show("extract", len(parts), len(fields))
    ordered = [parts[field.name] for field in fields]
    index: pd.DataFrame = pd.concat([part["index"] for part in ordered], ignore_index=True)
    index.to_csv(folder / "index.csv", index=False)
    write_json(folder / "summary.json", _summarise(index, ordered, settings, description))
    return index


def _cut_field(field: FieldOfView, settings: Extract, description: Description) -> tuple[FieldOfView, FieldPatches]:
    """The windows of one field, under its name."""
    return field, extract_field(
        field,
        **settings.model_dump(),
        microns_per_pixel=description.microns_per_pixel,
        annotation_order=description.annotation_order,
    )


def _summarise(
    index: pd.DataFrame, parts: list[dict[str, Any]], settings: Extract, description: Description
) -> dict[str, Any]:
    """The content of summary.json."""
    samples = index[is_sample(index)]
    edge = samples[samples.edge].label
    content = "".join([*(part["digest"] for part in parts), index.to_csv(index=False)])
    return {
        "dataset": description.model_dump(),
        "settings": {**settings.model_dump(), "window_size": window_size(settings.patch_size)},
        "fields": len(parts),
        "mitoses": int(samples.label.sum()),
        "negatives": int((samples.label == 0).sum()),
        "candidates": int((index.source == "candidate").sum()),
        "patients": {
            str(patient): {"mitoses": int(labels.sum()), "negatives": int((labels == 0).sum())}
            for patient, labels in samples.groupby("patient").label
        },
        "stain_unchanged": sum(settings.stain != "none" and not part["normalised"] for part in parts),
        "areas_mm2": {part["name"]: part["area_mm2"] for part in parts},
        "dropped": {
            "candidates within exclusion_um of a mitosis": len(index) - len(samples),
            "mitoses too near the edge to train on": int(edge.sum()),
            "negatives too near the edge to train on": int((edge == 0).sum()),
        },
        "digest": hashlib.sha256(content.encode()).hexdigest(),
    }


def _draw_examples(index: pd.DataFrame, settings: Extract, description: Description) -> None:
    """Draw some patches of each class, unrotated, under their names."""
    margin = (window_size(settings.patch_size) - settings.patch_size) // 2
    sections = []
    for label, title in ((1, "mitoses"), (0, "negatives")):
        inner = index[is_sample(index) & (index.label == label) & ~index.edge]
        shown = inner.sample(min(_SHOWN_PER_CLASS, len(inner)), random_state=0).sort_index()
        examples = []
        for row in shown.itertuples():
            window = np.load(store_path(PATCHES, str(row.patient), str(row.field)), mmap_mode="r")[row.record]
            patch = window[margin : margin + settings.patch_size, margin : margin + settings.patch_size]
            examples.append((sample_name(row), patch))
        word = "synthetic " if description.synthetic else ""
        sections.append((f"{len(inner)} {word}{title}, {len(shown)} of them", examples))
    draw_gallery(GALLERY, sections)
