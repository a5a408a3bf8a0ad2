"""Command `page`: a web page that runs an exported detector in the browser."""

import json
import shutil
from pathlib import Path
from typing import Any

import mitoscope
from mitoscope.errors import InputError
from mitoscope.exporting.folder import DETECTOR, FLOAT, INT8, read_export
from mitoscope.files import atomic_folder, hash_file, read_json, write_json, write_text
from mitoscope.progress import console

SITE = Path(mitoscope.__file__).parent / "site"  # `npm run build` in web/ writes it
INDEX, WORKER = "index.html", "sw.js"
_DETECTOR_FOLDER = "detector"
_PLACE = "self.__FILES"  # in the service worker, for the list of files


def page(export: Path, *, out: Path, int8: bool, replace: bool) -> None:
    """Write a static web page with a detector: it opens fields and finds their mitoses without a server.

    Args:
        export: folder that `mitoscope export` wrote.
        out: output folder.
        int8: use the network with int8 weights, which is smaller, and whose scores differ.
        replace: replace an earlier page in `out`.

    Raises:
        InputError: `export` is no export or was changed, the page is not built, or `out` has other files or the export.
    """
    if not (SITE / INDEX).exists():
        raise InputError(f"{SITE}: the page is not built; run `make setup` in a clone of the project")
    _check_out(out, export)
    network = INT8 if int8 else FLOAT
    content = read_export(export, network)
    with atomic_folder(out, replace=replace) as folder:
        shutil.copytree(SITE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(_DETECTOR_FOLDER))
        detector = folder / _DETECTOR_FOLDER
        detector.mkdir()
        shutil.copyfile(export / network, detector / network)
        write_json(detector / DETECTOR, _shown(content, network))
        _list_files(folder)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    synthetic = ", trained on synthetic data" if content["origin"]["synthetic"] else ""
    console.print(f"{out}: {content['model']} ({network}){synthetic}, {size:.1f} MB; for research only", markup=False)
    console.print(
        f"Put the folder on any web server with https, or try it: python -m http.server --bind 127.0.0.1 -d {out} 8200",
        markup=False,
    )


def _check_out(out: Path, export: Path) -> None:
    """Check that nothing but an earlier page would be replaced.

    Raises:
        InputError: `out` has other files, or `export` lies in it or round it.
    """
    one, other = out.resolve(), export.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise InputError(f"{out}: must lie beside {export}, not in it or round it; choose another folder")
    if out.is_dir():
        known = {_DETECTOR_FOLDER, *(path.name for path in SITE.iterdir())}
        if others := sorted(path.name for path in out.iterdir() if path.name not in known):
            raise InputError(f"{out}: has files that are of no page, such as {others[0]}; choose another folder")


def read_page(folder: Path) -> dict[str, Any]:
    """Return the detector.json of a page.

    Raises:
        InputError: `folder` has no page.
    """
    remedy = "give the folder that `mitoscope page` wrote"
    if not (folder / INDEX).exists():
        raise InputError(f"{folder}: has no {INDEX} of a page; {remedy}")
    content = read_json(folder / _DETECTOR_FOLDER / DETECTOR, remedy)
    if "detector_sha256" not in content:
        raise InputError(f"{folder}: has no detector of a page; {remedy}")
    return content


def _shown(content: dict[str, Any], network: str) -> dict[str, Any]:
    """Return what the page uses: nothing on the patients, since the page may be public."""
    origin = {name: content["origin"][name] for name in ("network", "microns_per_pixel", "synthetic")}
    networks = {network: {"sha256": content["networks"][network]["sha256"]}}
    used = ("format", "version", "patch_size", "extract", "detection", "field_head", "calibration", "threshold")
    kept = {name: content[name] for name in (*used, "model", "detector_sha256")}
    return kept | {"network": network, "networks": networks, "origin": origin}


def _list_files(folder: Path) -> None:
    """Tell the service worker the names and hashes of all other files, which it keeps on the device."""
    worker = folder / WORKER
    files: list[dict[str, Any]] = [
        {"url": path.relative_to(folder).as_posix(), "revision": hash_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != worker
    ]
    text = worker.read_text(encoding="utf-8")
    assert text.count(_PLACE) == 1
    write_text(worker, text.replace(_PLACE, json.dumps(files)))
