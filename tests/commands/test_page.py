"""A page is the built site with an export; tests/web opens it in a browser."""

import json
import re
from pathlib import Path

import pytest

from mitoscope.commands import page as command
from mitoscope.commands.page import page
from mitoscope.errors import InputError
from mitoscope.files import hash_file

EXPORT, OUT = Path("exported"), Path("page")


@pytest.fixture(autouse=True)
def exported(tmp_path, monkeypatch):
    """An export whose networks are a few bytes: `page` does not open them."""
    monkeypatch.chdir(tmp_path)
    EXPORT.mkdir()
    networks = {}
    for name in ("network.onnx", "network-int8.onnx"):
        (EXPORT / name).write_text(name)
        networks[name] = {"sha256": hash_file(EXPORT / name)}
    content = {
        "format": 1,
        "network": "network-int8.onnx",
        "networks": networks,
        "model": "models:/mitoscope@champion",
        "origin": {"synthetic": True},
    }
    (EXPORT / "detector.json").write_text(json.dumps(content))


def write(**options):
    page(EXPORT, out=OUT, **{"int8": False, "replace": False} | options)


def files() -> dict[str, str]:
    """The files that the service worker keeps, with their hashes."""
    listed = re.search(r'\[\{"url": .*?\}\]', (OUT / "sw.js").read_text())
    assert listed is not None
    return {entry["url"]: entry["revision"] for entry in json.loads(listed[0])}


@pytest.mark.parametrize(("int8", "name"), [(False, "network.onnx"), (True, "network-int8.onnx")])
def test_a_page_has_one_network_and_keeps_every_file(int8, name, capsys):
    """Also where int8 is the export's default: the page's scores are those of `mitoscope detect`."""
    write(int8=int8)
    assert {path.name for path in (OUT / "detector").iterdir()} == {"detector.json", name}
    assert json.loads((OUT / "detector" / "detector.json").read_text())["network"] == name
    kept = {path.relative_to(OUT).as_posix(): hash_file(path) for path in OUT.rglob("*") if path.is_file()}
    del kept["sw.js"]
    assert files() == kept and "index.html" in kept
    said = " ".join(capsys.readouterr().out.split())
    assert f"page: models:/mitoscope@champion ({name}), trained on synthetic data" in said and "http.server" in said


def test_another_export_gives_another_worker():
    """Else a browser would not notice it."""
    write()
    before = files()
    content = (EXPORT / "detector.json").read_text()
    (EXPORT / "detector.json").write_text(content.replace("champion", "other"))
    write(replace=True)
    assert {name for name, digest in files().items() if digest != before[name]} == {"detector/detector.json"}


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("other")])
def test_a_changed_export_is_rejected(change):
    change(EXPORT / "network.onnx")
    with pytest.raises(InputError, match=r"network\.onnx: is missing or was changed; run `mitoscope export --model"):
        write()
    assert not OUT.exists()


def test_a_folder_without_an_export_names_the_command():
    (EXPORT / "detector.json").unlink()
    with pytest.raises(InputError, match=r"detector\.json: no such file; run `mitoscope export --model .* --out exp"):
        write()


def test_an_export_of_another_version_is_rejected():
    (EXPORT / "detector.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="has another format than this version's"):
        write()


def test_other_files_are_left_alone():
    OUT.mkdir()
    (OUT / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"page: has files, but no sw\.js of an earlier page; choose another folder"):
        write(replace=True)
    assert [path.name for path in OUT.iterdir()] == ["mine.txt"]


def test_a_site_that_is_not_built_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "SITE", tmp_path / "site")
    with pytest.raises(InputError, match="the page is not built; run `make setup`"):
        write()
