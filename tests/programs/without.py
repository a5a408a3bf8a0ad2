"""Import modules where packages are not installed: `without.py PACKAGE,PACKAGE MODULE MODULE ...`."""

import importlib
import sys

absent = sys.argv[1].split(",")


class Blocker:
    """Finds nothing of the absent packages."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Called by Python for every import."""
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name}")


for package in absent:
    if not package.startswith("torch"):  # SciPy asks sys.modules for torch
        sys.modules[package] = None  # type: ignore[assignment]  # how Python says that it is absent
sys.meta_path.insert(0, Blocker())  # type: ignore[arg-type]
for module in sys.argv[2:]:
    importlib.import_module(module)
