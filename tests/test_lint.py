"""What checks the code is the same everywhere."""

import re

import yaml

from tests.pages import REPOSITORY


def test_pre_commit_runs_the_commands_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    (hooks,) = (repo["hooks"] for repo in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"])
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    assert entries == [line.strip() for line in recipe[1].splitlines()]
    # On every file, as make does, not only on those that changed.
    assert not any(hook["pass_filenames"] for hook in hooks)
