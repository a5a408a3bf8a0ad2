"""What checks the code is the same everywhere."""

import re

import yaml

from tests.pages import REPOSITORY


def test_pre_commit_checks_what_make_lint_checks():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().removesuffix(" .") for line in recipe[1].splitlines()]  # pre-commit adds the files itself
    (hooks,) = (repo["hooks"] for repo in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"])
    entries = [hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in hooks]
    assert entries == commands
