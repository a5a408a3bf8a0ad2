"""Replace the folder data/, and die after so many renames on the way: `killed_replace.py RENAMES`."""

import os
import signal
import sys
from pathlib import Path

from mitoscope.files import atomic_folder

fatal = int(sys.argv[1])
rename = Path.rename
renames = 0


def die() -> None:
    """Be killed, as by the kernel, where the time has come."""
    if renames == fatal:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(path: Path, target: Path) -> None:
    """Rename, and count it."""
    global renames
    rename(path, target)
    renames += 1
    die()


Path.rename = counted  # type: ignore[assignment,method-assign]
with atomic_folder(Path("data"), replace=True) as folder:
    (folder / "new").touch()
    die()
