"""Evaluate a checkpoint: top-1 and top-5 of a classifier, kNN of a pretrained model.

The metrics are also written to <work dir>/evaluation/, for simclr-mm report.
"""

import time
from collections.abc import Sequence

import mmengine
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults

from simclr_mm.checkpoints import meta_of, read_checkpoint
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import test_on_folder
from simclr_mm.commands.command_line.encoder_flags import checkpoint_of
from simclr_mm.commands.evaluate.loop_results import run_of_metrics
from simclr_mm.engine import build_runner
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import write_text

_METRICS = ('.json', '.yaml', '.yml')


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--cfg-options', '--trust-checkpoint', shared=True)
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='a path, a URL or the name of a model with weights')
    add(
        '--data',
        metavar='DIR',
        help="evaluate on this folder instead of the config's data: DIR/val/<class>/ or "
        'DIR/<class>/ for a classifier, DIR/train/<class>/ and DIR/val/<class>/ for kNN',
    )
    add('--out', metavar='FILE', help='write results to this file')
    written = 'what --out writes: the metrics (.json) or every prediction (.pkl)'
    add('--out-item', choices=('metrics', 'pred'), default='pred', help=written)
    add('--amp', action='store_true', help='automatic mixed precision (GPU)')
    command_line.add_common_flags(parser)
    args = parser.parse_args(argv)

    predictions = args.out if args.out_item == 'pred' else None
    if predictions is not None and not predictions.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {predictions}: predictions are written as .pkl')
    if args.out_item == 'metrics' and args.out is not None and not args.out.endswith(_METRICS):
        raise UserError(f'--out {args.out}: metrics are written as {", ".join(_METRICS)}')
    if args.out is not None:
        command_line.out_file(args.out)
    cfg = command_line.load_config(args)
    command_line.test_data(cfg)
    cfg.load_from = checkpoint_of(args.checkpoint)
    if args.data is not None:
        trained = _trained_classes(cfg.load_from) if command_line.is_classifier(cfg) else None
        test_on_folder(cfg, args.data, trained)
    if args.amp:
        cfg.test_cfg = dict(cfg.get('test_cfg') or {}, fp16=True)
    merge_cfg_options(cfg, args.cfg_options)
    runner = build_runner(cfg)
    if predictions is not None:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=predictions))
    started = time.time()
    metrics = runner.test()
    if not is_main_process():
        return
    results = command_line.result_path(args, cfg)
    origin = args.config, args.checkpoint, runner.model, time.time() - started
    run_of_metrics(metrics, cfg, *origin).write(results)
    print(f'results: {results}')
    if args.out is not None and args.out_item == 'metrics':
        plain = {name: getattr(value, 'tolist', lambda: value)() for name, value in metrics.items()}
        write_text(args.out, mmengine.dump(plain, file_format=args.out.rpartition('.')[2]))


def _trained_classes(checkpoint: str) -> Sequence[str] | None:
    """The classes of the images on which a checkpoint was trained, if it says so."""
    data = meta_of(read_checkpoint(checkpoint)).get('dataset_meta')
    return data.get('classes') if isinstance(data, dict) else None
