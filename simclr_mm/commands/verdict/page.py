"""A verdict as data and as a page."""

import html
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure

from simclr_mm.evaluation.comparison import Cell
from simclr_mm.files.walk import printable
from simclr_mm.version import __version__
from simclr_mm.visualization.page import figure_of, page_of, table_of
from simclr_mm.visualization.style import mark, plain

from .judgement import Comparison, Range

SCHEMA = 'simclr_mm.verdict/1'

_LONGEST = 40  # characters of a name in a legend
_LOOK = """
body { max-width: 75em; } .verdict { font-size: 1.3em; line-height: 1.45; max-width: 48em; }
.note { color: #555; max-width: 60em; } td { overflow-wrap: break-word; }
"""
_METHOD = """
A difference is the accuracy of the pretrained encoder minus that of the other, in percentage
points, on the same test images after the same draws of labels. The intervals of the differences
hold together with 95 %: half of the error is divided among the averages, from which the verdict
is read, half among the single numbers, which can only limit it. They cover other test images and
other sets of labels. "Equal" means that the whole interval of the average is inside the margin.
Each interval in the curves holds for itself: curves whose intervals overlap may differ for
certain. docs/evaluation.md has the method and its sources.
"""


@dataclass(frozen=True)
class Verdict:
    """Everything that the page shows."""

    data: str  # in words
    checkpoint: str
    sha256: str  # of the checkpoint's weights
    answer: str
    sentence: str
    classes: int
    test_images: int
    shares: dict[int, str]  # names of the numbers of labels, such as '5 %'
    draws: int
    seed: int
    k: int
    margin: float  # percentage points
    accuracies: dict[str, dict[Cell, Range]]  # by features; percent
    comparisons: list[Comparison]

    def as_json(self) -> dict[str, Any]:
        """Plain data: a list of numbers in place of each table."""
        content = asdict(self)
        content.update(
            schema=SCHEMA,
            simclr_mm=__version__,
            labels=list(content.pop('shares')),
            accuracies=[
                dict(features=printable(name), **each)
                for name, cells in self.accuracies.items()
                for each in _cells(cells)
            ],
            comparisons=[
                dict(
                    opponent=printable(each.opponent),
                    status=each.status,
                    mean=each.mean._asdict(),
                    image_share=each.image_share,
                    cells=_cells(each.cells),
                )
                for each in self.comparisons
            ],
        )
        return content


def _cells(cells: dict[Cell, Range]) -> list[dict[str, Any]]:
    return [
        dict(protocol=protocol, labels=labels, **found._asdict())
        for (protocol, labels), found in cells.items()
    ]


def page(verdict: Verdict) -> str:
    """One HTML file."""
    protocols = list(dict.fromkeys(protocol for protocol, _ in verdict.comparisons[0].cells))
    keys = [(protocol, labels) for protocol in protocols for labels in verdict.shares]
    names = [f'{protocol}, {verdict.shares[labels]} ({labels} labels)' for protocol, labels in keys]
    opponents = [_name(each.opponent) for each in verdict.comparisons]
    differences = [
        ['the verdict', *(each.status for each in verdict.comparisons)],
        ['average', *(str(each.mean) for each in verdict.comparisons)],
        *(
            [name, *(str(each.cells[key]) for each in verdict.comparisons)]
            for name, key in zip(names, keys)
        ),
    ]
    features = [_name(name) for name in verdict.accuracies]
    values = [
        [name, *(str(cells[key]) for cells in verdict.accuracies.values())]
        for name, key in zip(names, keys)
    ]
    facts = (
        f'{verdict.checkpoint} (weights {verdict.sha256[:8]}); {verdict.data}. '
        f'{verdict.classes} classes, {max(verdict.shares)} images to learn from, '
        f'{verdict.test_images} test images. {verdict.draws} draws of each share below 100 %, '
        f'seed {verdict.seed}; kNN with {verdict.k} neighbours, a linear classifier with L2 '
        f'penalty 1; margin {verdict.margin:g} points.'
    )
    curves = figure_of(
        lambda figure: _draw(figure, verdict, protocols),
        *(12, 5.2, 'accuracy against the number of labels'),
    )
    body = (
        f'<p class="verdict">{html.escape(verdict.sentence)}</p>\n'
        f'<p class="note">{html.escape(facts)}</p>\n{curves}'
        '<h2>Differences, in percentage points</h2>\n'
        f'{table_of(["the encoder minus", *opponents], differences, opponents)}'
        '<h2>Accuracies, in percent</h2>\n'
        f'{table_of(["labels", *features], values, features)}<p class="note">{_METHOD}</p>\n'
    )
    return page_of('Is the pretrained encoder better?', body, _LOOK)


def _name(name: str) -> str:
    return plain(printable(name))


def _draw(figure: Figure, verdict: Verdict, protocols: list[str]) -> None:
    """A panel for each protocol, a line with its intervals for each set of features."""
    panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    places = list(verdict.shares)
    for axes, protocol in zip(panels, protocols):
        for index, (name, cells) in enumerate(verdict.accuracies.items()):
            found = [cells[protocol, labels] for labels in places]
            colour, marker = mark(index)
            shift = 1.05 ** (index - len(verdict.accuracies) / 2)  # so that intervals stand apart
            axes.errorbar(
                [shift * labels for labels in places],
                [each.value for each in found],
                [[e.value - e.low for e in found], [e.high - e.value for e in found]],
                color=colour,
                marker=marker,
                capsize=4,
                label=_shortened(_name(name)),
            )
        axes.set_xscale('log')
        names = [f'{labels}\n{share}' for labels, share in verdict.shares.items()]
        axes.set_xticks(places, names)
        axes.minorticks_off()
        axes.set(title=protocol, xlabel='labels')
        axes.grid(alpha=0.3)
    panels[0].set_ylabel('accuracy in percent')
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=min(4, len(names)))


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f'...{name[3 - _LONGEST :]}'
