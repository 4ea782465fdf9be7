"""Shared helpers of the benchmarks: interleaved timing, memory, versions, tables, files, bars."""

import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from rich.table import Table

from simclr_mm.visualization.style import picture


def wait() -> None:
    """Wait until the GPU, if there is one, has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(calls: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, round after round: A B C A B C ...

    So a slow phase of the machine affects all of them. Each is called once before. A call
    with untimed parts returns its own seconds.
    """
    seconds = {name: [] for name in calls}
    with Progress(transient=True) as progress:
        for repeat in progress.track(range(-1, repeats), description='rounds'):
            for name, call in calls.items():
                wait()
                start = time.perf_counter()
                own = call()
                wait()
                elapsed = own if isinstance(own, float) else time.perf_counter() - start
                if repeat >= 0:
                    seconds[name].append(elapsed)
    return seconds


# What other processes compute: on one core, or on all with PyTorch's threads.
NEIGHBOURS = {
    'loop': 'while True: pass',
    'torch': 'import torch\na = torch.rand(1024, 1024)\nwhile True: a @ a',
}


@contextmanager
def busy(count: int, neighbour: str = 'loop') -> Iterator[None]:
    """Other processes that compute until the block ends."""
    command = [sys.executable, '-c', NEIGHBOURS[neighbour]]
    others = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in others:
            process.kill()


def resident(key: str) -> float:
    """Bytes of this process in Linux's statistics: VmRSS now, VmHWM at its peak."""
    status = Path('/proc/self/status').read_text()
    return int(status.split(f'{key}:')[1].split()[0]) * 1024


def spread(values: list[float], digits: int = 0) -> str:
    """Median, lowest and highest."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f'{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})'


def version(distribution: str) -> str:
    """Name and version of an installed distribution, or of its onedl- fork."""
    for name in (distribution, f'onedl-{distribution}'):
        try:
            return f'{name} {importlib.metadata.version(name)}'
        except importlib.metadata.PackageNotFoundError:
            continue
    return distribution


def ratio(first: list[float], second: list[float]) -> float:
    """Median ratio, round by round, so that a slow phase of the machine affects both."""
    return statistics.median(a / b for a, b in zip(first, second))


def table_of(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = ''
) -> Table:
    """A table whose first column has the names of the rows."""
    table = Table(title=title, caption=caption)
    for place, column in enumerate(columns):
        table.add_column(column, justify='right' if place else 'left')
    for row in rows:
        table.add_row(*row)
    return table


def save(folder: Path, name: str, **content: object) -> Path:
    """Write the results as JSON. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.json'
    path.write_text(json.dumps(content, indent=1))
    return path


def draw_bars(values: dict[str, list[float]], title: str, unit: str, path: Path) -> None:
    """Horizontal bars of the medians with lowest and highest, ours in colour."""
    names = list(values)[::-1]
    rounds = np.array([values[name] for name in names])  # (names, rounds)
    medians, lowest, highest = np.median(rounds, 1), rounds.min(1), rounds.max(1)
    ranges = medians - lowest, highest - medians
    colours = ['#1f6f8b' if name.startswith('simclr_mm') else '#b0b7bd' for name in names]
    with picture(path, 9, 0.6 + 0.42 * len(names)) as figure:
        axis = figure.subplots()
        axis.barh(names, medians, xerr=ranges, color=colours, error_kw=dict(linewidth=1, capsize=3))
        for y, median in enumerate(medians):
            axis.text(highest[y] + max(medians) * 0.015, y, f'{median:.0f}', va='center')
        axis.set(xlabel=unit, title=title, xlim=(0, max(highest) * 1.1))
        axis.spines[['top', 'right']].set_visible(False)
