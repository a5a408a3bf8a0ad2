"""Stage `settings`: params.yaml -> results/settings/*.json and results/settings/<network>/*.json.

Later stages depend on these files instead of params.yaml. The files contain only the entries that differ from their
defaults, so a block may be left out, and an entry written out with its default value runs nothing again. A change for
one network does not affect the others.
"""

from typing import Any

from mitoscope.files import atomic_folder, write_json
from mitoscope.params import Params, read_params
from mitoscope.paths import SETTINGS

SHARED = ("split", "extract", "search", "evaluate")  # each is also the stage that depends on the file


def settings() -> None:
    """Write a file per block that all networks share, and start.json, train.json and detection.json of each network."""
    params = read_params()
    with atomic_folder(SETTINGS, replace=True) as folder:
        for name in SHARED:
            write_json(folder / f"{name}.json", getattr(params, name).chosen())
        for network in params.train:
            for name, content in chosen(params, network).items():
                write_json(folder / network / f"{name}.json", content)


def chosen(params: Params, network: str) -> dict[str, dict[str, Any]]:
    """Return the settings of a network that differ from their defaults, by the name of their file."""
    train = params.train_of(network)
    model = train.model.chosen()
    return {
        "start": {"weights": params.weights_of(network)}
        | {name: model[name] for name in ("backbone", "head", "seed") if name in model},
        "train": train.chosen(),
        "detection": params.detection_of(network).chosen(),
    }
