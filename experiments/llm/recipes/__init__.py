"""Every scan of a real checkpoint by name: one file each, found by its `PRESETS`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

RECIPES: dict[str, ModuleType] = {
    info.name.replace("_", "-"): importlib.import_module(f"{__name__}.{info.name}")
    for info in pkgutil.iter_modules(__path__)
}
