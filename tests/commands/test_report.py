"""The page needs no other file, hides nothing, and says which network is better."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import load_text

from mitoscope.commands.report import report
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.paths import MODELS, Outputs
from mitoscope.reporting.results import logged_scores
from mitoscope.reporting.terms import TERMS
from mitoscope.tracking import registry, runs
from mitoscope.tracking.history import training
from tests.conftest import NETWORK, tiny_params, write_params
from tests.results import change, read, run_of_training, write_results

pytestmark = pytest.mark.slow

OUT = Path("results/report.html")
OUTPUTS = Outputs(NETWORK)
METRICS = OUTPUTS.evaluated / "metrics.json"
NASTY = '"><script>alert(1)</script>'
LEVELS = ("patches", "fields")


class Page(HTMLParser):
    """A parsed page: tags with their attributes, and the text of elements, with that of explained terms in it."""

    def __init__(self, path: Path = OUT) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = [("", "")]
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "abbr":
            self.texts.append((tag, ""))

    def handle_data(self, data):
        tag, text = self.texts[-1]
        self.texts[-1] = (tag, text + data)

    def attributes(self, *names: str) -> Iterator[str]:
        return (found[name] or "" for _, found in self.tags for name in names if name in found)

    def text(self, *tags: str) -> list[str]:
        return [" ".join(text.split()) for tag, text in self.texts if not tags or tag in tags]


@pytest.fixture
def evaluated(extracted: Path, evaluated_folder: Path, empty_registry: None) -> str:
    """The small project with an evaluated network, whose run is the test's own. Returns the run's id."""
    for name in ("results", "models"):
        shutil.copytree(evaluated_folder / name, name, dirs_exist_ok=True)
    run_id = run_of_training()
    for path in (OUTPUTS.trained, OUTPUTS.detected, OUTPUTS.evaluated / "test_set.json"):
        change(path, run_id=run_id)
    runs.log_results(run_id, read(OUTPUTS.detected)["model_id"], logged_scores(read(METRICS)), {})
    return run_id


def add_version(tags: dict[str, str]) -> None:
    """Register a detector without a file, as champion."""
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    model = mlflow.initialize_logged_model("detector", source_run_id=run_id)
    registry.make_champion(registry.register(model.model_id, run_id, tags, "a card"))


def add_network(name: str) -> None:
    params = tiny_params()
    params["train"][name] = params["train"][NETWORK] | {"model": {"backbone": NETWORK}}
    write_params(params)


def add_evaluated(name: str) -> None:
    """A second network with the same results, but without a detection."""
    add_network(name)
    other, run_id = Outputs(name), run_of_training(network=name)
    shutil.copytree(OUTPUTS.evaluated, other.evaluated)
    shutil.copy(OUTPUTS.trained.with_suffix(".png"), other.trained.with_suffix(".png"))
    for path, copy in (
        (OUTPUTS.trained, other.trained),
        (OUTPUTS.detected, other.detected),
        (MODELS / NETWORK / "start.json", MODELS / name / "start.json"),
        (OUTPUTS.evaluated / "test_set.json", other.evaluated / "test_set.json"),
    ):
        write_json(copy, read(path) | {"run_id": run_id})
    metrics = read(METRICS)
    write_json(other.evaluated / "metrics.json", metrics | {"fields": metrics["fields"] | {"f1": 0.0}})
    table = pd.read_csv(OUTPUTS.evaluated / "objects.csv", dtype={"patient": str, "field": str})
    table.assign(predicted=0).to_csv(other.evaluated / "objects.csv", index=False)
    runs.log_results(run_id, read(other.detected)["model_id"], logged_scores(metrics), {})


def test_the_page_has_everything_and_needs_no_other_file(evaluated, capsys):
    newer = run_of_training()
    killed = run_of_training()
    mlflow.MlflowClient().set_terminated(killed, "KILLED")
    write_json(OUTPUTS.evaluated / "intervals.json", {level: {"f1": [0.11, 0.95]} for level in LEVELS})
    report(OUT)
    page, text = Page(), OUT.read_text(encoding="utf-8")
    assert OUT.stat().st_size < 10e6
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert not list(page.attributes("href", "srcset", "action")) and "url(" not in text and "@import" not in text
    sources = list(page.attributes("src"))
    assert len(sources) >= 4 and all(re.match("data:image/(png|webp);base64,", source) for source in sources)

    metrics = read(METRICS)
    for level in LEVELS:
        assert f"{100 * metrics[level]['recall']:.1f}" in text
    assert text.count("[11, 95]") == 2
    captions = page.text("figcaption")
    assert len(captions) == len(sources) and all("synthetic" in caption for caption in captions)
    assert all("random" in caption or "brackets" in caption for caption in captions if NETWORK in caption)
    assert text.count("random</td>") >= 4 and text.count(">synthetic</td>") >= 2  # both runs

    assert text.index(newer[:8]) < text.index(evaluated[:8]) and "43.2" in text  # the newest first
    assert killed[:8] not in text and text.count(">current<") == 1
    assert training(evaluated).digest in text and f"dvc repro evaluate@{NETWORK}" in text
    cells = page.text("th", "td")
    assert cells[cells.index("detection.views") + 1] == "2" and "detection.field_head.hard_fraction" in cells
    assert cells[cells.index("train.optimisation.lr") + 1] == "0.001"
    assert text.count("SHA-256 ") == 2 and "missing here; `dvc pull` downloads it" in text  # no best.pt in this project
    assert f"models/{NETWORK}/detector.pt --out detected" in text

    # Logged, in place of the previous one.
    assert load_text(f"runs:/{evaluated}/report.html") == text
    report(Path("elsewhere.html"))
    files = [item.path for item in mlflow.MlflowClient().list_artifacts(evaluated)]
    assert files.count("report.html") == 1 and not [name for name in files if "elsewhere" in name]
    assert load_text(f"runs:/{evaluated}/report.html") == Path("elsewhere.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "elsewhere.html: " in said and "had other test scores" not in said


def test_the_first_lines_say_which_network_is_better(evaluated):
    report(OUT)
    assert not list(Page().attributes("class")).count("verdict")  # one network is not compared
    add_evaluated("worse")
    report(OUT)
    page, text = Page(), OUT.read_text(encoding="utf-8")
    (verdict,) = [found for found in page.text("p") if "is better than" in found]
    f1 = read(METRICS)["fields"]["f1"]
    start = f"On synthetic data, {NETWORK} is better than worse by {100 * f1:.1f} points of F1"
    assert verdict.startswith(start) and verdict.endswith("a single test patient, chance cannot be ruled out.")
    assert text.index("is better than") < text.index("<h2>")


def test_terms_are_explained(evaluated):
    report(OUT)
    titles = [attributes["title"] for tag, attributes in Page().tags if tag == "abbr"]
    listed = Page().text("th", "td")
    assert all(listed[listed.index(term) + 1] == meaning for term, meaning in list(TERMS.items())[-3:])
    for term in ("F1", "recall", "precision", "AP", "FROC", "threshold", "start weights", "whole fields"):
        assert TERMS[term] in titles
    views = "mirrored and turned copies of each candidate, whose scores are averaged (test-time augmentation)"
    assert views in titles and all(titles)  # of settings from params.py


def test_texts_from_files_are_escaped_and_real_data_are_not_called_synthetic(evaluated):
    summary = Path("patches/summary.json")
    change(summary, dataset=read(summary)["dataset"] | {"synthetic": False, "name": NASTY})
    change(OUTPUTS.trained, start_weights=NASTY)
    add_version({"network": NASTY, "dataset": NASTY})
    report(OUT)
    assert "alert(1)" in OUT.read_text() and "synthetic" not in OUT.read_text()
    assert "script" not in {tag for tag, _ in Page().tags}
    assert not list(Page().attributes("onerror", "onload", "href"))


def test_optional_parts_are_shown(evaluated, tmp_path):
    add_network("other")
    noise = np.random.default_rng(0).integers(0, 256, (600, 1600, 3), dtype=np.uint8)
    mined, searched = tmp_path / "mined.png", OUTPUTS.searched / NETWORK / "parallel.png"
    for path in (mined, searched, Path("results/crossvalidate/here.png")):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noise)
    mlflow.MlflowClient().log_artifact(evaluated, str(mined), "pictures")
    write_json(OUTPUTS.searched / f"{NETWORK}.json", {"settings": {"optimisation": {"lr": 0.00123}}})
    change(OUTPUTS.detected, settings=read(OUTPUTS.detected)["settings"] | {"refit_fields": True})
    add_version({"network": "another", "test_fields_f1": "0.7654"})
    add_version({"architecture": "ancient"})
    scores = {"mitoses": 3, "detections": 2, "tp": 1, "fp": 1, "fn": 2, "precision": 0.5, "recall": 1 / 3, "f1": 0.4}
    for name, digest in (("here", training(evaluated).digest), ("foreign", "f" * 32)):
        dataset = {"name": "drawn", "synthetic": True, "md5": digest}
        result = {"network": name, "dataset": dataset, "start_weights": {"source": "random"}, "folds": [1, 2]}
        write_json(Path(f"results/crossvalidate/{name}.json"), result | {"pooled": {"patches": scores}})
    report(OUT)
    text = OUT.read_text(encoding="utf-8")
    assert "other is not on this page: it has not been evaluated; run `dvc repro evaluate@other`" in text
    captions = Page().text("figcaption")
    for word in ("hardest mined negatives", "Search, parallel", "FROC curves of the folds"):
        assert sum(word in caption for caption in captions) == 1
    cells = Page().text("th", "td")
    assert cells[cells.index("train.optimisation.lr") + 1] == "0.0012" and 'title="exactly 0.00123"' in text
    assert "version 2 (champion)" in text and "another," in text and "field F1 76.5 %" in text and "ancient," in text
    assert "here, random start weights, synthetic data: 2 folds, pooled" in text and "foreign" not in text
    assert "whole fields (refit_fields)" in " ".join(Page().text("p")).replace("  ", " ")
    assert "data:image/webp" in text  # large pictures


def test_runs_of_an_older_version_are_in_the_table(evaluated):
    digest, patches = training(evaluated).digest, read(Path("patches/summary.json"))["digest"]
    with mlflow.start_run() as run:
        runs.log_dataset("drawn", digest, Path("data"))
        mlflow.set_tags({"architecture": "ancient", "start_weights": "random", "patches": patches})
        mlflow.log_params({"train.lr": 0.0321, "train.rotations.positive": [0, 45, 90]})
        mlflow.log_metric("best_validation/best_f1", 0.5)
    report(OUT)
    text = OUT.read_text(encoding="utf-8")
    row = text[text.index(run.info.run_id[:8]) :].partition("</tr>")[0]
    assert "ancient" in row and ">0.032<" in row and "exactly 0.0321" in row and ">3 / 1<" in row


def test_the_true_scores_are_logged_again_where_another_evaluation_was_logged_last(evaluated, capsys):
    mlflow.MlflowClient().log_metric(evaluated, "test/f1", 0.987)
    mlflow.MlflowClient().log_metric(evaluated, "test_fields/f1", 0.986)
    report(OUT)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{NETWORK}: its MLflow run had other test scores; logged those of {OUTPUTS.evaluated} again" in said
    text, metrics = OUT.read_text(encoding="utf-8"), read(METRICS)
    assert "98.7" not in text and "98.6" not in text
    logged = training(evaluated).metrics
    assert [logged["test/f1"], logged["test_fields/f1"]] == [round(metrics[level]["f1"], 4) for level in LEVELS]
    files = {item.path for item in mlflow.MlflowClient().list_artifacts(evaluated, "tables")}
    assert "tables/fields.csv" in files
    report(OUT)
    assert "had other test scores" not in capsys.readouterr().out


def test_results_of_other_patches_are_not_shown(evaluated):
    mlflow.MlflowClient().set_tag(evaluated, "patches", "of another extraction")
    with pytest.raises(
        InputError, match=f"belongs to other patches than patches; run `dvc repro evaluate@{NETWORK}` first"
    ):
        report(OUT)
    assert not OUT.exists()


def test_scores_of_another_training_are_not_shown(evaluated):
    change(OUTPUTS.trained, run_id=run_of_training())
    with pytest.raises(InputError, match=f"belongs to another training .* run `dvc repro evaluate@{NETWORK}` first"):
        report(OUT)


def test_a_network_that_cannot_be_shown_does_not_hide_the_others(evaluated, capsys):
    add_network("other")
    write_results("other")  # its run is in no store
    report(OUT)
    reason = f"other is not on this page: .* there is no run {'0' * 32}"
    assert re.search(reason, OUT.read_text(encoding="utf-8")) and "other is not on the page" in capsys.readouterr().out


def test_without_its_run_the_error_says_so(extracted, mlflow_store):
    write_results()
    with pytest.raises(InputError, match=f"there is no run {'0' * 32}"):
        report(OUT)


def test_without_an_evaluated_network_the_error_says_so(extracted):
    with pytest.raises(InputError, match="results/evaluate: no network has been evaluated; run `dvc repro` first"):
        report(OUT)
