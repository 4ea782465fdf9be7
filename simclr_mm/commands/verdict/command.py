"""Did pretraining help? Compare an encoder on labelled images, with intervals.

kNN and a linear classifier learn from 1, 5, 20 and 100 % of the labels, over several
draws. The encoder is compared with the same encoder untrained, with raw pixels and with
the checkpoints of --against. OUT/verdict.html shows the sentence that is printed and the
curves, OUT/verdict.json holds the numbers, OUT/evaluation.json is for simclr-mm report.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.checkpoints import weights_hash
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.encoder_flags import ENCODER, or_default
from simclr_mm.commands.verdict.curves import KNN, all_hits, draws_of
from simclr_mm.commands.verdict.judgement import accuracies, answer, compare, sentence
from simclr_mm.commands.verdict.labelled import TEST_SHARE, all_features, parts_of
from simclr_mm.commands.verdict.page import Verdict, page
from simclr_mm.evaluation import EvaluationRun, Result
from simclr_mm.files.atomic import write_text
from simclr_mm.files.walk import printable

_SHARES = (1.0, 5.0, 20.0, 100.0)  # percent


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    shared = '--config', '--device', '--seed', '--cache', '--workers', '--trust-checkpoint'
    parser = command_line.parser_of(__doc__, *shared)
    add, positive = parser.add_argument, command_line.at_least(1)
    add('checkpoint', nargs='?', help=ENCODER)
    labelled = 'DIR/train/<class>/ and DIR/test/<class>/, or DIR/<class>/, which is divided'
    add('--data', metavar='DIR', required=True, help=f'labelled images: {labelled}')
    others = 'checkpoints of this package, torchvision, timm and others; CONFIG=FILE names a config'
    add('--against', nargs='+', default=[], metavar='FILE', help=others)
    add('--shares', nargs='+', type=_percent, default=_SHARES, help='percent of the labels')
    add('--draws', type=command_line.at_least(2), default=10, help='draws of each share below 100')
    add('--k', type=positive, default=20, help='neighbours')
    add('--margin', type=_percent, default=2.0, help='points below which a difference is none')
    share = f'percent of DIR/<class>/ to test on; default: {100 * TEST_SHARE:g}'
    add('--test-share', type=_percent, help=share)
    add('--out', metavar='DIR', help='default: work_dirs/verdict/<name of DIR>')
    args = parser.parse_args(argv)

    started = time.time()
    args.checkpoint = or_default(args.checkpoint)
    default = Path('work_dirs', 'verdict', Path(args.data).resolve().name)
    out = command_line.out_folder(args.out or default)
    ours = load_encoder(args.checkpoint, args.config, args.device or get_device())
    test_share = args.test_share and args.test_share / 100
    parts, split = parts_of(args.data, test_share, args.seed, ours.loading_step)
    print(split)
    features = all_features(ours, args.against, parts, args.cache, args.workers)
    (_, labels), (_, wanted) = next(iter(features.values()))
    draws = draws_of(labels, [share / 100 for share in args.shares], args.draws, args.seed)
    hits = all_hits(features, draws, args.k, args.device)
    comparisons = compare(hits, len(labels), args.margin)
    shares = {n: f'{100 * n / len(labels):.3g} %' for n in draws}
    verdict = Verdict(
        data=split,
        checkpoint=printable(args.checkpoint),
        sha256=weights_hash(ours.model.state_dict()),
        answer=answer(comparisons),
        sentence=sentence(comparisons, 'the pretrained encoder', shares, len(wanted), args.margin),
        classes=len(set(wanted.tolist())),
        test_images=len(wanted),
        shares=shares,
        draws=args.draws,
        seed=args.seed,
        k=args.k,
        margin=args.margin,
        accuracies=accuracies(hits, len(labels)),
        comparisons=comparisons,
    )
    write_text(out / 'verdict.html', page(verdict))
    write_text(out / 'verdict.json', json.dumps(verdict.as_json(), indent=1))
    _run_of(verdict, args, time.time() - started).write(out / 'evaluation.json')
    print(verdict.sentence)
    print(f'{printable(str(out / "verdict.html"))} shows the curves.')


def _percent(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no number') from error
    if not 0 < number <= 100 or math.isnan(number):
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 100')
    return number


def _run_of(verdict: Verdict, args: argparse.Namespace, seconds: float) -> EvaluationRun:
    """The accuracies in the form of every evaluation."""
    results = []
    folder = Path(args.data).resolve()
    for name, cells in verdict.accuracies.items():
        for (protocol, labels), found in cells.items():
            settings = dict(labels=labels, draws=args.draws, low=found.low, high=found.high)
            how = dict(k=min(args.k, labels)) if protocol == KNN else dict(penalty=1.0)
            share = verdict.shares[labels].replace(' ', '')
            scored = 'classification', printable(folder.name), 'test', printable(name)
            named = f'{protocol.lower()}-{share}', 'top1'
            results.append(Result(*scored, *named, found.value, dict(**how, **settings)))
    return EvaluationRun(
        args.config or '', args.checkpoint, verdict.sha256, args.seed, seconds, results
    )
