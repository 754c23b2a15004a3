"""The vendor's two packages, unmodified, side by side.

`runware` and `runware-sdk` both install a top-level package `runware`, and only one of the two `__init__.py`
survives. All their other files differ in name, so each is loaded from its own list of files, under a name of
its own; where its `__init__.py` is gone, its modules are there all the same.
"""

import base64
import hashlib
import importlib
import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackagePath, distribution
from importlib.util import spec_from_file_location
from types import ModuleType

ROOT = "runware"


class _Finder(MetaPathFinder):
    """Finds the modules of one distribution, as its RECORD names them."""

    def __init__(self, alias: str, name: str) -> None:
        self._alias = alias
        files = [file for file in distribution(name).files or [] if file.suffix == ".py"]
        self._modules = {_module_name(file): file for file in files if file.parts[0] == ROOT}
        changed = {module for module, file in self._modules.items() if not _is_unmodified(file)}
        if changed - {ROOT}:
            raise ImportError(f"{name} is not as it was published: {', '.join(sorted(changed))}")
        for module in changed:
            del self._modules[module]

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top != self._alias:
            return None
        file = self._modules.get(f"{ROOT}.{rest}" if rest else ROOT)
        if file is None:
            return None if rest else ModuleSpec(fullname, None, is_package=True)
        inside: list[str] | None = [] if file.name == "__init__.py" else None
        return spec_from_file_location(fullname, str(file.locate()), submodule_search_locations=inside)


def _module_name(file: PackagePath) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_unmodified(file: PackagePath) -> bool:
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_binary()).digest()).decode().rstrip("=")
    return file.hash is not None and file.hash.value == digest


@cache
def _install(alias: str, name: str) -> None:
    sys.meta_path.insert(0, _Finder(alias, name))


def classic(module: str) -> ModuleType:
    """A module of `runware` 0.5, whose client speaks over sockets only."""
    _install("runware_classic", "runware")
    return importlib.import_module(f"runware_classic.{module}")


def current(module: str) -> ModuleType:
    """A module of `runware-sdk` 1, whose client speaks over both."""
    _install("runware_current", "runware-sdk")
    return importlib.import_module(f"runware_current.{module}")
