"""Which columns the MLflow UI shows of the runs, without any clicking."""

import json
from typing import TYPE_CHECKING

from mitoscope.tracking.store import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A saved view lies in a tag of the experiment; the page's address or its menu `Views` names it.
VIEW = "networks"
TAG = f"mlflow.sharedViewState.{VIEW}"
_COLUMNS = {  # as the UI names them, with widths in px that hold their headings
    "attributes.`Run Name`": 115,
    "runDateAndNestInfo": 134,
    "tags.`network`": 98,
    "tags.`start_weights`": 104,
    "tags.`synthetic`": 80,
    "metrics.`best_validation/recall`": 148,
    "metrics.`best_validation/best_f1`": 158,
    "metrics.`test/recall`": 82,
    "metrics.`test/f1`": 72,
    "metrics.`test_fields/recall`": 121,
    "metrics.`test_fields/f1`": 104,
}


def share_view(client: "MlflowClient") -> str:
    """Keep the view of the runs in the experiment, and return the page that shows it, relative to the server."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # `connect` made it
    state = {"selectedColumns": list(_COLUMNS), "columnOrder": list(_COLUMNS), "columnWidths": _COLUMNS}
    view = {"name": "Networks and their scores", "createdAt": experiment.creation_time, "state": json.dumps(state)}
    client.set_experiment_tag(experiment.experiment_id, TAG, json.dumps(view))
    # Without the workflow, the UI shows its pages for language models.
    return f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
