"""Checkpoints are whole or absent, and reading one runs no code from it."""

import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import load, load_network, save, save_network
from mitoscope.learning.networks import build

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # garbage may name any

SMALL = "shufflenet_v2_x0_5"
CONTENT = {"state": {"weight": torch.arange(6.0).view(2, 3)}, "epoch": 3, "history": [{"f1": 0.5}], "name": "µ"}


def refused(path) -> str:
    """Load what must not load; the message, which is one line that names the file."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "last.pt"
    save(path, CONTENT)
    loaded = load(path)
    assert torch.equal(loaded["state"].pop("weight"), CONTENT["state"]["weight"])
    assert loaded == {**CONTENT, "state": {}}
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_equal_content_gives_equal_bytes_whatever_the_file_and_the_process(tmp_path, monkeypatch):
    save(tmp_path / "start.pt", CONTENT)
    monkeypatch.setattr(os, "getpid", lambda: 99999)  # in the name of the temporary file
    save(tmp_path / "other.pt", CONTENT)
    assert (tmp_path / "start.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


class Stop:
    """Raises when it is saved, in the middle of the file."""

    def __reduce__(self):
        raise KeyboardInterrupt


def test_a_save_that_breaks_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    save(path, CONTENT)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save(path, {"state": torch.zeros(1000), "stop": Stop()})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


class Payload:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path, write):
    path, marker = tmp_path / "evil.pt", tmp_path / "it-ran"
    content = {"state": {}, "more": Payload(f"touch {marker}")}
    if write == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    refused(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if write == "torch" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the payload was a working one


def test_a_missing_file_is_named(tmp_path):
    assert refused(tmp_path / "none.pt").endswith("no such file")


def test_a_folder_and_a_lone_tensor_are_rejected(tmp_path):
    refused(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "contains Tensor" in refused(tmp_path / "tensor.pt")


def test_a_truncated_file_is_rejected_wherever_it_ends(tmp_path):
    path = tmp_path / "last.pt"
    save(path, CONTENT)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refused(path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail)))
def test_garbage_is_rejected(tmp_path, garbage):
    path = tmp_path / "garbage.pt"
    path.write_bytes(garbage)
    try:
        content = load(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert isinstance(content, dict)  # a pickled empty dictionary is two bytes long


@pytest.mark.parametrize("text", ["so this is a text file\n", "GIF89a", "Xylem", "1\n2\n3\n"])
def test_another_kind_of_file_is_rejected(tmp_path, text):
    path = tmp_path / "notes.pt"
    path.write_text(text)
    refused(path)


@pytest.fixture
def model():
    """A network whose running statistics are not the initial ones."""
    model = build({"backbone": SMALL, "head": "classifier", "patch_size": 32, "input_size": 40}).train()
    with torch.no_grad():
        model(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8))
    return model


def test_a_loaded_network_answers_bit_for_bit_the_same(tmp_path, model):
    path = tmp_path / "best.pt"
    save_network(path, model, threshold=0.25, run="abc")
    loaded, evidence = load_network(path)
    assert evidence == {**model.describe(), "threshold": 0.25, "run": "abc"}
    assert not loaded.training
    patches = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(patches), model.eval()(patches))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("state"), "lacks 'state'"),
        (lambda content: content.pop("backbone"), "lacks 'backbone'"),
        (lambda content: content["state"].pop("fc.weight"), "the weights do not fit"),
        (lambda content: content.update(backbone="alexnett"), "no classification network 'alexnett'"),
        (lambda content: content.update(backbone="resnet18"), "the weights do not fit resnet18"),
        (lambda content: content.update(backbone=7), "cannot be built"),
        (lambda content: content.update(state="nothing"), "cannot be built"),
        (lambda content: content.update(state={"fc.weight": "nothing"}), "the weights do not fit"),
    ],
    ids=["no state", "no backbone", "tensor less", "unknown", "other", "number", "no tensors", "no tensor"],
)
def test_a_file_without_a_whole_network_is_rejected(tmp_path, model, spoil, message):
    content = {**model.describe(), "state": model.inner.state_dict()}
    spoil(content)
    path = tmp_path / "best.pt"
    save(path, content)
    with pytest.raises(InputError, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: contains a network that cannot be built (") or "lacks" in message
    assert "\n" not in str(caught.value)
