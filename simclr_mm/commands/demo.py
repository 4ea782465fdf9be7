"""Pretrain on scikit-learn's digits, evaluate, and draw a report. No download."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from simclr_mm.commands import command_line
from simclr_mm.commands.evaluate.feature_table import evaluate_features, print_table
from simclr_mm.datasets import SampleIndex
from simclr_mm.files.installed import CONFIGS
from simclr_mm.visualization import plot_report, read_scalars

CONFIG = CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
PAIRS = 8  # images whose views are in the report


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder of logs and report')
    args = parser.parse_args(argv)

    started = time.time()
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = args.work_dir
    cfg.randomness.seed = 1  # near the median of five
    runner = command_line.build_runner(cfg)
    runner.train()
    checkpoint = Path(runner.work_dir, 'last_checkpoint').read_text()

    run, (features, labels) = evaluate_features(cfg, str(CONFIG), checkpoint)
    dataset = runner.train_dataloader.dataset
    drawn = [dataset[SampleIndex(i, seed=0)]['inputs'] for i in range(PAIRS)]
    views = torch.stack(drawn).flip(2).permute(0, 1, 3, 4, 2).numpy()  # (PAIRS, V, S, S, 3), RGB
    report = Path(args.work_dir, 'report.png')
    scalars = read_scalars(Path(runner.log_dir, 'vis_data', 'scalars.json'))
    classes, title = dataset.metainfo['classes'], f'SimCLR on {len(dataset)} unlabelled digits'
    plot_report(str(report), scalars, views, features, labels, classes, title)

    run.seconds = time.time() - started
    run.write(Path(args.work_dir, 'evaluation', 'demo.json'))
    print_table(run)
    print(
        f'{report} shows the loss, the views and the test embeddings. '
        f'{time.time() - started:.0f} s in all.'
    )
