"""Stage `settings`: what params.yaml chooses for each network -> results/settings/<network>/*.json.

The stages behind it depend on these files instead of on params.yaml. They hold the entries that differ from their
defaults, so an entry that is written out with its default value, or left out, changes nothing and trains nobody; and
what changes for one network leaves the others alone.
"""

from typing import Any

from mitoscope.files import atomic_folder, write_json
from mitoscope.params import Params, read_params
from mitoscope.paths import SETTINGS


def settings() -> None:
    """Write start.json, train.json and detection.json of every network: what stages weights, train, detector use."""
    params = read_params()
    with atomic_folder(SETTINGS, replace=True) as folder:
        for network in params.train:
            for name, content in chosen(params, network).items():
                write_json(folder / network / f"{name}.json", content)


def chosen(params: Params, network: str) -> dict[str, dict[str, Any]]:
    """The settings of a network that differ from their defaults, by the file that holds them."""
    train = params.train_of(network)
    model = train.model.chosen()
    return {
        "start": {"weights": params.weights_of(network)}
        | {name: model[name] for name in ("backbone", "head", "seed") if name in model},
        "train": train.chosen(),
        "detection": params.detection_of(network).chosen(),
    }
