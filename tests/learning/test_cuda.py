"""On a GPU: training learns and resumes, scores are those of a processor, and a detector works on both."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import logit
from sklearn.metrics import average_precision_score

from mitoscope.datasets.readers import read_image
from mitoscope.detection.detector import Detector
from mitoscope.detection.fit import fit_detector
from mitoscope.detection.stored import StoredFields, read_samples
from mitoscope.detection.whole_fields import score_whole_fields
from mitoscope.evaluation.metrics import patch_scores
from mitoscope.learning import loop
from mitoscope.learning.devices import join
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.scoring import pool_patches, score_patches
from mitoscope.params import Detection, Evaluate
from tests.conftest import small_detector
from tests.learning.conftest import small

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    # A few layers have no repeatable kernel; docs/explanation/determinism.md says so too.
    pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning"),
]

MINED = {"start_epoch": 1, "every": 1, "lr_factor": 0.5}
TRAINING, VALIDATION = [1, 0, 0, 1, 0, 0, 1, 0] * 2, [0, 1, 0, 0, 1, 0, 0]


@pytest.fixture
def gpu(monkeypatch):
    """The GPU as the stages use it; torch's switches are put back afterwards."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with join() as device:
        yield device
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def train(gpu, coloured, tmp_path):
    """Train a fresh network on the GPU, on small coloured patches; `work` is the folder of the checkpoints."""

    def run(work="work", *, backbone="mobilenet_v3_small", head="classifier", on_batch=None, device=gpu, **changes):
        (tmp_path / work).mkdir(exist_ok=True)
        description = {"backbone": backbone, "head": head, "patch_size": 32, "input_size": 32}
        model = build(description, start_state(backbone, None, 3, head)[0])
        fitted = loop.fit(
            model,
            coloured(TRAINING, seed=1),
            coloured(VALIDATION, seed=2),
            small(**changes),
            device=device,
            measure=patch_scores,
            work=tmp_path / work,
            fingerprint="a",
            on_batch=on_batch,
        )
        return model, fitted

    return run


def settle_batch_norms(model):
    """Give the layers of an untrained network statistics; without them its answers are alike but for rounding."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for layer in model.train().modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.5
        for _ in range(10):
            model(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8))
    model.eval()


def untrained(backbone, head, patches, here):
    """A network of chance, whose answers to these patches are spread as those of a trained one."""
    description = {"backbone": backbone, "head": head, "patch_size": 32, "input_size": 64}
    model = build(description, start_state(backbone, None, 3, head)[0])
    settle_batch_norms(model)
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        if head == "pooled":  # starts at 0
            last.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
        last.weight /= logit(score_patches(model, patches.windows, here)).std()
        last.bias[1] -= logit(score_patches(model, patches.windows, here)).mean()
    return model


@pytest.fixture
def patches(coloured):
    """More than a batch of patches, a third of them mitoses."""
    return coloured([0, 1, 0] * 100, seed=3)


def test_training_learns(train, gpu, coloured):
    unseen = coloured([0, 1] * 20, seed=3)
    model, fitted = train(backbone="squeezenet1_1", head="pooled", lr=1e-2, samples_per_epoch=64, epochs=2)
    assert fitted.history[-1]["train/loss"] < fitted.history[0]["train/loss"]
    assert fitted.history[fitted.best_epoch - 1]["validation/best_f1"] == 1.0
    assert next(model.parameters()).device.type == "cuda"
    assert average_precision_score(unseen.labels, score_patches(model, unseen.windows, gpu)) > 0.95


@pytest.mark.parametrize(
    "moment", [("epoch 2/3 train", 8), ("epoch 3/3 validate", 7)], ids=["in epoch 2", "while validating epoch 3"]
)
def test_a_killed_and_resumed_run_ends_nearly_like_one_that_never_was(train, gpu, coloured, moment):
    """Nearly: a GPU has a few operations that cannot be repeated exactly."""

    def kill(label, done, of):
        if (label, done) == moment:
            raise KeyboardInterrupt

    whole, expected = train("whole", mining=MINED)
    with pytest.raises(KeyboardInterrupt):
        train("killed", mining=MINED, on_batch=kill)
    torch.manual_seed(12345)  # another process would come with other chance
    labels = []
    resumed, fitted = train("killed", mining=MINED, on_batch=lambda label, done, of: labels.append(label))
    assert labels[0].startswith(moment[0][:9])  # the epoch that was left, not the first

    first, last = (fitted.history[0], fitted.history[-1]), (expected.history[0], expected.history[-1])
    for one, other in zip(first, last, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=0.02)
        assert one["train/lr"] == other["train/lr"]
    unseen = coloured([0, 1] * 20, seed=4).windows
    scores = [score_patches(model, unseen, gpu) for model in (whole, resumed)]
    np.testing.assert_allclose(*scores, atol=0.02)


@pytest.mark.parametrize(
    ("backbone", "head"), [("alexnet", "classifier"), ("alexnet", "pooled"), ("densenet161", "classifier")]
)
def test_scores_are_those_of_a_processor(gpu, here, patches, backbone, head):
    """Thresholds must mean the same on both, so TensorFloat-32 is off."""
    model = untrained(backbone, head, patches, here)
    on_cpu = score_patches(model, patches.windows, here)
    on_gpu = score_patches(model.to(gpu.torch), patches.windows, gpu)
    assert on_cpu.std() > 0.1  # else any network would agree
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4, rtol=0)
    precision = [average_precision_score(patches.labels, scores) for scores in (on_cpu, on_gpu)]
    assert precision[1] == pytest.approx(precision[0], abs=0.002)


@pytest.mark.parametrize("backbone", ["alexnet", "densenet161"])
def test_pooled_features_are_those_of_a_processor(gpu, here, patches, backbone):
    some = patches.take(np.arange(60))
    model, windows = untrained(backbone, "pooled", some, here), some.windows
    on_cpu = pool_patches(model, windows, here, views=2)
    on_gpu = pool_patches(model.to(gpu.torch), windows, gpu, views=2)
    assert on_gpu.dtype == np.float32
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4, rtol=1e-3)


def test_a_detector_of_the_gpu_detects_the_same_on_a_processor(gpu, raw, tmp_path):
    image = read_image(raw / "01_01.jpg")
    detector = small_detector().to(gpu.torch)
    found = detector.detect(image)
    detector.save(tmp_path / "detector.pt")
    loaded = Detector.load(tmp_path / "detector.pt")
    assert next(loaded.model.parameters()).device.type == "cpu"
    again = loaded.detect(image)
    assert len(found.points) > 0
    order = [np.lexsort(detections.points.T) for detections in (found, again)]  # equal scores may change places
    np.testing.assert_array_equal(found.points[order[0]], again.points[order[1]])
    np.testing.assert_allclose(found.probabilities[order[0]], again.probabilities[order[1]], atol=1e-4)


@pytest.mark.usefixtures("float32_detectors")
@pytest.mark.parametrize(("backbone", "head"), [("alexnet", "classifier"), ("densenet161", "pooled")])
def test_whole_fields_have_the_scores_of_a_processor(gpu, _extracted, tmp_path, backbone, head):
    """A network and its detector, trained and fitted on the GPU, in all eight fields of the four patients."""
    patches, split = _extracted / "patches", _extracted / "results/split.csv"
    training, validation = (read_samples(patches, split, subset)[0] for subset in ("train", "validation"))
    model = build(
        {"backbone": backbone, "head": head, "patch_size": 32, "input_size": 64},
        start_state(backbone, None, 3, head)[0],
    )
    settings = small(samples_per_epoch=512, batch_size=32, lr=3e-4, epochs=2)
    loop.fit(model, training, validation, settings, device=gpu, measure=patch_scores, work=None, fingerprint="")
    fitted, _ = fit_detector(
        model,
        training,
        StoredFields.read(patches, split, "validation"),
        inner=None,
        extract=small_detector().extract,
        detection=Detection(views=2, refit_fields=head == "pooled"),
        patch_threshold=0.5,
        origin=small_detector().origin,
        device=gpu,
        cache=None,
        work=tmp_path,
        show=lambda *_: None,
    )
    fields = StoredFields.read(patches, split, "train", "validation", "test")
    on_cpu, on_gpu = (
        score_whole_fields(fitted.to(device), fields, Evaluate(bootstrap=100))
        for device in (torch.device("cpu"), gpu.torch)
    )
    assert len(fields.areas_mm2) == 8 and on_cpu.metrics["ap"] > 0.4  # else any network would agree
    assert on_gpu.metrics["ap"] == pytest.approx(on_cpu.metrics["ap"], abs=0.002)
    found = [
        scores.objects[scores.objects.predicted == 1].set_index(["patient", "field", "row", "col"]).index
        for scores in (on_cpu, on_gpu)
    ]
    assert len(found[0]) > 0 and set(found[0]) == set(found[1])


def test_bfloat16_is_for_training_only(train, gpu, here, patches):
    if not gpu.bf16:
        pytest.skip("this GPU has no bfloat16")
    seen = []

    def watch(module, inputs, output):
        seen.append((module.training, output.dtype))

    hook = partial(torch.nn.modules.module.register_module_forward_hook, watch)
    with hook():
        train(epochs=1, samples_per_epoch=8)
    assert {training for training, _ in seen} == {True, False}
    assert torch.bfloat16 in {dtype for training, dtype in seen if training}
    assert {dtype for training, dtype in seen if not training} == {torch.float32}

    model = untrained("alexnet", "classifier", patches, here).to(gpu.torch)
    with_bf16, without = (score_patches(model, patches.windows, replace(gpu, bf16=bf16)) for bf16 in (True, False))
    np.testing.assert_allclose(with_bf16, without, atol=1e-6)
