"""Compare a pretrained encoder with the untrained one and with raw pixels.

The protocols are kNN, a linear probe on all labels and a linear probe on a few labels of
each class, on gallery and queries of the config's test dataset. The numbers are also
written as JSON, for simclr-mm report. The processes of torchrun share the images.
"""

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import test_on_folder
from simclr_mm.commands.evaluate.feature_table import evaluate_features, print_table


@command_line.command
def main(argv: list[str] | None = None) -> None:
    flags = ('config', 'checkpoint', '--cache', '--cfg-options', '--trust-checkpoint')
    parser = command_line.parser_of(__doc__, *flags, shared=True)
    add, positive = parser.add_argument, command_line.at_least(1)
    images = "DIR/train/<class>/ and DIR/val/<class>/ instead of the config's data"
    add('--data', metavar='DIR', help=f'take the images of {images}')
    add('--per-class', type=positive, default=5, help='labels a class of the few-label probe')
    add('--draws', type=positive, default=20, help='draws of the few-label probe')
    swept = 'L2 penalty of the linear probe on held-out images, from 45 values'
    add('--sweep', action='store_true', help=f'also choose the {swept}, as the paper for transfer')
    add('--work-dir', help=command_line.WORK_DIR)
    add('--out', metavar='FILE', help='default: a new file in <work dir>/evaluation/')
    args = parser.parse_args(argv)

    cfg = command_line.config_with_flags(args.config, args, test_on_folder)
    out = command_line.out_file(args.out or command_line.result_path(args, cfg))
    how = args.per_class, args.draws, args.sweep, args.cache, command_line.ranks()
    run, _ = evaluate_features(cfg, args.config, args.checkpoint, *how)
    print_table(run)
    run.write(out)
    print(f'results: {out}')
