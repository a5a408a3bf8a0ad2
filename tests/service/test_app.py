"""The service answers as the detector does, says in one line what it does not take, and protects itself."""

import json
import time
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mitoscope import __version__
from mitoscope.commands.page import SITE
from mitoscope.errors import InputError
from mitoscope.reporting.exports import detected_annotations, write_annotations
from mitoscope.reporting.overlays import NUCLEUS_UM
from mitoscope.service.app import _PAGE_HEADERS
from mitoscope.service.desk import NoVersionError
from tests.service.conftest import MOST_BYTES, NAME, running
from tests.serving.conftest import claiming_bytes, encoded
from tests.threads import wait_until

TOKEN = "0123456789abcdef"


class TestAnswers:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_a_field_is_answered_as_detect_does(self, service, detector, image, sent, kind):
        expected = detector.detect(image)
        status, answer = service.ask(sent(kind))
        assert status == 200 and len(expected.points) > 1
        assert [[mitosis["row"], mitosis["col"]] for mitosis in answer["mitoses"]] == expected.points.tolist()
        assert [mitosis["probability"] for mitosis in answer["mitoses"]] == expected.probabilities.tolist()
        area = (400 * 0.25 / 1000) ** 2
        assert answer["area_mm2"] == pytest.approx(area)
        assert answer["count"] == len(expected.points) == pytest.approx(answer["per_mm2"] * area)
        assert answer["per_2mm2"] == pytest.approx(2 * answer["per_mm2"])
        assert (answer["width"], answer["height"], answer["notes"]) == (400, 400, [])
        assert answer["use"] == "research only"

    def test_it_says_which_detector_answered(self, service, detector, sent):
        model = service.ask(sent(rows=100))[1]["model"]
        assert model == service.client.get("/model").json()
        assert (model["name"], model["version"], model["detector_sha256"]) == (NAME, 1, "0" * 64)
        assert (model["threshold"], model["synthetic"]) == (detector.threshold, detector.origin.synthetic)

    def test_a_form_and_a_body_of_any_type_are_the_same(self, service, sent):
        content = sent(rows=200)
        answers = [service.ask(content, headers={"Content-Type": kind}) for kind in ("image/png", "text/plain")]
        form = service.client.post("/detect", files={"field": ("a name.png", content)})
        assert answers[0] == answers[1] == (form.status_code, form.json())

    @pytest.mark.parametrize(
        ("options", "query", "expected"),
        [
            ({}, {}, (0.25, "model")),
            ({"dpi": (50800, 50800)}, {}, (0.5, "file")),
            ({"dpi": (50800, 50800)}, {"microns_per_pixel": 0.3}, (0.3, "request")),
        ],
    )
    def test_the_pixel_size_is_that_of_the_request_the_file_or_the_model(
        self, service, detector, image, sent, options, query, expected
    ):
        answer = service.client.post("/detect", params=query, content=sent("TIFF", **options)).json()
        assert answer["microns_per_pixel"] == pytest.approx(expected[0], rel=1e-4)
        assert answer["pixel_size_from"] == expected[1]
        assert answer["count"] == len(detector.detect(image, answer["microns_per_pixel"]).points)

    def test_geojson_is_the_file_of_detect(self, service, detector, image, sent, tmp_path):
        found = detector.detect(image)
        annotations = detected_annotations(found.points, found.probabilities)
        write_annotations(tmp_path / "a.geojson", annotations, radius=NUCLEUS_UM / 0.25, shape=image.shape[:2])
        response = service.client.post("/detect", params={"format": "geojson"}, content=sent())
        assert response.headers["content-type"] == "application/geo+json"
        assert response.json() == json.loads((tmp_path / "a.geojson").read_text())

    def test_nothing_to_find_is_an_answer(self, service):
        status, answer = service.ask(encoded(np.full((50, 60, 3), 255, np.uint8), "PNG"))
        assert (status, answer["count"], answer["mitoses"], answer["per_mm2"]) == (200, 0, [], 0)

    def test_transparent_parts_are_said_and_are_no_area(self, service, image):
        alpha = np.full(image.shape[:2], 255, np.uint8)
        alpha[:100] = 0
        status, answer = service.ask(encoded(np.dstack([image, alpha]), "PNG"))
        assert status == 200 and answer["area_mm2"] == pytest.approx(0.0075)
        (note,) = answer["notes"]
        assert note.startswith("25% of it is transparent")


class TestRejections:
    @pytest.mark.parametrize(
        ("content", "query", "status", "line"),
        [
            (b"", {}, 422, "the request has no body"),
            (b"x", {"micron": 0.5}, 422, "micron: "),
            (b"BM" + bytes(100), {}, 422, "field is not a PNG, JPEG or TIFF file"),
            (encoded(np.zeros((9, 9), np.uint8), "PNG"), {}, 422, "field: is a grey image"),
            (encoded(np.zeros((90, 90, 3), np.uint8), "PNG")[:-60], {}, 422, "field: "),
            (claiming_bytes(30000, 30000), {}, 413, "field has 30000 x 30000 px, more than 100,000,000 px"),
            (claiming_bytes(6000, 6000), {"microns_per_pixel": 0.9}, 413, "field has 6000 x 6000 px, which the"),
            (bytes(MOST_BYTES + 1), {}, 413, "the request has more than 2,000,000 bytes"),
            (b"x", {"microns_per_pixel": 9}, 422, "microns_per_pixel: "),
            (b"x", {"microns_per_pixel": "nan"}, 422, "microns_per_pixel: "),
            (b"x", {"format": "xml"}, 422, "format: "),
            (encoded(np.zeros((9, 9, 3), np.uint8), "PNG"), {"microns_per_pixel": 1.5}, 422, "1.5 um per pixel: the "),
        ],
    )
    def test_what_is_not_answered_is_said_in_one_line(self, service, content, query, status, line):
        found, answer = service.ask(content, params=query)
        assert found == status
        assert list(answer) == ["detail"] and answer["detail"].startswith(line) and "\n" not in answer["detail"]

    @pytest.mark.parametrize("files", [{"picture": b"x"}, {"field": b"x", "other": b"x"}, [("field", b"x")] * 2])
    def test_a_form_has_one_file(self, service, files):
        response = service.client.post("/detect", files=files)
        assert response.status_code == 422 and "the form" in response.json()["detail"]
        response = service.client.post("/detect", files={"field": b"x"}, data={"microns_per_pixel": "0.5"})
        assert response.status_code == 422 and "the form" in response.json()["detail"]

    def test_more_requests_than_places_are_turned_away(self, service, sent):
        with service.desk.place(), service.desk.place(), service.desk.place():
            assert service.client.get("/ready").status_code == 200
            with service.desk.place():
                response = service.client.post("/detect", content=sent(rows=100))
                assert response.status_code == 429 and response.headers["retry-after"] == "2"
                assert response.json()["detail"] == "4 requests are here, which is the limit; try again"
                assert service.client.get("/ready").status_code == 429
                assert service.client.get("/health").status_code == 200
        assert service.ask(sent(rows=100))[0] == 200

    def test_a_failure_of_the_service_is_one_line_too(self, service, sent, monkeypatch):
        monkeypatch.setattr("mitoscope.service.routes.answer", lambda *_: 1 / 0)
        client = TestClient(service.client.app, raise_server_exceptions=False)
        response = client.post("/detect", content=sent(rows=100))
        assert (response.status_code, list(response.json())) == (500, ["detail"])
        assert service.desk.here == 0

    def test_a_token_is_asked_for(self, registry, sent):
        with running(registry, token=TOKEN) as service:
            for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}):
                status, answer = service.ask(sent(rows=100), headers=headers)
                assert status == 401 and "token" in answer["detail"]
                for path in ("/model", "/metrics"):
                    assert service.client.get(path, headers=headers).status_code == 401
            assert service.ask(sent(rows=100), headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
            assert service.client.get("/ready").status_code == 200

    @pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
    def test_pages_elsewhere_get_nothing(self, registry, sent, host):
        content = sent(rows=100)
        with running(registry, hosts=("127.0.0.1", "localhost", "::1")) as service:
            for origin in ({}, {"Origin": f"http://{host}"}):
                assert service.ask(content, headers={"Host": host} | origin)[0] == 200
            # A page whose name leads here, and pages that let a browser send a request.
            for others in (
                {"Host": "evil.example"},
                {"Host": "["},
                *({"Origin": o} for o in ("http://evil.example", "null")),
            ):
                for path in ("/detect", "/model", "/metrics", "/health"):
                    ask = service.client.post if path == "/detect" else service.client.get
                    response = ask(path, headers={"Host": host} | others)
                    assert response.status_code == 403 and "of this machine" in response.json()["detail"]


class TestVersions:
    def test_another_version_takes_over(self, service, registry, sent):
        registry.number = 2
        wait_until(lambda: service.said)
        assert service.said == ["version 2 is served now"] and registry.loaded == [1, 2]
        assert service.ask(sent(rows=100))[1]["model"]["version"] == 2

    def test_without_a_version_nothing_is_served_until_there_is_one(self, service, registry, sent):
        registry.error = NoVersionError("there is no champion; `mitoscope promote` chooses one")
        wait_until(lambda: service.said)
        status, answer = service.ask(sent(rows=100))
        assert (status, answer["detail"]) == (503, str(registry.error))
        assert service.client.get("/ready").status_code == service.client.get("/model").status_code == 503
        assert service.client.get("/health").status_code == 200
        registry.error = InputError("the store cannot be opened")
        wait_until(lambda: len(service.said) > 1)
        assert service.said[1] == "nothing is served now: the store cannot be opened"
        assert service.ask(sent(rows=100)) == (503, {"detail": "the store cannot be opened"})
        registry.error = None
        wait_until(lambda: len(service.said) > 2)
        assert service.ask(sent(rows=100))[0] == 200

    @pytest.mark.parametrize("kind", [InputError, RuntimeError])
    def test_a_registry_that_does_not_answer_changes_nothing_and_is_said_once(self, service, registry, sent, kind):
        registry.error = kind("the store cannot be opened")
        wait_until(lambda: service.said)
        time.sleep(0.1)
        reason = "the store cannot be opened" if kind is InputError else "RuntimeError"
        assert service.said == [f"version 1 stays: {reason}"]
        assert service.ask(sent(rows=100))[1]["model"]["version"] == 1
        registry.error, registry.number = None, 2
        wait_until(lambda: len(service.said) > 1)
        assert service.ask(sent(rows=100))[1]["model"]["version"] == 2

    def test_a_version_that_cannot_be_loaded_leaves_the_one_before(self, service, registry, sent, monkeypatch):
        def fail(version: int) -> Any:
            raise InputError(f"version {version} is damaged")

        monkeypatch.setattr(registry, "load", fail)
        registry.number = 2
        wait_until(lambda: service.said)
        assert service.said == ["version 1 stays: version 2 is damaged"]
        assert service.ask(sent(rows=100))[1]["model"]["version"] == 1


def test_the_counters_count(service, sent):
    content = sent(rows=100)
    found = [service.ask(content)[1]["count"] for _ in range(2)]
    service.ask(b"x")
    service.ask(b"x", params={"microns_per_pixel": 9})
    service.ask(b"x", headers={"Host": "evil.example"})
    lines = service.client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['mitoscope_answers_total{status="200"}'] == "2.0"
    assert values['mitoscope_answers_total{status="422"}'] == "2.0"
    assert values['mitoscope_answers_total{status="403"}'] == "1.0"
    assert float(values["mitoscope_mitoses_total"]) == sum(found)
    assert float(values["mitoscope_pixels_total"]) == 2 * 400 * 100
    assert values["mitoscope_requests_here"] == "0.0"
    assert 0 < float(values["mitoscope_computing_seconds_sum"]) < float(values["mitoscope_answer_seconds_sum"])
    (model,) = [name for name in values if name.startswith("mitoscope_model{")]
    assert 'version="1"' in model


def test_the_page_of_the_interface_needs_no_other_server(service):
    page = service.client.get("/")
    assert page.status_code == 200 and page.url.path == "/docs"
    assert "https://" not in page.text
    assert service.client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    assert service.client.get("/openapi.json").json()["info"]["version"] == __version__


@pytest.fixture
def page(tmp_path):
    (tmp_path / "index.html").write_text("<title>The page</title>")
    (tmp_path / "sw.js").write_text("self")
    return tmp_path


def test_a_page_is_at_the_root_beside_the_interface(registry, sent, page):
    """With the headers that its threads and its worker need; the token is for the routes alone."""
    with running(registry, token=TOKEN, page=page) as service:
        answer = service.client.get("/")
        assert answer.status_code == 200 and "The page" in answer.text
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        worker = service.client.get("/sw.js").headers
        assert worker["Content-Type"].startswith("text/javascript")
        assert "connect-src 'self' data:;" in worker["Content-Security-Policy"]
        assert service.client.get("/docs").status_code == service.client.get("/health").status_code == 200
        assert service.ask(sent())[0] == 401
        assert service.client.get("/missing.js").status_code == 404


@pytest.mark.parametrize("headers", [{"Host": "elsewhere.example"}, {"Origin": "http://elsewhere.example"}])
def test_without_a_token_the_page_is_for_this_machine(registry, page, headers):
    """A page elsewhere whose name leads to this machine must not get the detector."""
    with running(registry, page=page) as service:
        assert service.client.get("/").status_code == 200
        assert service.client.get("/", headers=headers).status_code == 403


def test_the_service_and_the_page_have_one_policy():
    if not (SITE / "index.html").exists():
        pytest.skip("the page is not built")
    for name in ("index.html", "sw.js"):
        assert _PAGE_HEADERS["Content-Security-Policy"] in (SITE / name).read_text()
