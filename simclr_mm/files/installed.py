"""The folder of this package's configs, tools and model index."""

from pathlib import Path

MIM = Path(__file__).resolve().parents[1] / '.mim'  # links in a checkout, files in a wheel
