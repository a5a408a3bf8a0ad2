"""The columns that the MLflow UI shows in its table of runs."""

import json
from typing import TYPE_CHECKING

from mitoscope.tracking.store import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The UI reads a saved view from a tag of the experiment; the page's address or the menu `Views` selects it.
VIEW = "networks"
TAG = f"mlflow.sharedViewState.{VIEW}"
_COLUMNS = {  # column ids of the UI, in order, with widths in px that fit their headings
    "attributes.`Run Name`": 115,
    "metrics.`test_fields/f1`": 104,
    "metrics.`test_fields/recall`": 121,
    "metrics.`test_fields/precision`": 140,
    "metrics.`test/f1`": 72,
    "metrics.`test/recall`": 82,
    "metrics.`best_validation/best_f1`": 158,
    "metrics.`best_validation/recall`": 148,
    "tags.`network`": 98,
    "tags.`start_weights`": 104,
    "tags.`synthetic`": 80,
    "runDateAndNestInfo": 134,
}


def share_view(client: "MlflowClient") -> str:
    """Save the view of the runs in the experiment. Returns the address of its page, relative to the server."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # `connect` made it
    state = {"selectedColumns": list(_COLUMNS), "columnOrder": list(_COLUMNS), "columnWidths": _COLUMNS}
    view = {"name": "Networks and their scores", "createdAt": experiment.creation_time, "state": json.dumps(state)}
    client.set_experiment_tag(experiment.experiment_id, TAG, json.dumps(view))
    # Without `workflowType` the UI shows its pages for language models.
    return f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
