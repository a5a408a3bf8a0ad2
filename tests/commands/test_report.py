"""The page needs no other file, hides nothing and mixes nothing up."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pytest
from mlflow.artifacts import load_text

from mitoscope.commands.report import report
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.reporting.figures import draw_learning_curves
from mitoscope.reporting.pictures import embed
from mitoscope.stages.evaluate import evaluate
from mitoscope.tracking import registry
from mitoscope.tracking.runs import log_dataset
from tests.conftest import NETWORK, tiny_params, write_params
from tests.tracking.test_figures import history

OUT = Path("results/report.html")
NASTY = '"><script>alert(1)</script>'
LEVELS = ("patches", "fields")
DIGEST = "0123456789abcdef0123456789abcdef.dir"


class Page(HTMLParser):
    """A parsed page: tags with their attributes, and the text of elements."""

    def __init__(self, path: Path = OUT) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = [("", "")]
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.append((tag, ""))

    def handle_data(self, data):
        tag, text = self.texts[-1]
        self.texts[-1] = (tag, text + data)

    def attributes(self, *names: str) -> Iterator[str]:
        return (found[name] or "" for _, found in self.tags for name in names if name in found)

    def text(self, *tags: str) -> list[str]:
        return [" ".join(text.split()) for tag, text in self.texts if not tags or tag in tags]


def finish(
    run_id: str | None = None, *, digest: str = DIGEST, name: str = "", patches: str = "", status: str = "FINISHED"
) -> str:
    """Give a run (a new one where none is named) what a training logs, and end it."""
    with mlflow.start_run(run_id=run_id, run_name=name or None) as run:
        log_dataset("drawn", digest, Path("data"))
        mlflow.set_tags({"architecture": NETWORK, "start_weights": "random", "patches": patches})
        mlflow.log_params({"split.fold": 0, "split.folds": 4, "train.lr": 0.001, "train.rotations.positive": [0, 45]})
        mlflow.log_metric("best_validation/best_f1", 0.4321)
        mlflow.end_run(status)
        return str(run.info.run_id)


def add_version(tags: dict[str, str]) -> None:
    """Register a model of a run of its own, as champion."""
    model = mlflow.initialize_logged_model("best", source_run_id=finish(digest="f" * 32))
    registry.crown(registry.register(model.model_id, model.source_run_id, tags, "a card"))


@pytest.fixture
def evaluated(trained: str, empty_registry: None) -> str:
    """The small project with an evaluated network, its run as training leaves it. Returns the run's id."""
    evaluate(NETWORK)
    draw_learning_curves(Path("results/train", f"{NETWORK}.png"), history(3), title=NETWORK, best_epoch=2)
    Path("results/extract").mkdir(exist_ok=True)
    return finish(trained, patches=json.loads(Path("patches/summary.json").read_text())["digest"])


def test_one_page_of_everything_that_needs_nothing_else(evaluated, capsys):
    newer = finish(name="newer")
    hidden = [finish(name="foreign", digest="f" * 32), finish(name="killed", status="KILLED")]
    write_json(Path("results/evaluate", NETWORK, "intervals.json"), {level: {"f1": [0.11, 0.95]} for level in LEVELS})
    report(OUT)
    page, text = Page(), OUT.read_text(encoding="utf-8")
    assert OUT.stat().st_size < 10e6
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert not list(page.attributes("href", "srcset", "action")) and "url(" not in text and "@import" not in text
    sources = list(page.attributes("src"))
    assert len(sources) >= 4 and all(re.match("data:image/(png|webp);base64,", source) for source in sources)

    metrics = json.loads(Path("results/evaluate", NETWORK, "metrics.json").read_text())
    for level in LEVELS:
        assert f"{100 * metrics[level]['recall']:.1f}" in text
    assert text.count("[11, 95]") == 2
    captions = page.text("figcaption")
    assert len(captions) == len(sources) and all("synthetic" in caption for caption in captions)
    assert all("random" in caption or "brackets" in caption for caption in captions if NETWORK in caption)
    assert text.count("random</td>") >= 4 and text.count(">synthetic</td>") >= 4  # both levels, both runs

    assert text.index(newer[:8]) < text.index(evaluated[:8]) and "43.2" in text  # the newest first
    assert not [run for run in hidden if run[:8] in text] and text.count(">current<") == 1
    assert DIGEST in text and f"dvc repro evaluate@{NETWORK}" in text
    assert text.count("SHA-256 ") == 2 and "not here; `dvc pull` brings it" in text  # no start.pt in this project

    # Logged, and in the place of the last one.
    assert load_text(f"runs:/{evaluated}/report.html") == text
    report(Path("elsewhere.html"))
    files = [item.path for item in mlflow.MlflowClient().list_artifacts(evaluated)]
    assert files.count("report.html") == 1 and not [name for name in files if "elsewhere" in name]
    assert load_text(f"runs:/{evaluated}/report.html") == Path("elsewhere.html").read_text(encoding="utf-8")
    assert "elsewhere.html: " in capsys.readouterr().out


def test_what_comes_from_files_is_escaped_and_real_data_are_not_called_synthetic(evaluated):
    summary = Path("patches/summary.json")
    content = json.loads(summary.read_text())
    content["dataset"] |= {"synthetic": False, "name": NASTY}
    write_json(summary, content)
    trained = Path("results/train", f"{NETWORK}.json")
    write_json(trained, json.loads(trained.read_text()) | {"start_weights": NASTY})
    add_version({"architecture": NASTY, "dataset": NASTY})
    report(OUT)
    assert "alert(1)" in OUT.read_text() and "synthetic" not in OUT.read_text()
    assert "script" not in {tag for tag, _ in Page().tags}
    assert not list(Page().attributes("onerror", "onload", "href"))


def test_what_is_there_beside_is_shown(evaluated, tmp_path):
    params = tiny_params()
    params["train"]["alexnet"] = params["train"][NETWORK]
    params["weights"]["alexnet"] = "random"
    write_params(params)
    noise = np.random.default_rng(0).integers(0, 256, (600, 1600, 3), dtype=np.uint8)
    mined, searched = tmp_path / "mined.png", Path("results/search", NETWORK, "parallel.png")
    for path in (mined, searched, Path("results/crossvalidate/here.png")):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noise)
    mlflow.MlflowClient().log_artifact(evaluated, str(mined), "pictures")
    write_json(Path(f"results/search/{NETWORK}.json"), {"best": {"lr": 0.00123}})
    trained = Path(f"results/train/{NETWORK}.json")
    write_json(trained, json.loads(trained.read_text(encoding="utf-8")) | {"refit_fields": True})
    add_version({"architecture": "another", "test_fields_f1": "0.7654"})
    scores = {"mitoses": 3, "detections": 2, "tp": 1, "fp": 1, "fn": 2, "precision": 0.5, "recall": 1 / 3, "f1": 0.4}
    for name, digest in (("here", DIGEST), ("foreign", "f" * 32)):
        dataset = {"name": "drawn", "synthetic": True, "md5": digest}
        result = {"network": name, "dataset": dataset, "start_weights": {"source": "random"}, "folds": [1, 2]}
        write_json(Path(f"results/crossvalidate/{name}.json"), result | {"pooled": {"patches": scores}})
    report(OUT)
    text = OUT.read_text(encoding="utf-8")
    assert "alexnet is not on this page" in text and "dvc repro evaluate@alexnet" in text
    captions = Page().text("figcaption")
    for word in ("last mining", "Search, parallel", "FROC of the folds"):
        assert sum(word in caption for caption in captions) == 1
    assert "0.00123" in text and "version 1 (champion)" in text and "field F1 0.7654" in text
    assert "here, random start weights, synthetic data: 2 folds, pooled" in text and "foreign" not in text
    assert "whole fields by their own (refit_fields)" in text
    assert "data:image/webp" in text  # what is large


def test_results_of_other_patches_are_not_shown(evaluated):
    mlflow.MlflowClient().set_tag(evaluated, "patches", "of another extraction")
    with pytest.raises(InputError, match="all results are of other patches or older runs; run `dvc repro` first"):
        report(OUT)
    assert not OUT.exists()


def test_scores_of_an_older_run_are_not_shown(evaluated):
    mlflow.MlflowClient().log_metric(evaluated, "test/f1", 0.123)
    with pytest.raises(InputError, match="run `dvc repro` first"):
        report(OUT)


def test_a_lost_run_is_said_so(evaluated):
    path = Path("results/train", f"{NETWORK}.json")
    write_json(path, json.loads(path.read_text()) | {"run_id": "0" * 32})
    with pytest.raises(InputError, match=f"has no run {'0' * 32}"):
        report(OUT)


def test_nothing_evaluated_is_said_so(extracted):
    with pytest.raises(InputError, match="results/evaluate: no network has been evaluated; run `dvc repro` first"):
        report(OUT)


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"a\.png: is missing or no picture"):
        embed(tmp_path / "a.png", "none")
