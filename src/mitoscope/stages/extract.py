"""Stage `extract`: fields -> the patch store patches/, and a gallery of what is in it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from mitoscope.files import atomic_folder, write_json
from mitoscope.histology.fields import Description, FieldOfView, list_fields, read_description
from mitoscope.histology.galleries import draw_gallery
from mitoscope.histology.patches import (
    FieldPatches,
    extract_field,
    is_sample,
    read_summary,
    sample_name,
    store_path,
    window_size,
)
from mitoscope.params import Extract, read_params
from mitoscope.paths import DATA, GALLERY, PATCHES
from mitoscope.progress import console, progress

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
