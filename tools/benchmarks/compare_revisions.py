"""Images per second of tools/train.py, at an earlier revision of this repository and now, in turns.

    python tools/benchmarks/compare_revisions.py REVISION --config NAME --data FOLDER

Each run is a training in small: all epochs of its config, with a few steps each and no validation.
So a config whose views grow counts as a whole. The time is that of the log, with the data and
without the start. ``--now`` names the configs of today, by default the same. ``--threads 2`` runs
them once more, with two OpenMP threads whatever others do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console
from timing import NEIGHBOURS, busy, ratio, save, spread, table_of

from simclr_mm.commands import command_line
from simclr_mm.evaluation import hardware

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = command_line.parser_of(__doc__)
    add = parser.add_argument
    add('revision', help='a commit, branch or tag')
    add('--config', required=True, help='of a pretraining in memory, a name in configs/')
    add('--now', nargs='+', metavar='NAME', help='configs of today, default: the same')
    add('--threads', type=int, help='run the configs of today also with so many OpenMP threads')
    add('--data', help="instead of the config's data_root")
    add('--steps', type=int, default=10, help='in an epoch')
    add('--repeats', type=int, default=5, help='rounds')
    add('--busy', type=int, default=0, help='other processes that compute meanwhile')
    kinds = 'what they compute: a loop on one core each, or with all threads of PyTorch'
    add('--busy-with', choices=NEIGHBOURS, default='loop', help=kinds)
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every run')
    add('--out', type=Path, help='folder for compare_revisions.json')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        then = unpacked(args.revision, Path(folder))
        rows = {f'{args.revision}: {args.config}': (then, args.config, None)}
        for threads in [None, args.threads] if args.threads else [None]:
            on = f', {threads} thread' + 's' * (threads > 1) if threads else ''
            rows |= {f'now{on}: {now}': (ROOT, now, threads) for now in args.now or [args.config]}
        rates: dict[str, list[float]] = {name: [] for name in rows}
        with busy(args.busy, args.busy_with):
            for _ in range(args.repeats):
                for name, row in rows.items():
                    rates[name].append(rate(*row, args))
                    print(f'{name}: {rates[name][-1]:.0f} images/s', flush=True)
    first = next(iter(rates.values()))
    lines = [(name, spread(all_), f'{ratio(all_, first):.2f}x') for name, all_ in rates.items()]
    columns = '', 'median (lowest-highest)', f'of {args.revision}'
    setting = f'{hardware()}, torch {torch.__version__}, {args.busy} busy: {args.busy_with}'
    Console(width=150).print(table_of('Images per second', columns, lines), setting)
    if args.out:
        save(args.out, 'compare_revisions', setting=setting, rates=rates)


def unpacked(revision: str, folder: Path) -> Path:
    """The files of a revision, in a folder."""
    archive = subprocess.run(['git', '-C', str(ROOT), 'archive', revision], stdout=subprocess.PIPE)
    if archive.returncode:  # git has said why
        sys.exit(archive.returncode)
    subprocess.run(['tar', '-x', '-C', str(folder)], input=archive.stdout, check=True)
    return folder


def rate(tree: Path, name: str, threads: int | None, args: argparse.Namespace) -> float:
    """Images per second of one run, the mean over its epochs."""
    env = {**os.environ, 'PYTHONPATH': str(tree)}
    if threads:
        env['OMP_NUM_THREADS'] = str(threads)
    config = tree / 'configs' / f'{name}.py'
    cfg = Config.fromfile(config)
    batch = cfg.train_dataloader.batch_size
    options = [
        f'train_dataloader.dataset.indices={args.steps * batch}',
        f'default_hooks.logger.interval={args.steps}',
        'default_hooks.checkpoint.interval=1000000',
        'train_cfg.val_begin=1000000',
    ]
    if args.data:
        evaluated = 'val_dataloader.dataset.gallery', 'val_dataloader.dataset.query'
        for dataset in ('train_dataloader.dataset', *evaluated):
            options.append(f'{dataset}.data_root={args.data}')
    with tempfile.TemporaryDirectory() as work_dir:
        command = [sys.executable, tree / 'tools' / 'train.py', config, '--work-dir', work_dir]
        run = subprocess.run(
            [*map(str, command), '--cfg-options', *options, *args.cfg_options],
            cwd=work_dir,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if run.returncode:
            sys.exit(run.stdout[-3000:])
        (log,) = Path(work_dir).glob('*/vis_data/scalars.json')
        entries = map(json.loads, log.read_text().splitlines())
        times = [entry['time'] for entry in entries if 'loss' in entry]
    return batch / statistics.mean(times)


if __name__ == '__main__':
    main()
