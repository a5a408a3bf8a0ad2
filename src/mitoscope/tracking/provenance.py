"""Provenance of a result: hashes of the dataset, code and settings that it depends on, and the git commit."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import mitoscope


def hash_settings(content: Any) -> str:
    """Return the SHA-256 of settings or other JSON-serialisable values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_code(patterns: Sequence[str]) -> str:
    """Return the SHA-256 of the modules that match glob patterns relative to this package's folder."""
    package = Path(mitoscope.__file__).parent
    paths = sorted({path for pattern in patterns for path in package.glob(pattern)})
    return hash_settings([path.relative_to(package).as_posix() + path.read_text(encoding="utf-8") for path in paths])


def dataset_digest(data: Path, otherwise: str) -> str:
    """Return DVC's hash of the folder `data`, or the first 36 characters of `otherwise` if DVC does not track it."""
    tracked = data.with_name(f"{data.name}.dvc")
    if tracked.exists():
        digest: str = yaml.safe_load(tracked.read_text(encoding="utf-8"))["outs"][0]["md5"]
        return digest
    return otherwise[:36]


def git_state() -> dict[str, str]:
    """Return tags with the commit and whether tracked files differ from it; empty without git.

    dvc.lock is ignored because it changes while DVC runs.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!*dvc.lock", ":!crossvalidation/params.yaml"
        )
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git_dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}
