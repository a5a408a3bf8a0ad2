"""The code blocks of the docs' pages, for the tests that run them."""

import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted(path for name in ("docs", "experiments") for path in (REPOSITORY / name).rglob("*.md"))
_BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^>]+) -->\n)?^ *```(?P<language>sh|python)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of shell commands (`sh`) or Python.

    Attributes:
        reason: why it cannot be run in a test, as the page's comment before it says; None where it can.
        line: where its code begins in the page, from 1.
    """

    language: str
    code: str
    reason: str | None
    line: int


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["reason"], text[: found.start("code")].count("\n") + 1)
        for found in _BLOCK.finditer(text)
    ]
