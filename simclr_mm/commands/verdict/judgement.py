"""From hits to one sentence. All differences and ends of intervals are percentage points."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simclr_mm.evaluation import UNTRAINED
from simclr_mm.evaluation.comparison import Cell, Estimate, Table, estimate
from simclr_mm.visualization.style import plain

BETTER, WORSE, EQUAL = 'better', 'worse', 'equal'
MIXED, UNCLEAR = 'it depends', 'too few labels to tell'
YES, NO = 'yes', 'no'
_ORDER = (WORSE, EQUAL, MIXED, UNCLEAR, BETTER)  # in the sentence: first what decides it


class Range(NamedTuple):
    """A number in percent or percentage points, and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.value:.1f} ({self.low:.1f} to {self.high:.1f})'


class Comparison(NamedTuple):
    """Our encoder against one opponent; positive differences are ours."""

    opponent: str
    status: str  # one of the five above
    mean: Range  # difference, averaged over the cells
    cells: dict[Cell, Range]
    image_share: float  # part of the mean's variance that the test images cause

    def clear_cells(self) -> dict[Cell, Range]:
        """The cells whose interval excludes 0."""
        return {cell: each for cell, each in self.cells.items() if each.low > 0 or each.high < 0}


def compare(
    hits: Mapping[str, Mapping[Cell, Table]], total: int, margin: float, confidence: float = 0.95
) -> list[Comparison]:
    """Compare the first set of features with each other one.

    With ``confidence`` all intervals of all opponents hold together: half of the error is
    divided among the means, half among the cells (Bonferroni).

    Args:
        hits: For each set of features, the hits of the same draws on the same test images.
        total: Number of labels that the draws are taken from.
        margin: Differences inside plus and minus this many points count as none.
    """
    (ours, mine), *others = hits.items()
    found = []
    for name, theirs in others:
        tables = {cell: mine[cell] - theirs[cell] for cell in mine}
        error = (1 - confidence) / 2 / len(others)
        overall = estimate(tables, total, list(tables))
        mean = _range(overall, 1 - error)
        cells = {
            cell: _range(estimate(tables, total, [cell]), 1 - error / len(tables))
            for cell in tables
        }
        variance = overall.image_variance + overall.draw_variance
        share = overall.image_variance / variance
        found.append(Comparison(name, _status(mean, cells, margin), mean, cells, share))
    return found


def accuracies(
    hits: Mapping[str, Mapping[Cell, Table]], total: int, confidence: float = 0.95
) -> dict[str, dict[Cell, Range]]:
    """Accuracy in percent of each set of features in each cell, each with its own interval."""
    return {
        name: {
            cell: _range(estimate(tables, total, [cell]), confidence, lowest=0.0) for cell in tables
        }
        for name, tables in hits.items()
    }


def answer(comparisons: Sequence[Comparison]) -> str:
    """Whether ours is better than every opponent: yes, no, it depends, or too few labels."""
    found = {each.status for each in comparisons}
    if found & {WORSE, EQUAL}:
        return NO
    if MIXED in found:
        return MIXED
    return UNCLEAR if UNCLEAR in found else YES


def sentence(
    comparisons: Sequence[Comparison],
    ours: str,
    shares: Mapping[int, str],
    images: int,
    margin: float,
) -> str:
    """The verdict in one sentence. ``shares`` names numbers of labels, such as ``5 %``."""
    protocols = dict.fromkeys(protocol for protocol, _ in comparisons[0].cells)
    over = f'averaged over {_listed(list(shares.values()))} of the labels, {_listed([*protocols])}'
    ordered = sorted(comparisons, key=lambda each: _ORDER.index(each.status))
    parts = [_part(each, shares, images, margin) for each in ordered]
    verdict = answer(comparisons)
    return f'{verdict[0].upper()}{verdict[1:]}: {over}, {ours} is {_listed(parts, "; ")}.'


def _part(each: Comparison, shares: Mapping[int, str], images: int, margin: float) -> str:
    name = f'the {UNTRAINED}' if each.opponent == UNTRAINED else plain(each.opponent)
    low, high = f'{each.mean.low:.1f}', f'{each.mean.high:.1f}'
    size = f'{abs(each.mean.value):.1f} points'
    if each.status in (BETTER, WORSE):
        ends = (low, high) if each.status == BETTER else (high.lstrip('-'), low.lstrip('-'))
        return f'{each.status} than {name} by {size} ({" to ".join(ends)})'
    between = f'the difference lies between {low} and {high} points'
    if each.status == EQUAL:
        return f'as good as {name}, {between}, closer than {margin:g}'
    if each.status == MIXED:
        clear = each.clear_cells().items()
        places = [
            f'{"better" if found.low > 0 else "worse"} with {shares[labels]} by {protocol}'
            for (protocol, labels), found in clear
        ]
        return f'not always better or worse than {name}: {_listed(places)}; {between}'
    cause = f'the {images} test images' if each.image_share > 0.5 else 'the labels to learn from'
    return f'not to be told from {name}: {between}, mostly for {cause}, too few'


def _status(mean: Range, cells: Mapping[Cell, Range], margin: float) -> str:
    better = any(each.low > 0 for each in cells.values())
    worse = any(each.high < 0 for each in cells.values())
    if mean.low > 0:
        return MIXED if worse else BETTER
    if mean.high < 0:
        return MIXED if better else WORSE
    if better or worse:
        return MIXED
    return EQUAL if -margin < mean.low and mean.high < margin else UNCLEAR


def _range(found: Estimate, confidence: float, lowest: float = -1.0) -> Range:
    low, high = found.interval(confidence)
    return Range(100 * found.mean, 100 * max(lowest, low), 100 * min(1.0, high))


def _listed(texts: Sequence[str], comma: str = ', ') -> str:
    """``a, b and c``."""
    *first, last = texts
    return f'{comma.join(first)} and {last}' if first else last
