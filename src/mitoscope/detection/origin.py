"""The origin of a detector, which tells on which patients it must not be tested."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """The training and dataset of a detector, and the patients it must not be tested on.

    Attributes:
        network: the entry under `train` in params.yaml.
        run_id: the MLflow run of the training.
        start_weights: the weights that training started from.
        dataset: name of the dataset.
        dataset_digest: DVC's hash of the raw dataset.
        synthetic: whether the dataset is synthetic.
        microns_per_pixel: pixel size of the dataset's fields, um.
        patients: names of the patients of the subsets train and validation.
        images: SHA-256 of the pixels of each field of these patients.
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
        """Return the patients that the detector or its threshold was fitted to, as sorted names.

        In the same dataset, patients are recognised by name; in any dataset, by the pixels of their fields.

        Args:
            patients: the SHA-256 of the pixels of every field, by patient.
            dataset_digest: DVC's hash of the dataset with these patients.
        """
        named = {name for names in self.patients.values() for name in names} if self._is(dataset_digest) else set()
        images = set(self.images)
        return sorted(name for name, fields in patients.items() if name in named or images & set(fields))

    def _is(self, dataset_digest: str) -> bool:
        return bool(dataset_digest) and dataset_digest == self.dataset_digest
