"""Stands in for torchvision where it is not installed: whatever is imported of it is there, and nothing of it works.

Models that hear import, by way of their relatives that see, what prepares pictures. With this folder on PYTHONPATH they load.
"""

import importlib.abc
import importlib.machinery
import sys
import types

__version__ = "0.0.0"
__path__: list[str] = []


class _Named(type):
    """A class whose attributes are their own names, as those of an enumeration nearly are."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, _path=None, _target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        """Nothing is in it."""


sys.meta_path.insert(0, _Finder())
