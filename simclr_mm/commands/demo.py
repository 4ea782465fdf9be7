"""Pretrain on scikit-learn's digits, evaluate, and draw a report. No download."""

import time
from pathlib import Path

from mmengine.config import Config

from simclr_mm.commands import command_line
from simclr_mm.commands.evaluate.feature_table import evaluate_features, print_table
from simclr_mm.commands.shown_run import draw_run, train_with_bar
from simclr_mm.engine.resume import latest_checkpoint
from simclr_mm.files.installed import CONFIGS

CONFIG = CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder of logs and report')
    args = parser.parse_args(argv)

    started = time.time()
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = args.work_dir
    cfg.randomness.seed = 1  # near the median of five
    runner = train_with_bar(cfg)
    checkpoint = str(latest_checkpoint(runner.work_dir))

    run, embedded = evaluate_features(cfg, str(CONFIG), checkpoint)
    dataset = runner.train_dataloader.dataset
    report = Path(args.work_dir, 'report.png')
    title = f'SimCLR on {len(dataset)} unlabelled digits'
    draw_run(report, runner, [Path(runner.log_dir)], embedded, dataset.metainfo['classes'], title)

    run.seconds = time.time() - started
    run.write(Path(args.work_dir, 'evaluation', 'demo.json'))
    print_table(run)
    print(
        f'{report} shows the loss, the views and the test embeddings; the log is in '
        f'{runner.log_dir}. {time.time() - started:.0f} s in all.'
    )
