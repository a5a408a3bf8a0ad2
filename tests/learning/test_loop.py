"""Training: it learns, it stops, and a run that was killed and resumed equals one that never was."""

import signal
import subprocess
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from mitoscope.evaluation.metrics import best_threshold, patch_scores
from mitoscope.learning import loop
from mitoscope.learning.checkpoints import load, load_network
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.schedule import best_epoch
from mitoscope.learning.scoring import score_patches
from tests.learning.conftest import small
from tests.programs import killed_training

# The second epoch mines, the third draws by what the second found.
MINED = {"start_epoch": 1, "every": 2, "lr_factor": 0.5}
TRAINING, VALIDATION = [1, 0, 0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0, 0]

fit = partial(loop.fit, measure=patch_scores, fingerprint="a")


def fresh(head="pooled"):
    """A small network; with a pooled head it has dropout and running statistics, which a resume may get wrong."""
    description = {"backbone": "squeezenet1_1", "head": head, "patch_size": 32, "input_size": 32}
    return build(description, start_state("squeezenet1_1", None, 3, head)[0])


@pytest.fixture
def train(tmp_path, here, coloured):
    """Train a fresh network on small coloured patches in `tmp_path / "work"`, with some settings changed."""

    def run(model=None, *, work="work", fingerprint="a", training=TRAINING, validation=VALIDATION, **changes):
        hooks = {name: changes.pop(name) for name in ("on_epoch", "on_batch") if name in changes}
        (tmp_path / work).mkdir(exist_ok=True)
        model = model or fresh()
        fitted = fit(
            model,
            coloured(training, seed=1),
            coloured(validation, seed=2),
            small(**changes),
            device=here,
            work=tmp_path / work,
            fingerprint=fingerprint,
            **hooks,
        )
        return model, fitted

    return run


def same(state, other) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def lasting(history):
    """The history without what depends on the clock."""
    return [{name: value for name, value in epoch.items() if "throughput" not in name} for epoch in history]


@pytest.mark.slow
def test_training_learns(train, here, coloured):
    unseen = coloured([0, 1] * 20, seed=3)
    chance = best_threshold(unseen.labels, np.full(len(unseen), 0.5))[1]
    model, fitted = train(lr=1e-2, samples_per_epoch=64, epochs=2)
    assert fitted.history[-1]["train/loss"] < fitted.history[0]["train/loss"]
    assert fitted.history[fitted.best_epoch - 1]["validation/best_f1"] == 1.0
    probabilities = score_patches(model, unseen.windows, here)
    assert best_threshold(unseen.labels, probabilities)[1] > 0.95 > chance


def test_validation_scores_worked_by_hand(train, monkeypatch):
    def validated(labels, probabilities):
        monkeypatch.setattr(loop, "score_patches", lambda *_, **__: np.array(probabilities))
        return train(validation=labels, epochs=1, samples_per_epoch=2, fingerprint=str(labels))[1].history[0]

    scores = validated([1, 0, 1, 0], [0.4, 0.1, 0.8, 0.2])
    assert scores["validation/loss"] == pytest.approx(-np.log([0.4, 0.9, 0.8, 0.8]).mean())
    assert scores["validation/recall"] == 0.5  # at 0.5
    assert (scores["validation/best_f1"], scores["validation/threshold"]) == pytest.approx((1.0, 0.3))
    sure_and_wrong = validated([1, 0], [0.0, 1.0])
    assert sure_and_wrong["validation/loss"] == pytest.approx(-np.log(1e-7))  # not infinite: it goes into JSON


def test_an_epoch_says_what_it_reached(train):
    batches, calls = [], []
    _, fitted = train(
        epochs=2,
        on_batch=lambda *batch: batches.append(batch),
        on_epoch=lambda history: calls.append(len(history)),
    )
    scores = {"loss", "accuracy", "precision", "recall", "f1"}
    expected = {f"train/{name}" for name in scores | {"lr"}}
    expected |= {f"validation/{name}" for name in scores | {"best_f1", "threshold", "ap", "auc"}}
    expected |= {"throughput/train_patches_per_second", "throughput/epoch_seconds"}
    assert [set(epoch) for epoch in fitted.history] == [expected] * 2
    assert all(type(value) is float and np.isfinite(value) for epoch in fitted.history for value in epoch.values())
    assert fitted.history[0] != fitted.history[1]
    assert calls == [1, 2]
    assert batches[:3] == [("epoch 1/2 train", done, 16) for done in (8, 16)] + [("epoch 1/2 validate", 7, 7)]
    assert len(batches) == 6


@pytest.mark.slow
def test_mining_finds_the_negatives_that_look_like_mitoses(tmp_path, here, coloured):
    """Mislabelled mitoses among the negatives are what a network takes for mitoses, so it must mine these."""
    labels = [1, 0, 0, 1, 0, 0, 1, 0] * 3
    colours = [1, 0, 0, 1, 1, 0, 1, 0] * 3  # one negative of five is blue
    calls = []
    fitted = fit(
        fresh(),
        replace(coloured(colours, seed=1), labels=np.array(labels)),
        coloured(VALIDATION, seed=2),
        small(epochs=4, patience=4, lr=1e-2, mining=MINED),
        device=here,
        work=tmp_path,
        on_batch=lambda *call: calls.append(call),
    )
    hard = fitted.hardness
    blue = np.arange(24) % 8 == 4
    assert hard.shape == (24,) and (hard[np.array(labels) == 1] == 0).all()
    assert hard[blue].min() > hard[~blue].max()
    assert [sorted(name for name in epoch if "mining/" in name) for epoch in fitted.history] == [
        [],
        ["mining/effective_negatives", "mining/false_positives", "mining/mean_score"],
        [],
        ["mining/effective_negatives", "mining/false_positives", "mining/mean_score"],
    ]
    assert 1 <= fitted.history[-1]["mining/effective_negatives"] < 15.01
    assert calls.count(("epoch 2/4 mine", 15, 15)) == calls.count(("epoch 4/4 mine", 15, 15)) == 1


@pytest.mark.slow
def test_the_learning_rate_is_the_highest_of_the_epochs_steps(train):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = OneCycleLR(optimizer, max_lr=1e-3, total_steps=3 * 3)
    used = []
    for _ in range(9):
        used.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    _, fitted = train(epochs=3, samples_per_epoch=6, batch_size=2, lr=1e-3)
    rates = [epoch["train/lr"] for epoch in fitted.history]
    assert rates == pytest.approx([max(used[start : start + 3]) for start in (0, 3, 6)])
    assert max(rates) == pytest.approx(1e-3, rel=0.02)  # the peak, nearly: it lies between two steps


@pytest.mark.slow
def test_the_learning_rate_of_mined_epochs_peaks_lower(train):
    rates = []
    for epochs, mining in ((2, None), (4, MINED | {"start_epoch": 2})):
        _, fitted = train(epochs=epochs, patience=9, mining=mining, work=str(epochs), batch_size=4, samples_per_epoch=8)
        rates.append([epoch["train/lr"] for epoch in fitted.history])
    assert rates[1][:2] == rates[0]
    assert rates[1][2:] == pytest.approx([rate / 2 for rate in rates[0]])


@pytest.mark.slow
def test_training_that_gets_nowhere_stops_early(train):
    model = fresh("classifier")  # has no running statistics, which would move without a learning rate
    _, fitted = train(model, epochs=10, patience=2, lr=1e-20, samples_per_epoch=8)
    assert len(fitted.history) == 3 and fitted.best_epoch == 1


@pytest.mark.slow
def test_the_best_epoch_is_on_the_disk(train, tmp_path, here, coloured):
    # The validation labels have nothing to do with the colours, so that the best epoch is not simply the last.
    labels = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1]
    model, states = fresh(), []
    puzzling = coloured([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1], seed=2)
    puzzling = replace(puzzling, labels=np.array(labels))

    def keep(history):
        states.append({name: tensor.clone() for name, tensor in model.inner.state_dict().items()})
        saved, evidence = load_network(tmp_path / "best.pt")
        assert evidence["epoch"] == best_epoch(history)
        assert same(saved.inner.state_dict(), states[evidence["epoch"] - 1])

    fitted = fit(
        model,
        coloured(TRAINING, seed=1),
        puzzling,
        small(epochs=4, patience=4, lr=1e-2),
        device=here,
        work=tmp_path,
        on_epoch=keep,
    )
    assert len(states) == 4 and not same(states[0], states[-1])
    assert same(model.inner.state_dict(), states[-1])  # in memory is the last

    best, evidence = load_network(tmp_path / "best.pt")
    entry = fitted.history[fitted.best_epoch - 1]
    assert evidence["epoch"] == fitted.best_epoch and evidence["threshold"] == entry["validation/threshold"]
    again = best_threshold(puzzling.labels, score_patches(best, puzzling.windows, here))
    assert again == (entry["validation/threshold"], entry["validation/best_f1"])


class Killed(BaseException):
    """Stands for whatever ends a process between two lines."""


def killing(moment):
    """A hook that lets training pass until `moment` says of its arguments that it is over."""

    def hook(*arguments):
        if moment(*arguments):
            raise Killed

    return hook


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory, here, coloured):
    work = tmp_path_factory.mktemp("never-killed")
    model = fresh()
    fitted = fit(
        model,
        coloured(TRAINING, seed=1),
        coloured(VALIDATION, seed=2),
        small(mining=MINED),
        device=here,
        work=work,
    )
    assert len({epoch["validation/loss"] for epoch in fitted.history}) == 3
    return model.inner.state_dict(), fitted, work


@pytest.mark.slow
@pytest.mark.parametrize(
    "hook",
    [
        {"on_epoch": killing(lambda history: len(history) == 1)},
        {"on_batch": killing(lambda label, done, of: label == "epoch 2/3 mine")},
        {"on_batch": killing(lambda label, done, of: label == "epoch 2/3 train" and done == 8)},
        {"on_batch": killing(lambda label, done, of: label == "epoch 3/3 validate")},
        {"on_epoch": killing(lambda history: len(history) == 3)},
    ],
    ids=["after epoch 1", "while mining", "in epoch 2", "while validating epoch 3", "at the very end"],
)
def test_a_killed_and_resumed_run_equals_one_that_never_was(train, tmp_path, never_killed, hook):
    state, expected, work = never_killed
    with pytest.raises(Killed):
        train(fresh(), mining=MINED, **hook)
    torch.manual_seed(12345)  # another process would come with other chance
    np.random.seed(12345)
    model, fitted = train(fresh(), mining=MINED)
    np.testing.assert_array_equal(fitted.hardness, expected.hardness)
    assert same(model.inner.state_dict(), state)
    assert lasting(fitted.history) == lasting(expected.history) and fitted.best_epoch == expected.best_epoch
    saved, other = load(tmp_path / "work" / "best.pt"), load(work / "best.pt")
    assert same(saved.pop("state"), other.pop("state")) and saved == other


@pytest.mark.slow
def test_a_resume_continues_where_it_stopped(train):
    with pytest.raises(Killed):
        train(on_epoch=killing(lambda history: len(history) == 2))
    calls, labels = [], set()
    train(on_epoch=lambda history: calls.append(len(history)), on_batch=lambda label, done, of: labels.add(label))
    assert calls == [2, 3]  # what was reached, then the epoch that was left
    assert labels == {"epoch 3/3 train", "epoch 3/3 validate"}


def test_a_finished_run_is_not_trained_again(train):
    model, fitted = train(epochs=1)
    again, repeated = train(epochs=1, on_batch=lambda *batch: pytest.fail("trained again"))
    assert repeated == fitted
    assert same(again.inner.state_dict(), model.inner.state_dict())


@pytest.mark.slow
def test_another_fingerprint_starts_afresh(train, tmp_path):
    train(epochs=1, seed=9, fingerprint="old")
    calls = []
    model, fitted = train(epochs=1, fingerprint="new", on_epoch=lambda history: calls.append(len(history)))
    assert calls == [1]
    alone, expected = train(epochs=1, fingerprint="new", work="other")
    assert same(model.inner.state_dict(), alone.inner.state_dict())
    assert lasting(fitted.history) == lasting(expected.history)
    assert same(load(tmp_path / "work" / "best.pt")["state"], load(tmp_path / "other" / "best.pt")["state"])


def test_the_seed_decides_the_training(train):
    one, other = (
        train(epochs=1, samples_per_epoch=4, seed=seed, work=str(seed))[0].inner.state_dict() for seed in (1, 2)
    )
    assert not same(one, other)


def test_a_frozen_body_stays_as_it_was(train):
    model = fresh("classifier")
    model.freeze_all_but_head()
    before = {name: tensor.clone() for name, tensor in model.inner.state_dict().items()}
    train(model, epochs=1)
    changed = {name for name, tensor in model.inner.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


def test_one_step_is_a_training_too(train):
    _, fitted = train(epochs=1, samples_per_epoch=2, batch_size=64)
    assert len(fitted.history) == 1


@pytest.mark.parametrize(
    "labels",
    [{"validation": [0, 0, 0]}, {"training": [0, 0, 0]}, {"training": [1, 1, 1]}],
    ids=["no mitosis to validate", "no mitosis to learn", "nothing but mitoses"],
)
def test_a_missing_class_is_rejected(train, tmp_path, labels):
    with pytest.raises(ValueError, match="both classes, and validation needs mitoses"):
        train(**labels)
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("samples", [24, 8], ids=["during an epoch", "in its last step"])
def test_a_learning_rate_that_explodes_is_reported(train, tmp_path, samples):
    with pytest.raises(FloatingPointError, match=r"epoch 1 .*lower lr"):
        train(fresh("classifier"), lr=1e30, samples_per_epoch=samples)
    assert not list((tmp_path / "work").iterdir())  # no checkpoint of it


@pytest.mark.slow
def test_kill_9_and_another_process_give_the_same_weights(tmp_path, programs):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = subprocess.run([programs / "python", killed_training.__file__, killed], timeout=300, check=False)
    assert first.returncode == 128 + signal.SIGKILL
    assert len(load(killed / "last.pt")["history"]) == 1
    killed_training.train(killed, kill=False)
    killed_training.train(whole, kill=False)
    resumed, expected = load(killed / "last.pt"), load(whole / "last.pt")
    assert same(resumed["state"], expected["state"])
    assert lasting(resumed["history"]) == lasting(expected["history"]) and len(resumed["history"]) == 2
    assert sorted(path.name for path in killed.iterdir()) == ["best.pt", "last.pt"]
