"""The folders of this package, and of its configs, tools and model index."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
MIM = PACKAGE / '.mim'  # links in a checkout, files in a wheel
