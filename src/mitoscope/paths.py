"""Paths of the pipeline's files, relative to the project's folder; dvc.yaml has the same paths."""

from dataclasses import dataclass
from pathlib import Path

from mitoscope.errors import InputError

DATA = Path("data")
PATCHES = Path("patches")
GALLERY = Path("results/extract/gallery.png")
SETTINGS = Path("results/settings")
CROSSVALIDATED = Path("results/crossvalidate")
REGISTRY = Path("results/registry.json")
MODELS = Path("models")  # start weights, shared by all folds
_SQLITE = "sqlite:///"
WORK = Path(".work")  # checkpoints, locks and downloads; ignored by git and DVC


@dataclass(frozen=True)
class Outputs:
    """Output files of one network: for the project's own split, or for fold `fold` of its cross-validation.

    The files of a fold are in its own folder, under the same names.
    """

    network: str
    fold: int | None = None

    @property
    def root(self) -> Path:
        """The folder that contains all outputs."""
        return Path() if self.fold is None else Path(f"crossvalidation/{self.network}/fold-{self.fold}")

    @property
    def split(self) -> Path:
        """The table of patients and their subsets."""
        return split_path(self.fold)

    @property
    def searched(self) -> Path:
        """Folder of stage `search`."""
        return self.root / "results/search"

    @property
    def trained(self) -> Path:
        """The report of stage `train`; its curves are in .csv and .png files of the same name."""
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
        """Return the command that runs a stage of this network, in backticks."""
        if self.fold is None:
            return f"`dvc repro {stage}@{self.network}`"
        return f"`dvc repro crossvalidation/dvc.yaml:{stage}@{self.network}-{self.fold}`"


def split_path(fold: int | None) -> Path:
    """Return the path of the split table: of the project's own split (None), or of a fold of the cross-validation."""
    return Path("results/split.csv") if fold is None else Path(f"crossvalidation/split/fold-{fold}.csv")


def require_project() -> None:
    """Check that the working directory is a project's folder.

    Raises:
        InputError: it is not; if a parent folder is a project, the message names it.
    """
    here = Path.cwd()
    if (here / "params.yaml").exists():
        return
    around = next((folder for folder in here.parents if (folder / "params.yaml").exists()), None)
    hint = f"`cd {around}` first" if around else "run this in the project's folder"
    raise InputError(f"{here}: there is no params.yaml here; {hint}")


def project(folder: Path = Path()) -> Path:
    """Return the project's absolute folder; in the temporary copy of a `dvc exp run`, that of the original project."""
    here = folder.resolve()
    for parent in here.parents:  # DVC runs queued experiments in .dvc/tmp/exps/...
        if parent.name == "tmp" and parent.parent.name == ".dvc":
            return parent.parent.parent
    return here


def absolute_sqlite(uri: str, folder: Path = Path()) -> str:
    """Return a database URI; a relative SQLite path becomes absolute, in the folder that `project` returns."""
    return f"{_SQLITE}{project(folder) / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri
