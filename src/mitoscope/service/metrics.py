"""What the service counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one service.

    Args:
        here: returns the number of requests that are here.

    Attributes:
        registry: holds all of them.
        answers: answers of the path /detect, by status.
        seconds: from a request's arrival to its answer, of fields that were answered with 200.
        computing: of them, the seconds in which their mitoses were found.
        pixels: pixels of these fields.
        mitoses: mitoses in these fields.
        model: 1, with the version, the run and the hash of the detector.
    """

    def __init__(self, here: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answers = Counter("mitoscope_answers", "Answers on fields.", ["status"], registry=self.registry)
        self.seconds = self._histogram("mitoscope_answer_seconds", "From a request's arrival to its answer.")
        self.computing = self._histogram("mitoscope_computing_seconds", "In which the mitoses were found.")
        self.pixels = Counter("mitoscope_pixels", "Pixels of the fields.", registry=self.registry)
        self.mitoses = Counter("mitoscope_mitoses", "Mitoses that were found.", registry=self.registry)
        labels = ["version", "run_id", "detector_sha256"]
        self.model = Gauge("mitoscope_model", "The detector that answers.", labels, registry=self.registry)
        Gauge("mitoscope_requests_here", "Being read, waiting or computed.", registry=self.registry).set_function(here)

    def _histogram(self, name: str, about: str) -> Histogram:
        return Histogram(name, about, buckets=_SECONDS, registry=self.registry)
