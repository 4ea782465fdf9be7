"""Transfer learning on every dataset on disk: linear, fine-tuned or both.

Finds the paper's datasets below ROOT, in the folders that mmpretrain's classes read,
evaluates each with its own metric and prints a table. Finished evaluations of the same
encoder, images and settings are not repeated. The processes of torchrun share the datasets.
"""

import argparse
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.device import get_device
from rich.console import Console
from rich.table import Table

from simclr_mm.apis import load_encoder
from simclr_mm.apis.encoder import Encoder
from simclr_mm.checkpoints import weights_hash
from simclr_mm.commands import command_line
from simclr_mm.commands.runs import RunFailed, where
from simclr_mm.commands.transfer import finetune, finetune_config, linear
from simclr_mm.commands.transfer.dataset_table import (
    DIGITS,
    TRANSFER_DATASETS,
    TransferDataset,
    own_folder,
)
from simclr_mm.cores import core_count
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.evaluation import EvaluationRun, Result, Value, read_run
from simclr_mm.files.atomic import alone_in
from simclr_mm.files.storage import file_name

_ALL = dict(TRANSFER_DATASETS, digits=DIGITS)
_BACKBONE = 'encoder.pth'  # initial weights of fine-tuning, in the work dir
_PROTOCOLS = dict(linear=[linear.PROTOCOL], finetune=[finetune.PROTOCOL])
_EXPLAINED = OSError, RuntimeError, ValueError, RunFailed
_PROTOCOLS['both'] = _PROTOCOLS['linear'] + _PROTOCOLS['finetune']


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    flags = '--config', '--device', '--seed', '--cache', '--workers', '--trust-checkpoint'
    of_runs = '--processes', '--slurm'
    parser = command_line.parser_of(__doc__, *flags, *of_runs, shared=True)
    parser.set_defaults(workers=min(4, core_count()))
    add, positive = parser.add_argument, command_line.at_least(1)
    add('checkpoint', help='checkpoint, a path or URL, or a name with weights')
    add('root', type=Path, help='folder of the datasets')
    add(
        '--datasets',
        nargs='*',
        choices=list(_ALL),
        default=list(TRANSFER_DATASETS),
        metavar='NAME',
        help=f'some of {", ".join(_ALL)}; default: all but digits',
    )
    own = 'also DIR/train/<class>/ and DIR/test/<class>/ or DIR/val/<class>/; several times'
    add('--folder', action='append', default=[], metavar='NAME=DIR', help=own)
    linear = (
        'swept logistic regression on features (linear), training of the whole network, or both'
    )
    add('--protocol', choices=list(_PROTOCOLS), default='linear', help=linear)
    size = "prepare images as the paper does, 224 there; default: as the encoder's config does"
    add('--size', type=positive, metavar='PIXELS', help=size)
    place = 'work_dirs/transfer/<checkpoint>-<hash of its weights>'
    add('--work-dir', type=Path, help=f'results and training runs; default: {place}')
    add('--again', action='store_true', help='do again what was done before')
    add = parser.add_argument_group('fine-tuning').add_argument
    grid = "learning rates and weight decays: 6 cells, or the paper's 56"
    add('--grid', choices=list(finetune.GRIDS), default='small', help=grid)
    add('--steps', type=positive, default=20000, help='of each training')
    add('--batch', type=positive, default=256, help='images in a step')
    return parser.parse_args(argv)


class Job(NamedTuple):
    """One dataset with one protocol."""

    dataset: TransferDataset
    protocol: str  # 'linear-swept' or 'fine-tuned'
    file: Path  # of the result
    asked: dict[str, Value]  # settings that a matching result must have
    # Runs the job, and gives the hash of what it reads. None for a dataset that is not on disk.
    evaluate: Callable[[], list[Result]] | None
    inputs: Callable[[], str] | None


def chosen_datasets(args: argparse.Namespace) -> dict[str, TransferDataset]:
    """Datasets by their names in files."""
    datasets = {name: _ALL[name] for name in args.datasets}
    for text in args.folder:
        name, _, folder = text.partition('=')
        if not (name.isidentifier() and folder) or name in _ALL:
            raise UserError(
                f'--folder {text}: give NAME=DIR, the name of letters, '
                'digits and _, and none of --datasets'
            )
        if name in datasets:
            raise UserError(f'--folder {text}: another --folder has the name {name}')
        datasets[name] = own_folder(name, Path(folder))
    return datasets


def plan(args: argparse.Namespace, encoder: Encoder, work_dir: Path) -> list[Job]:
    """All requested jobs, in order."""
    for_linear = linear.prepared_for(encoder, args.size)
    for_tuning = linear.prepared_for(encoder, args.size, finetune_config.BORDER)
    training = finetune_config.Training(args.steps, args.batch, args.workers, args.seed)
    grid, weights = finetune.GRIDS[args.grid], (work_dir / _BACKBONE).resolve()
    asked = {
        linear.PROTOCOL: linear.prepared(for_linear),
        finetune.PROTOCOL: finetune.finetune_settings(for_tuning, grid, training),
    }
    jobs = []
    for name, dataset in chosen_datasets(args).items():
        folder = dataset.find(args.root)
        parts = dataset.parts(folder, args.seed) if folder else None
        for protocol in _PROTOCOLS[args.protocol]:
            file = work_dir / f'{name}-{protocol}.json'
            evaluate = inputs = None
            if parts is not None and protocol == linear.PROTOCOL:
                inputs = partial(linear.inputs_hash, for_linear, dataset, parts)
                reading = args.cache, args.workers, args.seed
                evaluate = partial(linear.linear_transfer, for_linear, dataset, parts, *reading)
            elif parts is not None:
                inputs = partial(linear.inputs_hash, for_tuning, dataset, parts)
                tuned = for_tuning, weights, dataset, parts, grid, training
                running = file.with_suffix(''), *where(args, len(grid[0]) * len(grid[1]))
                evaluate = partial(finetune.finetune_transfer, *tuned, *running)
            jobs.append(Job(dataset, protocol, file, asked[protocol], evaluate, inputs))
    return jobs


def do(job: Job, args: argparse.Namespace, weights: str) -> EvaluationRun | str | None:
    """The result of a job, the reason of its failure, or None if its data are missing.

    A result of the same encoder, images, seed and settings is not computed again. A new one
    is written.
    """
    if job.evaluate is None or job.inputs is None:
        return None
    started = time.time()
    try:
        asked = dict(job.asked, inputs=job.inputs())
        if args.again:
            shutil.rmtree(job.file.with_suffix(''), ignore_errors=True)
        elif job.file.is_file():
            done = read_run(job.file)
            if done is not None and done.seed == args.seed:
                if asked.items() <= done.results[0].settings.items():
                    return done
        results = job.evaluate()
    except Exception as error:  # the other jobs continue
        if not isinstance(error, _EXPLAINED):
            traceback.print_exc()  # shows the place, for example with unusual annotations
        return f'{type(error).__name__}: {error}'
    results = [replace(each, settings=dict(each.settings, **asked)) for each in results]
    seconds = round(time.time() - started, 1)
    run = EvaluationRun(args.config or '', args.checkpoint, weights, args.seed, seconds, results)
    run.write(job.file)
    return run


def print_table(jobs: list[Job], outcomes: list[EvaluationRun | str | None], root: Path) -> None:
    table = Table('dataset', 'protocol', 'metric', 'value', 'chosen', 'time')
    notes = []
    for job, outcome in zip(jobs, outcomes):
        dataset = job.dataset
        if isinstance(outcome, EvaluationRun):
            for result in outcome.results:
                chosen = ', '.join(
                    f'{key} {result.settings[key]:.3g}'
                    for key in ('penalty', 'lr', 'decay')
                    if key in result.settings
                )
                value, seconds = f'{result.value:.2f}', f'{outcome.seconds:.0f} s'
                table.add_row(dataset.title, job.protocol, result.metric, value, chosen, seconds)
            continue
        why, note = 'failed', f'{job.file.stem} failed: {outcome}'
        if outcome is None:
            why = 'not on disk'
            note = (
                f'{dataset.title}: there is no {root / dataset.folders[0]}/ with '
                f'{" or ".join(dataset.needs)}; get it from {dataset.home}'
            )
        table.add_row(dataset.title, job.protocol, dataset.metrics[0], '-', why, '')
        notes.append(note)
    console = Console(soft_wrap=True)
    console.print(table)
    for note in dict.fromkeys(notes):  # both protocols miss the same data
        console.print(note, markup=False)


@command_line.command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.slurm is not None and args.protocol == 'linear':
        raise UserError('--slurm: a linear protocol trains no runs: leave it out')
    if args.protocol != 'linear':
        command_line.refuse_ranks('fine-tuning starts its own, --processes at a time')
    ranks = command_line.ranks()
    if not args.root.is_dir():
        raise MissingFileError(
            f'there is no folder {args.root.absolute()}: after the checkpoint, name the folder '
            'of the data sets'
        )
    encoder = load_encoder(args.checkpoint, args.config, args.device or get_device())
    encoder.require_rgb('a transfer')
    weights = weights_hash(encoder.model.state_dict())
    name = f'{Path(file_name(args.checkpoint)).stem}-{weights[:8]}'
    work_dir = args.work_dir or Path('work_dirs', 'transfer', name)
    jobs = plan(args, encoder, command_line.out_folder(work_dir))
    ranks.require_same(dict(weights=weights))
    there = any(job.evaluate for job in jobs)
    with alone_in(work_dir) if there and ranks.rank == 0 else nullcontext():
        if there and args.protocol != 'linear':
            finetune_config.save_backbone(encoder, work_dir / _BACKBONE)
        # Each rank does all of its own before it waits for others.
        outcomes = list(ranks.in_order([do(job, args, weights) for job in ranks.mine(jobs)]))
    ranks.only_first_goes_on()
    print_table(jobs, outcomes, args.root)
    if not there:
        raise UserError(f'{args.root} holds no images of these data sets, as printed above')
    print(f'results: {work_dir}')
    failed = [job.file.stem for job, outcome in zip(jobs, outcomes) if isinstance(outcome, str)]
    if failed:
        raise UserError(
            f'{len(failed)} of {len(jobs)} evaluations failed, as printed above: '
            f'{", ".join(failed)}'
        )
