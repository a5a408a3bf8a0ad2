"""What the project uses of torchvision; the only module that imports it.

torchvision imports torch's compiler, `torch._dynamo`, for two functions that nothing here needs. The compiler takes
longer to import than torchvision itself. So a stand-in takes its place while torchvision is imported; afterwards the
compiler can be imported as usual.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


@contextmanager
def _without_compiler() -> Iterator[None]:
    if _COMPILER in sys.modules:  # somebody has imported it already
        yield
        return
    package: Any = ModuleType(_COMPILER)
    package.__path__ = []
    package.disable = _as_it_is  # marks functions that the compiler must leave alone
    package.utils = ModuleType(f"{_COMPILER}.utils")
    package.utils.is_compile_supported = lambda device: False
    stand_ins = {module.__name__: module for module in (package, package.utils)}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _as_it_is(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    return function


with _without_compiler():
    from torchvision import models
    from torchvision.transforms.v2 import InterpolationMode, functional

__all__ = ["InterpolationMode", "functional", "models"]
