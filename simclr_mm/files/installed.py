"""What is installed: this package with its configs, and optional packages."""

import importlib
from pathlib import Path
from types import ModuleType

from simclr_mm.errors import MissingPackageError

PACKAGE = Path(__file__).resolve().parents[1]
MIM = PACKAGE / '.mim'  # links in a checkout, files in a wheel
CONFIGS = (MIM / 'configs').resolve()


def config_files() -> dict[str, Path]:
    """The configs of this package by name, sorted."""
    paths = (path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def optional_package(name: str, extra: str, use: str) -> ModuleType:
    """Import a package that only ``use`` needs. ``extra`` of simclr_mm installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split('.')[0]:
            raise
        raise MissingPackageError(
            f"{use} needs {name.split('.')[0]}: pip install 'simclr_mm[{extra}]'"
        ) from error
