"""What checks the code is the same everywhere."""

import json
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


def test_the_lock_of_the_web_page_names_no_registry():
    """So npm takes the packages, by their hashes, from whichever registry the machine uses."""
    packages = json.loads((REPOSITORY / "web/package-lock.json").read_text())["packages"]
    locked = {name: package for name, package in packages.items() if name}
    assert all("integrity" in package and "resolved" not in package for package in locked.values())
    assert len(locked) > 20
