"""The best epoch, and when a training ends."""

from mitoscope.learning.schedule import best_epoch, finished, plain_epochs
from mitoscope.params import Train


def reached(*scores):
    return [{"validation/best_f1": score} for score in scores]


def test_the_first_of_equally_good_epochs_is_the_best():
    assert best_epoch(reached(0.2, 0.7, 0.5, 0.7)) == 2


def test_training_ends_with_the_epochs_or_with_patience():
    settings = Train.model_validate({"optimisation": {"epochs": 5, "patience": 2}})
    assert not finished([], settings)
    assert not finished(reached(0.5, 0.4), settings)
    assert finished(reached(0.5, 0.4, 0.5), settings)  # equal is not better
    assert not finished(reached(0.5, 0.4, 0.6, 0.5), settings)
    assert finished(reached(0.1, 0.2, 0.3, 0.4, 0.5), settings)


def test_patience_counts_from_the_first_mined_epoch():
    settings = Train.model_validate(
        {"optimisation": {"epochs": 9, "patience": 2}, "sampling": {"mining": {"start_epoch": 4, "every": 1}}}
    )
    assert plain_epochs(settings) == 4
    assert not finished(reached(0.5, 0.4, 0.4, 0.4, 0.4), settings)
    assert finished(reached(0.5, 0.4, 0.4, 0.4, 0.4, 0.4), settings)
