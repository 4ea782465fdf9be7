"""The training loss of a run over its iterations."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from .style import COLOURS


def read_log(path: str | Path) -> list[dict]:
    """The entries of a ``vis_data/scalars.json``, oldest first.

    Lines that are no JSON are left out, such as the truncated last line of a killed run.
    """
    entries = []
    for line in Path(path).read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get('step'), int):
            entries.append(entry)
    return entries


def read_scalars(path: str | Path) -> list[dict]:
    """:func:`read_log` without validations."""
    return [entry for entry in read_log(path) if isinstance(entry.get('loss'), (int, float))]


def plot_loss(axes: Axes, scalars: Sequence[dict]) -> None:
    """Draw the loss of :func:`read_scalars`, and chance if the log has it."""
    steps = [entry['step'] for entry in scalars]
    losses = [entry['loss'] for entry in scalars]
    axes.plot(steps, losses, color=COLOURS[0], label='training loss')
    if all('chance' in entry for entry in scalars):
        chance = [entry['chance'] for entry in scalars]
        axes.plot(steps, chance, '--', color=COLOURS[9], label='chance, ln(VN - 1)')
        axes.legend()
    axes.set(xlabel='iteration', ylabel='loss [nats]', ylim=(0, None))
    axes.grid(alpha=0.3)
