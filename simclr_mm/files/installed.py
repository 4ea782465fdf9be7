"""Where the configs, the tools and the model index of this package lie."""

from pathlib import Path

MIM = Path(__file__).resolve().parents[1] / '.mim'  # links in a checkout, files in a wheel
