"""Repeat a study of the paper: one training for each cell, then a table and a figure.

Finished runs are never repeated. The same command continues after an interruption, and
tries failed runs again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from simclr_mm.commands import command_line
from simclr_mm.commands.runs import Run, tell, where, write_table
from simclr_mm.commands.runs.run import Row
from simclr_mm.commands.sweep.color_histograms import draw_color_histograms
from simclr_mm.commands.sweep.runs import METRICS, TrainAndScore, plan
from simclr_mm.commands.sweep.studies import STUDIES, Study, values_of
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.errors import UserError
from simclr_mm.evaluation import Value
from simclr_mm.files.atomic import alone_in
from simclr_mm.visualization.study import Series, plot_bars, plot_heat_map, plot_lines
from simclr_mm.visualization.style import plain

HISTOGRAMS = 'color-histograms'
METRIC_LABELS = dict(knn='kNN top-1 [%]', linear='linear probe, top-1 [%]')


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = command_line.parser_of(__doc__, '--cfg-options', '--processes', '--slurm')
    add = parser.add_argument
    add('study', choices=[*STUDIES, HISTOGRAMS], help='what varies')
    add('--config', required=True, help='pretraining config')
    add('--work-dir', help='default: work_dirs/STUDY')
    add(
        '--values',
        nargs='+',
        action=command_line.KeyValues,
        metavar='AXIS=V,V',
        help="values of an axis instead of all of the paper's; a wrong name lists the axes",
    )
    evaluated = 'kNN of the last validation, or a linear probe on the same images'
    add('--evaluate', choices=METRICS, default='knn', help=evaluated)
    return parser.parse_args(argv)


def check_used(asked: dict[str, object], runs: list[Run]) -> None:
    """Refuse a value from the command line that no run has."""
    for name, some in asked.items():
        for value in some if isinstance(some, list) else [some]:
            if str(value) not in (str(run.labels[name]) for run in runs):
                raise UserError(
                    f'--values {name}={value}: no run combines it with the others, leave it out'
                )


def write_results(
    study: Study, values: list[list[Value]], runs: list[Run], work_dir: Path, cfg: Config
) -> None:
    """Write the table and the figure of the finished runs."""
    rows = [run.row() for run in runs if run.result_file.is_file()]
    if not rows:
        return
    metric = runs[0].metric
    stem = work_dir / f'{work_dir.name}-{metric}'
    table, figure = Path(f'{stem}.csv'), Path(f'{stem}.png')
    write_table(table, [axis.name for axis in study.axes], rows)
    note = f'{Path(cfg.filename).stem}, {len(rows)} of {len(runs)} runs'
    draw(figure, study, values, rows, metric, note)
    print(f'{table} and {figure} hold {len(rows)} of {len(runs)} runs.')


def draw(
    path: Path,
    study: Study,
    values: Sequence[Sequence[Value]],
    rows: Sequence[Row],
    metric: str,
    note: str,
) -> None:
    """Write the study's figure. The note ends the title."""
    title, label = f'{study.title}\n{plain(note)}', METRIC_LABELS[metric]
    if study.figure == 'heat map':
        names = [[str(value) for value in some] for some in values]
        labels = [axis.label for axis in study.axes] + [label]
        square = study.axes[0].values == study.axes[1].values
        table = _matrix(study, values, rows)
        plot_heat_map(str(path), table, names[0], names[1], labels, title, with_mean=square)
        return
    plot = plot_lines if study.figure == 'lines' else plot_bars
    labels = [study.axes[-1].label, label, study.axes[0].label]
    plot(str(path), _series(study, rows), values[-1], labels, title)


def _matrix(study: Study, values: Sequence[Sequence[Value]], rows: Sequence[Row]) -> np.ndarray:
    """(first axis, last axis), NaN for a missing row."""
    table = np.full([len(values[0]), len(values[-1])], np.nan)
    for row in rows:
        place = [some.index(row[a.name]) for some, a in zip(values, study.axes)]
        table[tuple(place)] = row['value']
    return table


def _series(study: Study, rows: Sequence[Row]) -> Series:
    """Numbers by the first axis, then by the last. One series if there is one axis."""
    by_name: Series = {}
    for row in rows:
        first = str(row[study.axes[0].name]) if len(study.axes) > 1 else ''
        # '' is a run without a value on the last axis, such as one without a head.
        place = row[study.axes[-1].name]
        by_name.setdefault(first, {})[None if place == '' else place] = float(row['value'])
    return by_name


@command_line.command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = command_line.read_config(args.config)
    merge_cfg_options(cfg, args.cfg_options)
    cfg = Config(cfg.to_dict(), filename=cfg.filename)  # names for classes, to write cells
    work_dir = Path(args.work_dir or Path('work_dirs', args.study))
    if args.study == HISTOGRAMS:
        if args.processes or args.slurm is not None or args.evaluate != 'knn':
            flags = '--processes, --slurm and --evaluate'
            raise UserError(f'{HISTOGRAMS} trains nothing: leave {flags} out')
        draw_color_histograms(cfg, args.values or {}, work_dir)
        return
    study = STUDIES[args.study]
    values = values_of(study, args.values or {})
    with alone_in(work_dir):
        runs = plan(args.study, cfg, values, work_dir, args.evaluate)
        check_used(args.values or {}, runs)
        print(f'{study.title}: {len(runs)} runs in {work_dir}')
        done = sum(run.result_file.is_file() for run in runs)
        if done:
            print(f'{done} of {len(runs)} runs were done before.')
        processes, slurm = where(args, len(runs))
        trainer = TrainAndScore(min(processes, len(runs)), slurm)
        failed = trainer.do_missing(runs, 'runs', tell)
    write_results(study, values, runs, work_dir, cfg)
    if failed:
        raise UserError(
            f'{len(failed)} of {len(runs)} runs failed, as printed above: '
            'the same command tries them again'
        )
