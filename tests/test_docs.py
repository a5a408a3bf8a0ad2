"""The pages that are made of the code name every setting and every command, and say what a reader needs of each."""

import importlib.util
import re

import pytest
import yaml

from mitoscope import __version__
from tests.pages import REPOSITORY
from tests.test_cli import COMMANDS
from tests.test_params import WHOLE


@pytest.fixture(scope="module")
def generate():
    """The module docs/generate.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs/generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(block, prefix=""):
    """The whole names of the entries of params.yaml; those of a network once."""
    for name, value in block.items():
        if isinstance(value, dict):
            yield from entries(value, f"{prefix}{name}.".replace(".small.", ".<network>."))
        else:
            yield f"{prefix}{name}".replace(".small", ".<network>")


def test_every_entry_of_params_has_a_row(generate):
    section, found = "", set()
    for line in generate.params_page().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ") + "."
        elif match := re.match(r"\| `(\S+)` \| .+ \| .*\| \S.* \|$", line):
            found.add(section + match[1])
    one = {name: {"small": value["small"]} if "small" in value else value for name, value in WHOLE.items()}
    assert found == set(entries(one))


def test_limits_and_defaults_are_in_words(generate):
    page = generate.params_page()
    assert "| `fold` | integer ≥ 0 | `0` |" in page
    assert "| `sampling.positive_fraction` | number > 0 and < 1 | `0.33` |" in page
    assert '| `model.head` | `"classifier"` or `"pooled"` | `"classifier"` |' in page


def test_every_command_has_a_section(generate):
    page = generate.commands_page()
    assert not [command for command in COMMANDS if f"## `mitoscope {command}`" not in page]


def test_a_page_that_has_not_changed_is_left_alone(generate, tmp_path):
    generate.write(tmp_path)
    before = (tmp_path / "params.md").stat().st_mtime_ns
    generate.write(tmp_path)
    assert (tmp_path / "params.md").stat().st_mtime_ns == before


def test_the_citation_names_the_version_of_the_package():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
