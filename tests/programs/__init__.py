"""Programs that tests start as processes of their own, to kill them or to run them where a package is missing."""

from pathlib import Path

PROGRAMS = Path(__file__).parent
