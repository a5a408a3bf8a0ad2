"""The exception for bad input, and messages for invalid settings and missing packages."""

import difflib
import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

# Message for each type of pydantic error; limits are in braces.
_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is not an entry that mitoscope knows",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "dict_type": "must be a block of entries",
    "model_type": "must be a block of entries",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "needs {min_length} or more values",
    "too_long": "takes at most {max_length} values",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
}
_NO_VALUE = {"missing", "extra_forbidden", "too_short", "too_long", "string_too_short"}


def printable(text: str) -> str:
    """Return text in one line that a terminal can show: names of files may contain line breaks and other controls."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class InputError(Exception):
    """Bad input. The message is one line that names the file (and the row) and the remedy.

    The command line prints the message without a traceback and exits with code 2.
    """


def require_packages(user: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        user: the command that needs them.
        extra: the extra.
        packages: the packages, as they are imported.

    Raises:
        InputError: one is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise InputError(f"{user} needs the package {package}: install the extra mitoscope[{extra}]")


def first_problem(error: "ValidationError", model: "type[BaseModel] | None" = None) -> str:
    """Return one line with the name of the first invalid entry and what is wrong with it.

    Args:
        error: pydantic's error.
        model: the class that was validated, whose entries are suggested for a misspelt one.
    """
    # A misspelt entry is reported as unknown and another as missing; report the unknown one.
    errors = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    first, more = errors[0], len(errors) - 1
    kind, value = first["type"], first["input"]
    if kind in _PROBLEMS:
        problem = _PROBLEMS[kind].format(**first.get("ctx", {}))
        if kind not in _NO_VALUE and not isinstance(value, (dict, list)):
            problem += f", not {json.dumps(value, default=str)}"
        if kind == "extra_forbidden" and model and (meant := _nearest(model, first["loc"])):
            problem += f"; did you mean {meant}?"
    else:
        problem = first["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in first["loc"])
    # Messages of our own validators name the entry themselves.
    start = f"{place} {problem}" if kind in _PROBLEMS and place else ": ".join(filter(None, (place, problem)))
    return start + (f" (and {more} more)" if more else "")


def _nearest(model: "type[BaseModel]", place: tuple[int | str, ...]) -> str | None:
    """Return the entry of the block at `place` whose name is most like the last part of `place`, if any is like it."""
    block: Any = model
    for part in place[:-1]:
        block = block.model_fields[part].annotation if hasattr(block, "model_fields") else get_args(block)[-1]
    return next(iter(difflib.get_close_matches(str(place[-1]), getattr(block, "model_fields", ()), 1)), None)
