"""A page is the built site with an export; tests/web opens it in a browser."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mitoscope.commands import page as command
from mitoscope.commands.page import page, read_page
from mitoscope.errors import InputError
from mitoscope.exporting.folder import describe
from mitoscope.files import hash_file
from tests.conftest import NETWORK, small_detector

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
        "network": "network-int8.onnx",
        "networks": networks,
        "model": "models:/mitoscope@champion",
        "detector_sha256": "d" * 64,
        "version": "0.2",
        "card": "Tested on the patient Meier.",
    }
    detector = small_detector()
    origin = replace(detector.origin, patients={"train": ["Meier"], "validation": []})
    (EXPORT / "detector.json").write_text(json.dumps(describe(replace(detector, origin=origin)) | content))


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


def test_a_page_names_no_patient():
    """It may be public."""
    assert "Meier" in (EXPORT / "detector.json").read_text()
    write()
    for path in OUT.rglob("*"):
        assert path.is_dir() or b"Meier" not in path.read_bytes()
    origin = json.loads((OUT / "detector" / "detector.json").read_text())["origin"]
    assert origin == {"network": NETWORK, "microns_per_pixel": 0.25, "synthetic": True}


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
    with pytest.raises(InputError, match=r"exported: has no detector\.json; give the folder that `mitoscope export` w"):
        write()
    shutil.rmtree(EXPORT)
    with pytest.raises(InputError, match=r"detector\.json: no such file; run `mitoscope export --model .* --out exp"):
        write()


@pytest.mark.parametrize(
    ("content", "line"),
    [('{"format": 1}', "has another format than this version's"), ('{"format": 2}', r"is damaged \(networks\)")],
)
def test_an_export_of_another_version_is_rejected(content, line):
    (EXPORT / "detector.json").write_text(content)
    with pytest.raises(InputError, match=line):
        write()


def test_the_page_is_read_again_by_the_service():
    write()
    assert read_page(OUT)["detector_sha256"] == "d" * 64
    (OUT / "detector" / "detector.json").write_text("{}")
    with pytest.raises(InputError, match="page: has no detector of a page; give the folder that `mitoscope page` w"):
        read_page(OUT)


def test_other_files_are_left_alone():
    OUT.mkdir()
    for name in ("mine.txt", "sw.js"):  # many sites have one
        (OUT / name).write_text("precious")
    with pytest.raises(InputError, match=r"page: has files that are of no page, such as mine\.txt; choose another"):
        write(replace=True)
    assert {path.name for path in OUT.iterdir()} == {"mine.txt", "sw.js"}


@pytest.mark.parametrize(("export", "out"), [("exported", "exported/in"), ("site/exported", "site"), ("site", "site")])
def test_the_export_and_the_page_lie_beside_each_other(export, out):
    """Else one would be replaced together with the other."""
    Path(export).parent.mkdir(exist_ok=True)
    EXPORT.rename(export)
    with pytest.raises(InputError, match=f"{out}: must lie beside {export}, not in it or round it"):
        page(Path(export), out=Path(out), int8=False, replace=True)
    assert (Path(export) / "detector.json").exists()


def test_a_site_that_is_not_built_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "SITE", tmp_path / "site")
    with pytest.raises(InputError, match="the page is not built; run `make setup`"):
        write()
