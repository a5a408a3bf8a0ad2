"""Where the pipeline's files are, from the project's folder; dvc.yaml names the same paths."""

from pathlib import Path

DATA = Path("data")
PATCHES = Path("patches")
SPLIT = Path("results/split.csv")
GALLERY = Path("results/extract/gallery.png")
SEARCHED = Path("results/search")
TRAINED = Path("results/train")
EVALUATED = Path("results/evaluate")
REGISTRY = Path("results/registry.json")
MODELS = Path("models")
_SQLITE = "sqlite:///"
WORK = Path(".work")  # checkpoints, locks and downloads: git and DVC ignore it


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
