"""What several test files use. pytest finds it because tests/conftest.py lies beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
DIGITS = CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
