"""The help of a command without PyTorch, whose import takes seconds.

A parser needs none of the libraries that the modules of its command import. So the command runs
with stand-ins for them, up to its parser, which prints the help and ends the process.
"""

import argparse
import contextlib
import inspect
import io
import sys
from collections.abc import Callable, Iterator, MutableSequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REAL = {'simclr_mm', 'simclr_mm_console', 'yaml', *sys.stdlib_module_names}


class _Anything(ModuleType):
    """A library, and everything in it: it is imported, called, indexed and inherited from."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return argparse.Action if name == 'DictAction' else self  # MMEngine's, of --cfg-options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorated = args and (inspect.isclass(args[0]) or inspect.isroutine(args[0]))
        return args[0] if decorated and not kwargs else self

    def __getitem__(self, key: Any) -> Any:
        return self

    __or__ = __ror__ = __getitem__  # annotations

    def __iter__(self) -> Iterator[Any]:  # else Python would ask __getitem__ without end
        return iter(())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[()]:
        return ()


class _StandIns(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition('.')[0] in _REAL else ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def show_help(run: Callable[[], None]) -> None:
    """Run a command for its help, which ends the process. If that fails, nothing has happened.

    The help is the same as without stand-ins: tests/console/test_console.py compares them.
    """
    if 'simclr_mm' in sys.modules:  # then so are its libraries
        return
    before, finder = set(sys.modules), _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            run()
    except SystemExit as end:
        if not end.code:
            raise
    except Exception:
        pass
    finally:
        sys.meta_path.remove(finder)
    for name in set(sys.modules) - before:
        if isinstance(sys.modules[name], _Anything) or name.partition('.')[0] == 'simclr_mm':
            del sys.modules[name]
