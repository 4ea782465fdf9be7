"""The folders of this package, and of its configs, tools and model index."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
MIM = PACKAGE / '.mim'  # links in a checkout, files in a wheel
CONFIGS = (MIM / 'configs').resolve()


def config_files() -> dict[str, Path]:
    """The configs of this package by name, sorted."""
    paths = (path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}
