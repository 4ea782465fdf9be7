"""Compare a pretrained encoder with the untrained one and with raw pixels.

The protocols are kNN, a linear probe on all labels and a linear probe on a few labels of
each class, on gallery and queries of the config's test dataset. The numbers are also
written as JSON, for tools/report.py.
"""

import argparse
from collections.abc import Sequence

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import test_on_folder
from simclr_mm.commands.evaluate.cache import add_cache_flag
from simclr_mm.commands.evaluate.feature_table import evaluate_features, print_table


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='checkpoint, a path or a URL')
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='take the images of DIR/train/<class>/ and DIR/val/<class>/ instead of '
        "the config's data",
    )
    parser.add_argument(
        '--per-class',
        type=command_line.at_least(1),
        default=5,
        help='labels a class of the few-label probe',
    )
    parser.add_argument(
        '--draws', type=command_line.at_least(1), default=20, help='draws of the few-label probe'
    )
    parser.add_argument(
        '--sweep',
        action='store_true',
        help='also choose the L2 penalty of the linear probe on held-out images, from '
        '45 values, as the paper does for transfer',
    )
    add_cache_flag(parser)
    parser.add_argument('--work-dir', help='default: work_dirs/<name of the config>')
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='write the results to this file instead of <work dir>/evaluation/',
    )
    command_line.add_cfg_options(parser)
    command_line.add_trust_flag(parser)
    args = parser.parse_args(argv)

    cfg = command_line.read_config(args.config)
    if args.data is not None:
        test_on_folder(cfg, args.data)
    command_line.merge_cfg_options(cfg, args.cfg_options)
    run, _ = evaluate_features(
        cfg, args.config, args.checkpoint, args.per_class, args.draws, args.sweep, args.cache
    )
    print_table(run)
    out = args.out or command_line.result_path(args)
    run.write(out)
    print(f'results: {out}')
