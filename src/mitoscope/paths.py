"""Where the pipeline's files are, from the project's folder; dvc.yaml names the same paths."""

from dataclasses import dataclass
from pathlib import Path

from mitoscope.errors import InputError

DATA = Path("data")
PATCHES = Path("patches")
GALLERY = Path("results/extract/gallery.png")
SETTINGS = Path("results/settings")
CROSSVALIDATED = Path("results/crossvalidate")
REGISTRY = Path("results/registry.json")
MODELS = Path("models")  # start weights, which all folds share
_SQLITE = "sqlite:///"
WORK = Path(".work")  # checkpoints, locks and downloads: git and DVC ignore it


@dataclass(frozen=True)
class Outputs:
    """What the stages leave of one network: in the project's own split, or in fold `fold` of its cross-validation.

    A fold's files lie in a folder of its own, under the same names.
    """

    network: str
    fold: int | None = None

    @property
    def root(self) -> Path:
        """The folder that holds them all."""
        return Path() if self.fold is None else Path(f"crossvalidation/{self.network}/fold-{self.fold}")

    @property
    def split(self) -> Path:
        """The patients and their subsets."""
        return split_path(self.fold)

    @property
    def searched(self) -> Path:
        """Folder of stage `search`."""
        return self.root / "results/search"

    @property
    def trained(self) -> Path:
        """The report of stage `train`; .csv and .png beside it are its curves."""
        return self.root / f"results/train/{self.network}.json"

    @property
    def detected(self) -> Path:
        """The report of stage `detector`."""
        return self.root / f"results/detector/{self.network}.json"

    @property
    def evaluated(self) -> Path:
        """Folder of stage `evaluate`."""
        return self.root / f"results/evaluate/{self.network}"

    @property
    def weights(self) -> Path:
        """The best epoch's weights, from stage `train`."""
        return self.root / MODELS / self.network / "best.pt"

    @property
    def detector(self) -> Path:
        """The detector, from stage `detector`."""
        return self.root / MODELS / self.network / "detector.pt"

    def repro(self, stage: str) -> str:
        """The command that runs a stage of this network again."""
        if self.fold is None:
            return f"`dvc repro {stage}@{self.network}`"
        return f"`dvc repro crossvalidation/dvc.yaml:{stage}@{self.network}-{self.fold}`"


def split_path(fold: int | None) -> Path:
    """Patients and subsets of the project's own split, or of a fold of the cross-validation."""
    return Path("results/split.csv") if fold is None else Path(f"crossvalidation/split/fold-{fold}.csv")


def require_project() -> None:
    """Make sure that the working directory is a project's folder.

    Raises:
        InputError: it is not; the line names the project around it, if there is one.
    """
    here = Path.cwd()
    if (here / "params.yaml").exists():
        return
    around = next((folder for folder in here.parents if (folder / "params.yaml").exists()), None)
    hint = f"`cd {around}` first" if around else "run this in the project's folder"
    raise InputError(f"{here}: has no params.yaml; {hint}")


def project(folder: Path = Path()) -> Path:
    """The project's folder, absolute; from a `dvc exp run` in a temporary copy of it, the folder of the original."""
    here = folder.resolve()
    for parent in here.parents:  # DVC runs queued experiments in .dvc/tmp/exps/...
        if parent.name == "tmp" and parent.parent.name == ".dvc":
            return parent.parent.parent
    return here


def absolute_sqlite(uri: str, folder: Path = Path()) -> str:
    """A database's URI; where it is a SQLite file with a relative path, the project's file, not the copy's."""
    return f"{_SQLITE}{project(folder) / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri
