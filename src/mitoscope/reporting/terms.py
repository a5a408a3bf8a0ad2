"""What the terms of the report mean, for readers who point at them."""

import inspect
import re
from typing import get_args

from markupsafe import Markup, escape

from mitoscope.params import Block, Params

TERMS = {  # as in docs/glossary.md, shorter
    "F1": "Harmonic mean of precision and recall: high only where both are high",
    "precision": "Share of the detections that are mitoses; false positives lower it",
    "recall": "Share of the mitoses that are detected; missed mitoses lower it",
    "accuracy": "Share of the patches that are classified correctly",
    "AP": "Average precision: area under the curve of precision against recall, over all thresholds",
    "ROC": "Curve of recall against the false-positive rate of the patches; each point is one threshold",
    "FROC": "Free-response ROC: recall against false positives per mm2 in whole fields; each point is one threshold",
    "threshold": "Score from which on a candidate or patch counts as a mitosis; chosen without the test patients",
    "95 % interval": "Range of the middle 95 % of the scores of many random draws of the test patients: how much the "
    "score depends on who was tested",
    "paired bootstrap": "Many random draws of the test patients, with the same patients for both networks in each draw",
    "whole fields": "Every candidate of a whole image is scored, and detections are matched to the annotated mitoses "
    "within 7.5 um",
    "patches": "Small squares around single mitoses and candidates, each scored by itself",
    "candidate": "Dark, blue spot where the network looks for a mitosis; a mitosis without one nearby cannot be found",
    "negatives": "Candidates that are not mitoses",
    "views": "Mirrored and turned copies of each candidate, whose scores are averaged (test-time augmentation)",
    "field head": "Regression that scores the candidates of whole fields in place of the network's last layer",
    "start weights": "Weights from which the training starts: ImageNet's, random ones, or those of a file",
    "fold": "One of the equal groups of patients; one group tests, the next one validates, the others train",
    "lr": "Learning rate: the highest of the training's schedule",
    "rotations": "Angles at which mitoses and other patches are shown during the training",
    "mining": "Hard-negative mining: later epochs draw the negatives that the network takes for mitoses",
    "cross-validation": "Every patient is tested once, by a network that was not trained on this patient",
    "registry": "The list of released detectors in MLflow; its champion is the one in use",
}
_SPELLING = {term if term.isupper() or term == "F1" else term.lower(): term for term in TERMS}
_PATTERN = re.compile(
    r"(?<![\w.-])({})s?(?![\w.]\w|\w)".format(
        "|".join(re.escape(term).replace(r"\ ", r"\s") for term in sorted(TERMS, key=len, reverse=True))
    ),
    re.IGNORECASE,
)


def explain(text: str) -> Markup:
    """A text as HTML, with the meaning of each term at its first place in the text."""
    seen: set[str] = set()
    parts: list[Markup] = []
    end = 0
    for found in _PATTERN.finditer(text):
        words = " ".join(found[1].split())
        term = _SPELLING.get(words, _SPELLING.get(words.lower()))
        if term is None or term in seen:
            continue
        seen.add(term)
        parts += [escape(text[end : found.start()]), abbreviate(found[0], TERMS[term])]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def explain_setting(name: str) -> Markup:
    """The name of a setting as HTML, as train.optimisation.lr, with its meaning from params.py."""
    return abbreviate(name, _describe(name))


def shorten(name: str, value: str) -> Markup:
    """The value of a setting as HTML; a learning rate has 2 significant digits, with the exact value on hover."""
    short = round_rate(value) if name.rpartition(".")[2] == "lr" else value
    return abbreviate(short, f"exactly {value}" if short != value else "")


def round_rate(value: str) -> str:
    """A learning rate with 2 significant digits; other words stay."""
    try:
        return f"{float(value):.2g}"
    except ValueError:
        return value


def abbreviate(text: str, meaning: str) -> Markup:
    """A text as HTML with its meaning on hover, if it has one."""
    return Markup('<abbr title="{}">{}</abbr>').format(meaning, text) if meaning else escape(text)


def _describe(name: str) -> str:
    """The description of an entry of params.yaml without its network, as train.optimisation.lr; or nothing."""
    block: type[Block] | None = Params
    description = ""
    for part in name.split("."):
        field = block.model_fields.get(part) if block else None
        if field is None:
            return ""
        description = field.description or ""
        kinds = [field.annotation, *get_args(field.annotation)]
        block = next((kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, Block)), None)
    return description
