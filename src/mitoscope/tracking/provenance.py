"""Where a result comes from: the dataset's hash, the commit, the code and the settings that it depends on."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import mitoscope


def hash_settings(content: Any) -> str:
    """SHA-256 of settings and other plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_code(patterns: Sequence[str]) -> str:
    """SHA-256 of modules of this package, named by patterns from its folder."""
    package = Path(mitoscope.__file__).parent
    paths = sorted({path for pattern in patterns for path in package.glob(pattern)})
    return hash_settings([path.relative_to(package).as_posix() + path.read_text(encoding="utf-8") for path in paths])


def dataset_digest(data: Path, otherwise: str) -> str:
    """DVC's hash of the dataset in folder `data`; where that is not under DVC, the start of the hash `otherwise`."""
    tracked = data.with_name(f"{data.name}.dvc")
    if tracked.exists():
        digest: str = yaml.safe_load(tracked.read_text(encoding="utf-8"))["outs"][0]["md5"]
        return digest
    return otherwise[:36]


def git_state() -> dict[str, str]:
    """The commit, and whether tracked files differ from it (dvc.lock does, while DVC runs); empty without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!*dvc.lock", ":!crossvalidation/params.yaml"
        )
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git_dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}
