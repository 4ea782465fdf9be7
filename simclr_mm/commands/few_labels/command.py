"""What an encoder reaches with few labels: the table of SimCLRv2, in one command.

For each share of the labels and each seed, which draws the labelled images too:
a classifier trained from scratch, a linear one on the encoder's features, the encoder
fine-tuned from its features (selector 0) and from the first layer of its projection head
(selector 1), and a student that the last one teaches on all training images without labels.

Finished runs are never repeated. The same command continues after an interruption, and
tries failed runs again.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from scipy.stats import sem

from simclr_mm.apis.loading import open_checkpoint
from simclr_mm.checkpoints import model_state, weights_hash
from simclr_mm.commands import command_line
from simclr_mm.commands.few_labels.plan import (
    METHODS,
    TEACHER,
    Plan,
    TrainAndTest,
    find_config,
    label_of,
    read_from,
)
from simclr_mm.commands.runs import Run, tell, where, write_table
from simclr_mm.engine.resume import POINTER
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import alone_in, write_text
from simclr_mm.files.storage import is_url
from simclr_mm.visualization.page import markdown_of

_DISTIL = 'distil'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = command_line.parser_of(
        __doc__, '--config', '--trust-checkpoint', '--processes', '--slurm'
    )
    add, positive = parser.add_argument, command_line.at_least(1)
    add('checkpoint', help='pretraining checkpoint, with its projection head')
    shares = "as the configs' names end: 1%%, 10%%, 5perclass; with commas or spaces"
    add('--labels', nargs='+', default=['1%,10%'], metavar='SHARE', help=shares)
    add('--seeds', type=positive, default=3, help='runs of each method, with seeds from 0')
    add('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='METHOD',
        help=f'some of {", ".join(METHODS)}')  # fmt: skip
    add('--data', metavar='DIR', help='images of DIR/train/<class>/ and DIR/val/<class>/ or test/')
    add(
        '--epochs',
        nargs='+',
        action=command_line.KeyValues,
        metavar='SHARE=N',
        help=f"lengths instead of the configs', for example 1%%=20 {_DISTIL}=2",
    )
    tuned = "fine-tuning configs with a LabelSubset, instead of those of the encoder's name"
    add('--finetune', nargs='+', metavar='CONFIG', help=tuned)
    add('--distil', metavar='CONFIG', help="config of the student, instead of the encoder's")
    add('--work-dir', type=Path, help='default: work_dirs/few_labels/<name of the encoder>')
    return parser.parse_args(argv)


def plan_of(args: argparse.Namespace) -> Plan:
    """Read the encoder and the configs of all runs."""
    encoder = open_checkpoint(args.checkpoint, args.config)
    finetune: dict[str, Config] = {}
    if args.finetune:
        for path in args.finetune:
            cfg = _config(path, args.data)
            label = label_of(cfg, path)
            if label in finetune:
                raise UserError(f'--finetune {path}: another one trains on {label} too')
            finetune[label] = cfg
    else:
        for label in ','.join(args.labels).split(','):
            label = label.replace('%', 'pct')
            path = find_config(encoder.name, 'finetune', f'-{label}', '--finetune')
            finetune[label] = _config(path, args.data)
    distil = None
    if 'distilled' in args.methods:
        if TEACHER not in args.methods:
            raise UserError(f'--methods: distilled needs its teacher, {TEACHER}: name it too')
        path = args.distil or find_config(encoder.name, 'selfdistil', '', '--distil')
        distil = _config(path, args.data)
    epochs = {key.replace('%', 'pct'): value for key, value in (args.epochs or {}).items()}
    for key, value in epochs.items():
        if key not in (*finetune, _DISTIL):
            raise UserError(f'--epochs {key}: name one of {", ".join([*finetune, _DISTIL])}')
        if type(value) is not int or value < 1:
            raise UserError(f'--epochs {key}={value}: give a whole number above 0')
    source = encoder.source if is_url(encoder.source) else str(Path(encoder.source).resolve())
    work_dir = args.work_dir or Path('work_dirs', 'few_labels', encoder.name)
    return Plan(encoder, source, finetune, distil, epochs, work_dir)


def _config(path: str, data: str | None) -> Config:
    cfg = command_line.read_config(path)
    if not command_line.is_classifier(cfg):
        raise UserError(f'{path} trains no classifier: name a config of configs/benchmarks')
    cfg = Config(cfg.to_dict(), filename=cfg.filename)  # names for classes, to write runs
    if data is not None:
        read_from(cfg, data)
    return cfg


def _require_same_encoder(plan: Plan) -> None:
    """Refuse results of other weights, which a checkpoint of the same name may have had."""
    weights = weights_hash(model_state(plan.encoder.content, plan.source))
    record = plan.work_dir / 'encoder.sha256'
    if record.is_file() and record.read_text().strip() != weights:
        raise UserError(
            f'{plan.work_dir} holds runs of other weights of {plan.source}, which has changed '
            'since: give another --work-dir, or delete this one'
        )
    write_text(record, f'{weights}\n')


def do_all(plan: Plan, args: argparse.Namespace) -> tuple[list[Run], int]:
    """Do the missing runs: first all others, then the students. Returns the runs and failures."""
    cells = [(label, seed) for label in plan.finetune for seed in range(args.seeds)]
    first = [each for each in METHODS if each in args.methods and each != 'distilled']
    runs = [plan.run(method, *cell) for method in first for cell in cells]
    done = sum(run.result_file.is_file() for run in runs)
    print(f'{len(runs)} runs in {plan.work_dir}, {done} of them done before.')
    trainer = TrainAndTest(plan.source, *where(args, len(runs)))
    failed = len(trainer.do_missing(runs, 'runs', tell))
    if 'distilled' not in args.methods:
        return runs, failed
    students = []
    for teacher in runs:
        if teacher.labels['method'] != TEACHER:
            continue
        if not teacher.result_file.is_file():
            failed += 1
            print(f'{teacher.name} has no result, so it teaches no student')
            continue
        label, seed = str(teacher.labels['labels']), int(teacher.labels['seed'])
        # Beside the pointer, wherever the folder is now. A student that is done needs no file.
        named = Path((teacher.folder / POINTER).read_text().strip())
        beside = teacher.folder / named.name
        weights = str(named if named.is_file() and not beside.is_file() else beside)
        students.append(plan.run('distilled', label, seed, weights))
    teach = TrainAndTest(plan.source, *where(args, len(students)))
    failed += len(teach.do_missing(students, 'students', tell))
    return runs + students, failed


def write_results(runs: Sequence[Run], labels: Sequence[str], work_dir: Path) -> None:
    """Print the table of the finished runs, and write it as Markdown and their rows as CSV."""
    rows = [run.row() for run in runs if run.result_file.is_file()]
    titles = [label.replace('pct', ' %').replace('perclass', ' a class') for label in labels]
    table, lines = Table('method', *titles), []
    for method, name in METHODS.items():
        cells = []
        for label in labels:
            wanted = dict(method=method, labels=label)
            values = [row['value'] for row in rows if wanted.items() <= row.items()]
            cells.append(mean_and_error([float(value) for value in values]))
        if any(cells):
            table.add_row(name, *cells)
            lines.append([name, *cells])
    write_table(work_dir / 'few_labels.csv', ['method', 'labels', 'seed'], rows)
    write_text(work_dir / 'few_labels.md', markdown_of(['Method', *titles], lines, titles))
    Console(soft_wrap=True).print(table)
    print(f'top-1 in percent, mean and standard error over seeds: {work_dir}/few_labels.md, .csv')


def mean_and_error(values: Sequence[float]) -> str:
    """Mean and its standard error, s / sqrt(n). One value has no error."""
    error = f' ± {sem(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{error}' if values else ''


@command_line.command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    plan = plan_of(args)
    with alone_in(plan.work_dir):
        _require_same_encoder(plan)
        runs, failed = do_all(plan, args)
    write_results(runs, list(plan.finetune), plan.work_dir)
    if failed:
        raise UserError(
            f'{failed} runs failed, as printed above: the same command tries them again'
        )
