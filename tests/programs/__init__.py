"""Programs that tests start as processes of their own, for example to kill them."""

from pathlib import Path

PROGRAMS = Path(__file__).parent
