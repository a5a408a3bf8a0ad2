"""Where a detector comes from, by which it knows the patients that it must not be tested on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where a detector comes from, and what it must not be tested on.

    Attributes:
        network: the entry under `train` in params.yaml.
        run_id: the MLflow run of its training.
        start_weights: what the training started from.
        dataset: name of the dataset.
        dataset_digest: DVC's hash of the raw dataset.
        synthetic: whether the dataset was drawn.
        microns_per_pixel: pixel size of its fields, um.
        patients: names of the patients of the subsets train and validation.
        images: SHA-256 of the pixels of all fields of these patients.
    """

    network: str
    run_id: str
    start_weights: str
    dataset: str
    dataset_digest: str
    synthetic: bool
    microns_per_pixel: float
    patients: dict[str, list[str]]
    images: list[str]

    def known(self, patients: dict[str, list[str]], dataset_digest: str) -> list[str]:
        """Which patients the detector has learnt from, or has its threshold from.

        The same dataset and name is the same patient; under another dataset's name a patient is known again by the
        pixels of the fields.

        Args:
            patients: the SHA-256 of the pixels of every field, by patient.
            dataset_digest: of the dataset that they are in.

        Returns:
            Their names, sorted.
        """
        named = {name for names in self.patients.values() for name in names} if self._is(dataset_digest) else set()
        images = set(self.images)
        return sorted(name for name, fields in patients.items() if name in named or images & set(fields))

    def _is(self, dataset_digest: str) -> bool:
        return bool(dataset_digest) and dataset_digest == self.dataset_digest
