"""mitoscope: reproducible training and evaluation of mitosis detectors on H&E breast-cancer fields."""

import os

# GNU OpenMP's threads spin while they wait. With another process on the same cores that makes torch several
# times slower, so ask them to sleep. This must happen before torch is imported for the first time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Without this, matrix products on a GPU may differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# OpenCV reports a broken image on the terminal by itself; our own line names the file and the remedy.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

__version__ = "0.2.0"
