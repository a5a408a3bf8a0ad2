"""Hold the lock work/train.lock until this is killed."""

import time
from pathlib import Path

from mitoscope.files import exclusive

with exclusive(Path("work/train.lock"), ""):
    print("held", flush=True)
    time.sleep(600)
