"""The folder that `mitoscope export` writes: a network as ONNX, twice, and all else in detector.json."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mitoscope.errors import InputError
from mitoscope.files import hash_file, read_json

if TYPE_CHECKING:  # `mitoscope page` does not wait for torch
    from mitoscope.detection.detector import Detector

FORMAT = 2  # of detector.json; format 1 had other views
FLOAT, INT8, DETECTOR = "network.onnx", "network-int8.onnx", "detector.json"


def describe(detector: "Detector") -> dict[str, Any]:
    """Return what another program needs to do as the detector does, without its network."""
    head, calibration = detector.head, detector.calibration
    return {
        "format": FORMAT,
        "patch_size": detector.model.patch_size,
        "extract": detector.extract.model_dump(mode="json"),
        "detection": detector.detection.model_dump(mode="json"),
        "field_head": head and {name: np.asarray(value).tolist() for name, value in head.content().items()},
        "calibration": calibration and {"middle": calibration.middle, "upper": calibration.upper},
        "threshold": detector.threshold,
        "patch_threshold": detector.patch_threshold,
        "origin": asdict(detector.origin),
    }


def read_export(folder: Path, network: str) -> dict[str, Any]:
    """Return the content of an export's detector.json, after a check of one of its networks.

    Raises:
        InputError: a file is missing, damaged, changed, or of another format.
    """
    remedy = f"run `mitoscope export --model models:/mitoscope@champion --out {folder} --replace`"
    if not (folder / DETECTOR).is_file() and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise InputError(f"{folder}: has no {DETECTOR}; give the folder that `mitoscope export` wrote")
    content = read_json(folder / DETECTOR, remedy)
    if content.get("format") != FORMAT:
        raise InputError(f"{folder / DETECTOR}: has another format than this version's; {remedy}")
    path = folder / network
    try:
        known = content["networks"][network]["sha256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / DETECTOR}: is damaged (networks); {remedy}") from error
    if not path.exists() or hash_file(path) != known:
        raise InputError(f"{path}: is missing or was changed; {remedy}")
    return content
