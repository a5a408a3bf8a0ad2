"""Terms are explained once per text, and nothing of a text gets lost."""

import pytest

from mitoscope.reporting.terms import TERMS, abbreviate, explain, explain_setting, round_rate, shorten


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_found(term):
    assert explain(f"the {term}, here") == f"the {abbreviate(term, TERMS[term])}, here"


def test_a_text_keeps_its_words_and_is_escaped():
    shown = explain("Precision-recall <b> & F1, thresholds and precision")
    assert shown == (
        f'<abbr title="{TERMS["precision"]}">Precision</abbr>-recall &lt;b&gt; &amp; '
        f'<abbr title="{TERMS["F1"]}">F1</abbr>, <abbr title="{TERMS["threshold"]}">thresholds</abbr> and precision'
    )
    assert explain("") == "" and explain("start\nweights").endswith(">start\nweights</abbr>")


@pytest.mark.parametrize("text", ["manifold", "overviews", "detection.views", "views.csv", "f1", "the map", "Froc"])
def test_parts_of_words_and_names_are_not_terms(text):
    assert explain(text) == text


def test_a_longer_term_wins():
    assert explain("FROC curve").count("abbr") == 2 and TERMS["ROC"] not in explain("FROC curve")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train.optimisation.lr", "peak learning rate"),
        ("train.sampling.rotations.negative", "rotations of negative patches"),
        ("detection.views", "mirrored and turned copies"),
        ("split.folds", "number of folds"),
    ],
)
def test_a_setting_has_its_meaning(name, words):
    assert explain_setting(name).startswith('<abbr title="') and words in explain_setting(name)


@pytest.mark.parametrize("name", ["<gone>", "train.gone.lr", "split.fold.more", ""])
def test_a_setting_of_an_older_version_has_none(name):
    assert "abbr" not in explain_setting(name) and "<gone>" not in explain_setting(name)


@pytest.mark.parametrize(
    ("value", "short"), [("0.00123", "0.0012"), ("0.0003", "0.0003"), ("0.0347214", "0.035"), ("1e-05", "1e-05")]
)
def test_learning_rates_have_two_significant_digits(value, short):
    assert round_rate(value) == short


def test_the_exact_learning_rate_is_on_hover():
    assert shorten("train.optimisation.lr", "0.00123") == '<abbr title="exactly 0.00123">0.0012</abbr>'
    assert shorten("train.optimisation.lr", "0.001") == "0.001" and shorten("lr", "-") == "-"
    assert shorten("train.optimisation.weight_decay", "0.01234") == "0.01234"
