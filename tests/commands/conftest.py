import subprocess
from pathlib import Path

import pytest

from tests.conftest import tiny_params, write_params


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(project: Path) -> Path:
    """The small project in git and DVC, with a setting that is not committed."""
    Path(".dvc").mkdir()
    Path(".dvc/config").touch()
    Path(".gitignore").write_text("/data\n/results\n/.work\n/.dvc/tmp\n")
    Path("data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "tiny")
    params = tiny_params()
    params["evaluate"]["bootstrap"] = 123
    write_params(params)
    return project
