"""Transfer learning on every dataset that is on disk: linear, fine-tuned or both.

Finds the paper's datasets below ROOT, in the folders that mmpretrain's classes read,
evaluates each by its own metric and prints a table. What was done before, with the same
weights and settings, is not done again.
"""

import argparse
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.device import get_device
from rich.console import Console
from rich.table import Table

from simclr_mm.apis.encoder import load_encoder
from simclr_mm.apis.fingerprint import weights_hash
from simclr_mm.commands import command_line
from simclr_mm.commands.evaluate.cache import default_cache
from simclr_mm.commands.runs import RunFailed
from simclr_mm.commands.transfer import finetune, finetune_config, linear
from simclr_mm.commands.transfer.dataset_table import (
    DIGITS,
    TRANSFER_DATASETS,
    TransferDataset,
    own_folder,
)
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.evaluation import EvaluationRun, Result, read_run

_ALL = dict(TRANSFER_DATASETS, digits=DIGITS)
_PROTOCOLS = dict(linear=[linear.PROTOCOL], finetune=[finetune.PROTOCOL])
_EXPLAINED = OSError, RuntimeError, ValueError, RunFailed
_PROTOCOLS['both'] = _PROTOCOLS['linear'] + _PROTOCOLS['finetune']


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='checkpoint, a path or URL, or a name with weights')
    parser.add_argument('root', type=Path, help='folder of the datasets')
    parser.add_argument(
        '--datasets',
        nargs='*',
        choices=list(_ALL),
        default=list(TRANSFER_DATASETS),
        metavar='NAME',
        help=f'some of {", ".join(_ALL)}; default: all but digits',
    )
    parser.add_argument(
        '--folder',
        action='append',
        default=[],
        metavar='NAME=DIR',
        help='also DIR/train/<class>/ and DIR/test/<class>/ or DIR/val/<class>/; may '
        'be given several times',
    )
    parser.add_argument('--protocol', choices=list(_PROTOCOLS), default='linear')
    parser.add_argument(
        '--size',
        type=int,
        metavar='PIXELS',
        help='prepare images as the paper does, 224 in the paper; default: as the '
        "encoder's config does",
    )
    parser.add_argument(
        '--config', help='config or model name; default: the config stored in the checkpoint'
    )
    parser.add_argument('--device', help='cuda, cuda:1, cpu; default: a GPU if any')
    parser.add_argument('--seed', type=int, default=0, help='of every draw')
    parser.add_argument('--workers', type=int, default=4, help='processes that read images')
    parser.add_argument(
        '--cache',
        metavar='DIR',
        default=default_cache(),
        help='keep features here for the next time; default: $SIMCLR_MM_HOME/features, '
        'and nothing is kept where SIMCLR_MM_HOME is not set',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='results and training runs; default: work_dirs/transfer/<checkpoint>-'
        '<hash of its weights>',
    )
    parser.add_argument('--again', action='store_true', help='do again what was done before')
    tuning = parser.add_argument_group('fine-tuning')
    tuning.add_argument(
        '--grid',
        choices=list(finetune.GRIDS),
        default='small',
        help="learning rates and weight decays: 6 cells, or the paper's 56",
    )
    tuning.add_argument('--steps', type=int, default=20000)
    tuning.add_argument('--batch', type=int, default=256)
    tuning.add_argument('--processes', type=int, default=1, help='runs at a time')
    command_line.add_trust_flag(parser)
    return parser.parse_args(argv)


class Job(NamedTuple):
    """One dataset by one protocol.

    Args:
        dataset: Where it is found, and how it is scored.
        folder: Where it lies; None: nowhere.
        protocol: 'linear-swept' or 'fine-tuned'.
        file: Of the result.
        asked: Settings that a result has to have to be this job's.
        evaluate: Does it.
    """

    dataset: TransferDataset
    folder: Path | None
    protocol: str
    file: Path
    asked: dict[str, object]
    evaluate: Callable[[], list[Result]]


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
        datasets[name] = own_folder(name, Path(folder))
    return datasets


def plan(args: argparse.Namespace, model, work_dir: Path) -> list[Job]:
    """All that is asked for, in order."""
    prepare = partial(linear.preprocessing_of, model, args.checkpoint, args.size)
    for_linear, for_tuning = prepare(), prepare(finetune_config.BORDER)
    training = finetune_config.Training(args.steps, args.batch, args.workers, args.seed)
    grid = finetune.GRIDS[args.grid]
    encoder = None
    if args.protocol != 'linear':
        encoder = finetune_config.encoder_of(model, for_tuning, work_dir / 'encoder.pth')
    jobs = []
    for name, dataset in chosen_datasets(args).items():
        folder = dataset.find(args.root)
        parts = dataset.parts(folder, args.seed) if folder else None
        for protocol in _PROTOCOLS[args.protocol]:
            stem = f'{name}-{protocol}'
            if protocol == linear.PROTOCOL:
                asked = linear.prepared(for_linear)
                evaluate = partial(
                    linear.linear_transfer,
                    model,
                    dataset,
                    parts,
                    for_linear,
                    args.cache,
                    args.workers,
                    args.seed,
                )
            else:
                asked = finetune.finetune_settings(for_tuning, grid, training)
                evaluate = partial(
                    finetune.finetune_transfer,
                    encoder,
                    dataset,
                    parts,
                    grid,
                    training,
                    work_dir / stem,
                    command_line.TOOLS,
                    args.processes,
                )
            jobs.append(Job(dataset, folder, protocol, work_dir / f'{stem}.json', asked, evaluate))
    return jobs


def done_before(job: Job, weights: str, seed: int) -> EvaluationRun | None:
    """The result of this very job, if there is one."""
    run = read_run(job.file) if job.file.is_file() else None
    if run is None or (run.checkpoint_sha256, run.seed) != (weights, seed):
        return None
    found = run.results[0].settings
    same = all(found.get(key) == value for key, value in job.asked.items())
    return run if same else None


def do(job: Job, args: argparse.Namespace, weights: str) -> EvaluationRun:
    """Evaluate, and write the result."""
    if args.again:
        shutil.rmtree(job.file.with_suffix(''), ignore_errors=True)
    started = time.time()
    results = job.evaluate()
    run = EvaluationRun(
        args.config or '',
        args.checkpoint,
        weights,
        args.seed,
        round(time.time() - started, 1),
        results,
    )
    run.write(job.file)
    return run


def print_table(jobs: list[Job], outcomes: list[object], root: Path) -> None:
    table = Table('dataset', 'protocol', 'metric', 'value', 'chosen', 'time')
    for job, outcome in zip(jobs, outcomes):
        title = job.dataset.title
        if isinstance(outcome, EvaluationRun):
            for result in outcome.results:
                chosen = ', '.join(
                    f'{key} {result.settings[key]:.3g}'
                    for key in ('penalty', 'lr', 'decay')
                    if key in result.settings
                )
                table.add_row(
                    title,
                    job.protocol,
                    result.metric,
                    f'{result.value:.2f}',
                    chosen,
                    f'{outcome.seconds:.0f} s',
                )
        else:
            why = 'not on disk' if outcome is None else 'failed'
            table.add_row(title, job.protocol, job.dataset.metrics[0], '-', why, '')
    console = Console(soft_wrap=True)
    console.print(table)
    absent = {job.dataset.title: job.dataset for job in jobs if job.folder is None}
    for title, dataset in absent.items():
        console.print(
            f'{title}: no {root / dataset.folders[0]}/ with '
            f'{" or ".join(dataset.needs)}; it comes from {dataset.home}'
        )
    for job, outcome in zip(jobs, outcomes):
        if isinstance(outcome, str):
            console.print(f'{job.file.stem} failed: {outcome}', markup=False)


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    for name in ('steps', 'batch', 'processes'):
        if getattr(args, name) < 1:
            raise UserError(f'--{name} is {getattr(args, name)}: give 1 or more')
    if not args.root.is_dir():
        raise MissingFileError(f'there is no folder {args.root.absolute()}')
    model = load_encoder(args.checkpoint, args.config, args.device or get_device())
    weights = weights_hash(model)
    work_dir = args.work_dir or Path(
        'work_dirs', 'transfer', f'{Path(args.checkpoint).stem}-{weights[:8]}'
    )
    jobs, outcomes = plan(args, model, work_dir), []
    for job in jobs:
        outcome = None if args.again else done_before(job, weights, args.seed)
        if outcome is None and job.folder is not None:
            try:
                outcome = do(job, args, weights)
            except Exception as error:  # the others go on
                # Such as a KeyError, where annotations are not as mmpretrain reads
                # them: the place helps.
                if not isinstance(error, _EXPLAINED):
                    traceback.print_exc()
                outcome = f'{type(error).__name__}: {error}'
        outcomes.append(outcome)
    print_table(jobs, outcomes, args.root)
    print(f'results: {work_dir}')
    failed = [job.file.stem for job, o in zip(jobs, outcomes) if isinstance(o, str)]
    if failed:
        raise UserError(
            f'{len(failed)} of {len(jobs)} evaluations failed, as told above: {", ".join(failed)}'
        )
