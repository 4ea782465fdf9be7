"""Compare a pretrained encoder with the untrained one and with raw pixels.

kNN, a linear probe on all labels and a linear probe on a few labels of each class, on
the gallery and the queries of the config's test dataset.
"""
import argparse

import mmengine
from mmengine.config import Config

from simclr_mm.apis import command_line
from simclr_mm.apis.feature_table import feature_rows, print_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='checkpoint, a path or a URL')
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='take the images of DIR/train/<class>/ and DIR/val/<class>/ instead of '
        "the config's data")
    parser.add_argument(
        '--per-class',
        type=int,
        default=5,
        help='labels a class of the few-label probe')
    parser.add_argument(
        '--draws', type=int, default=20, help='draws of the few-label probe')
    parser.add_argument('--out', metavar='FILE', help='also write the rows as JSON')
    command_line.add_cfg_options(parser)
    command_line.add_trust_flag(parser)
    args = parser.parse_args()

    cfg = Config.fromfile(args.config)
    if args.data is not None:
        command_line.test_on_folder(cfg, args.data)
    command_line.merge_cfg_options(cfg, args.cfg_options)
    rows, _ = feature_rows(cfg, args.checkpoint, args.per_class, args.draws)
    print_rows(rows, args.per_class, args.draws)
    if args.out is not None:
        mmengine.dump(rows, args.out)


if __name__ == '__main__':
    command_line.run(main)
