"""Shared helpers of the benchmarks: interleaved timing, memory, versions, bars."""

import importlib.metadata
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import Progress


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


def draw_bars(values: dict[str, list[float]], title: str, unit: str, path: Path) -> None:
    """Horizontal bars of the medians with lowest and highest, ours in colour."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    names = list(values)[::-1]
    medians = [statistics.median(values[name]) for name in names]
    ranges = [
        [median - min(values[name]) for name, median in zip(names, medians)],
        [max(values[name]) - median for name, median in zip(names, medians)],
    ]
    ours = [name.startswith('simclr_mm') for name in names]
    figure, axis = plt.subplots(figsize=(9, 0.6 + 0.42 * len(names)), layout='constrained')
    axis.barh(
        names,
        medians,
        xerr=ranges,
        color=['#1f6f8b' if own else '#b0b7bd' for own in ours],
        error_kw=dict(linewidth=1, capsize=3),
    )
    for y, (name, median) in enumerate(zip(names, medians)):
        axis.text(max(values[name]) + max(medians) * 0.015, y, f'{median:.0f}', va='center')
    furthest = max(map(max, values.values()))
    axis.set(xlabel=unit, title=title, xlim=(0, furthest * 1.1))
    axis.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=120)
