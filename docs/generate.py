"""The pages of the reference that are made of the code: every entry of params.yaml, every command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from mitoscope import cli
from mitoscope.files import write_text
from mitoscope.params import Params

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def write(folder: Path) -> None:
    """Write `params.md` and `commands.md` into `folder`; what has not changed stays, so that Sphinx reads it once."""
    for name, text in (("params.md", params_page()), ("commands.md", commands_page())):
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def commands_page() -> str:
    """Every command with its arguments and options, as Typer describes them."""
    command = typer.main.get_command(cli.app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="mitoscope"), name="mitoscope")
    return page.replace("# `mitoscope`", "# Commands", 1)


def params_page() -> str:
    """A table per block of params.yaml: entry, type and limits, default, meaning."""
    schema = Params.model_json_schema()
    blocks: dict[str, Any] = schema["$defs"]
    plain, sections = [], []
    for name, entry in schema["properties"].items():
        of_network = entry.get("additionalProperties", {})  # a block with an entry per network; shown once
        place = f"{name}.<network>" if of_network else name
        block = _block(entry) or _block(of_network)
        if block is None:
            plain.append(_row(place, entry))
            continue
        rows = [_row(key, field) for key, field in _entries(blocks[block], blocks)]
        sections += [
            f"## {place}",
            "",
            f"{blocks[block]['description']} ({entry['description']})",
            "",
            *_HEAD,
            *rows,
            "",
        ]
    head = [
        "# params.yaml",
        "",
        "Entries and whole blocks may be left out and then have their defaults. DVC needs `launch`, and `train` needs",
        "at least one network. An entry that is unknown, out of its limits or named as in an earlier version ends the",
        "command with one line that says so.",
        "",
        "[What the options are worth](../explanation/accuracy.md#what-the-options-are-worth) gives the measured gains",
        "of `views`, `near_um`, `mining`, `head` and `refit_fields` in real fields.",
        "",
        *_HEAD,
        *plain,
        "",
    ]
    return "\n".join(head + sections)


_HEAD = ("| entry | type | default | meaning |", "|---|---|---|---|")


def _block(entry: dict[str, Any]) -> str | None:
    """The name of the block that an entry holds."""
    reference = entry.get("$ref") or next((part["$ref"] for part in entry.get("allOf", ()) if "$ref" in part), "")
    return reference.rpartition("/")[2] or None


def _entries(block: dict[str, Any], blocks: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a block and of the blocks in it, by their whole names."""
    for name, entry in block["properties"].items():
        if (inner := _block(entry)) is not None:
            yield from _entries(blocks[inner], blocks, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", entry


def _row(name: str, entry: dict[str, Any]) -> str:
    default = "" if entry.get("default", {}) == {} else f"`{json.dumps(entry['default'])}`"  # {}: nothing chosen
    return f"| `{name}` | {_type(entry)} | {default} | {entry['description'].replace('|', 'or')} |"


def _type(entry: dict[str, Any]) -> str:
    """Type and limits in a user's words."""
    if "enum" in entry:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in entry["enum"])
    if "anyOf" in entry:
        return " or ".join(_type(part) for part in entry["anyOf"])
    if "prefixItems" in entry:
        return f"list of {len(entry['prefixItems'])}: {_type(entry['prefixItems'][0])}"
    if "items" in entry:
        return f"list of {_type(entry['items'])}"
    if "additionalProperties" in entry:
        return _type(entry["additionalProperties"])
    limits = " and ".join(f"{sign} {entry[limit]:g}" for limit, sign in _LIMITS.items() if limit in entry)
    return " ".join(filter(None, (_TYPES[entry["type"]], limits)))
