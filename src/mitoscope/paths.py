"""Where the pipeline's files are, from the project's folder; dvc.yaml names the same paths."""

from pathlib import Path

DATA = Path("data")
PATCHES = Path("patches")
SPLIT = Path("results/split.csv")
GALLERY = Path("results/extract/gallery.png")
TRAINED = Path("results/train")
EVALUATED = Path("results/evaluate")
MODELS = Path("models")
WORK = Path(".work")  # checkpoints, locks and downloads: git and DVC ignore it
