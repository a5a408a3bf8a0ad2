"""Features of a frozen network are those of `pool_patches`, and are computed once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitoscope.learning import features
from mitoscope.learning.batches import Windows
from mitoscope.learning.features import digest_features, pool_cached
from mitoscope.learning.networks import build
from mitoscope.learning.scoring import pool_patches
from tests.conftest import NETWORK


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build({"backbone": NETWORK, "head": "pooled", "patch_size": 32, "input_size": 32}).eval()


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    """Seven windows of two stored fields, in any order, and not all that are stored."""
    stores = []
    for name, count in (("01_01", 5), ("02_01", 6)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 46, 46, 3)).astype(np.uint8)
        np.save(tmp_path / f"{name}.npy", pixels)
        stores.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    return Windows(stores, np.array([1, 0, 0, 1, 1, 0, 1]), np.array([5, 0, 3, 1, 2, 4, 0]))


@pytest.fixture
def pool(model, windows, here, tmp_path):
    def call(of=windows, on_batch=None):
        out = np.zeros((len(of), model.pooled.channels), np.float32)
        pool_cached(model, of, here, views=2, cache=tmp_path / "cache", out=out, on_batch=on_batch)
        return out

    return call


def test_they_are_the_networks_features(pool, model, windows, here):
    calls = []
    found = pool(on_batch=lambda *call: calls.append(call))
    np.testing.assert_allclose(found, pool_patches(model, windows, here, views=2), rtol=1e-4, atol=1e-5)
    assert calls == [(3, 7), (7, 7)]


def test_every_field_is_computed_once(pool, windows, monkeypatch):
    only_first = windows.take(np.flatnonzero(windows.store == 0))
    some, counts = pool(only_first), []

    def counted(model, windows, *rest, **options):
        counts.append(len(windows))
        return pool_patches(model, windows, *rest, **options)

    monkeypatch.setattr(features, "pool_patches", counted)
    first, again = pool(), pool()
    assert counts == [6]  # of the second field; all five of the first were computed before
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[windows.store == 0], some)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_computed_again(pool, tmp_path, damage):
    expected, path = pool(), tmp_path / "cache/01_01.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-100] if damage is None else damage)
    np.testing.assert_array_equal(pool(), expected)
    assert path.read_bytes() == content


def test_features_of_another_shape_are_computed_again(pool, tmp_path):
    expected = pool()
    np.save(tmp_path / "cache/02_01.npy", expected[:2])
    np.testing.assert_array_equal(pool(), expected)


def test_the_digest_is_of_the_features_alone(model, here):
    before = digest_features(model, here, [2, "patches"])
    with torch.no_grad():
        for parameter in model.pooled.classifier.parameters():
            parameter.add_(1)  # as a training of the head alone does
    assert digest_features(model, here, [2, "patches"]) == before
    others = [digest_features(model, here, [4, "patches"]), digest_features(model, here, [2, "others"])]
    others.append(digest_features(model, replace(here, bf16=not here.bf16), [2, "patches"]))
    with torch.no_grad():
        next(model.pooled.features.parameters()).add_(1)
    others.append(digest_features(model, here, [2, "patches"]))
    assert len({before, *others}) == 5
