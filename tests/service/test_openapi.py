"""The service keeps to its own description, whatever it is sent."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Config, GenerationMode
from schemathesis.schemas import BaseSchema

from tests.service.conftest import Registry, running

pytestmark = pytest.mark.slow
TOKEN = "0123456789abcdef"
# What the content of a file must be, a schema cannot say.
CONFIG = {"checks": {"positive_data_acceptance": {"expected-statuses": [200, 413, 422]}}}


@pytest.fixture(scope="module")
def interface(detector) -> Iterator[BaseSchema]:
    """The service's OpenAPI document."""
    with running(Registry(detector), token=TOKEN) as service:
        yield schemathesis.openapi.from_asgi("/openapi.json", service.client.app, config=Config.from_dict(CONFIG))


ROUTES = {"POST /detect", "GET /model", "GET /metrics", "GET /health", "GET /ready"}
GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.parametrize(("name", "mode"), [*((name, GOOD) for name in sorted(ROUTES)), ("POST /detect", BAD)])
def test_every_answer_is_described(interface, name, mode):
    method, path = name.split()

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=interface[path][method].as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})

    check()


def test_every_route_is_checked(interface):
    assert {found.ok().label for found in interface.get_all_operations()} == ROUTES
