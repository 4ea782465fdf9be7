"""Pretrain an encoder on a folder of images: no config, no labels, a page at the end.

Looks at the images and the machine, chooses a recipe, and prints each choice with its
reason. OUT/recipe.py is the recipe as a config, OUT/run its training, OUT/embedding has a
feature for every image, OUT/report.html and OUT/report.png show the run. If folders look
like classes, their names measure the encoder; they do not train it. After an interruption the
same command continues.
"""

import argparse
import contextlib
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import set_random_seed
from rich.progress import track
from torch.utils.data import DataLoader

from simclr_mm.apis import load_encoder
from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.commands import command_line
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.embed.images import Images
from simclr_mm.commands.evaluate.feature_table import evaluate_features, print_table
from simclr_mm.commands.evaluate.image_features import from_embedding
from simclr_mm.commands.report.pages import collect, page
from simclr_mm.commands.shown_run import draw_run, train_with_bar
from simclr_mm.datasets.nested import innermost
from simclr_mm.engine.dry_run import seconds_a_step
from simclr_mm.engine.resume import latest_checkpoint
from simclr_mm.engine.runner import check_work_dir
from simclr_mm.errors import UserError, listed
from simclr_mm.files.atomic import alone_in, write_text
from simclr_mm.files.walk import printable

from .choices import Recipe, choose, read_from_files, with_epochs
from .recipe_config import config_text
from .surroundings import Machine, Pictures, look_at, machine

_QUICK = 2.0  # minutes
_PAGE = 'report.html'
_DRAWN = 2000  # features in the picture
# Of linear classifiers: images, and images times classes.
_MOST_IMAGES, _MOST_SCORES = 100_000, 20_000_000


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__)
    add = parser.add_argument
    add('folder', help='any folder of images, at any depth')
    length = parser.add_mutually_exclusive_group().add_argument
    minutes = 'of training, on this machine; default: 30'
    length('--minutes', type=_minutes, default=30.0, help=minutes)
    quick = f'the same as --minutes {_QUICK:g}: to see the whole way once'
    length('--quick', action='store_const', const=_QUICK, dest='minutes', help=quick)
    add('--out', metavar='DIR', help='default: work_dirs/pretrain/<name of the folder>')
    add('--seed', type=command_line.at_least(0), default=0, help='of weights and views')
    args = parser.parse_args(argv)

    started = time.time()
    default = Path('work_dirs', 'pretrain', Path(args.folder).resolve().name)
    out = command_line.out_folder(args.out or default)
    check_work_dir(str(out))
    if (out / _PAGE).exists():
        raise UserError(f'{out} holds a finished run: name another folder with --out')
    pictures, here = look_at(args.folder), machine()
    if out.resolve().is_relative_to(Path(args.folder).resolve()):
        raise UserError(
            f'{out} lies in {args.folder}, which is read at any depth, so its pictures would '
            'be among them: name another place with --out'
        )
    print(_found(pictures, here))
    recipe = None
    if not (out / 'recipe.py').exists():
        recipe = _measured(choose(pictures, here, args.minutes), pictures, here, args.minutes)
    with alone_in(out):
        _pretrain(args, out, pictures, recipe)
    print(f'{(time.time() - started) / 60:.1f} minutes in all.')


def _pretrain(
    args: argparse.Namespace, out: Path, pictures: Pictures, recipe: Recipe | None
) -> None:
    file = out / 'recipe.py'
    work_dir = str((out / 'run').absolute())
    continued = recipe is None or file.exists()
    if recipe is None or continued:
        _require_same_images(file, pictures.root)
        start = '' if latest_checkpoint(work_dir) else ', from the first step: nothing was saved'
        begun = f'{printable(str(file))} was begun before'
        print(f'{begun}: continued with its settings and its time{start}.')
    else:
        print('\n'.join(recipe.lines()))
        write_text(file, config_text(recipe, pictures, work_dir, args.seed))
        print(f'{printable(str(file))} is this recipe as a config.')

    cfg = command_line.read_config(str(file))
    cfg.work_dir, cfg.resume = work_dir, continued  # the folder may have been moved
    runner = train_with_bar(cfg)
    checkpoint = str(latest_checkpoint(work_dir))
    _embed(checkpoint, cfg, pictures, out)
    if pictures.classes and cfg.val_evaluator is not None:
        _evaluate(cfg, file, checkpoint, pictures)
    classes_of = _first_folder if pictures.classes else _images
    embedded = from_embedding(out / 'embedding', _DRAWN, class_of=classes_of)
    shown = embedded.features, embedded.labels
    title = f'SimCLR on {pictures.number} images without labels, {cfg.train_cfg.max_epochs} epochs'
    logs = [path.parents[1] for path in sorted(out.glob('run/*/vis_data/scalars.json'))]
    draw_run(out / 'report.png', runner, logs, shown, embedded.classes, title, 'features')
    write_text(out / _PAGE, page(collect([out])))
    print(_next(args.folder, out, checkpoint, args.minutes))


def _require_same_images(file: Path, root: Path) -> None:
    """Refuse to go on with a recipe that trains on another folder."""
    begun = innermost(command_line.read_config(str(file)).train_dataloader.dataset).data_root
    if Path(begun).resolve() != root.resolve():
        raise UserError(
            f'{file} is the recipe of an interrupted run on the images of {begun}: name another '
            f'folder with --out, or delete {file.parent} to begin anew'
        )


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e5:
            return float(text)
    raise argparse.ArgumentTypeError(f'{text!r}: give a number of minutes above 0')


def _found(pictures: Pictures, here: Machine) -> str:
    smallest, median, largest = pictures.sides
    lines = [
        f'{printable(str(pictures.root))}: {pictures.number} images, short side {smallest} to '
        f'{largest} px, {median} in the middle',
        f'{here.name}, {_memory(here.free_memory)}; computes in {here.numbers}',
    ]
    if pictures.held_out is not None:
        use = 'classified' if pictures.classes else 'not used, as no classes are measured'
        lines.append(f'{printable(str(pictures.held_out))} trains nothing: {use}')
    if pictures.classes:
        fewest, most = min(pictures.classes.values()), max(pictures.classes.values())
        folders = f'{len(pictures.classes)} folders of {fewest} to {most} images'
        lines.append(f'{folders}: their names measure the encoder and do not train it')
    else:
        lines.append('no folders that look like classes: measured without labels')
    return '\n'.join(lines)


def _memory(free: int | None) -> str:
    return 'memory unknown' if free is None else f'{free / 2**30:.1f} GiB of memory free'


def _measured(recipe: Recipe, pictures: Pictures, here: Machine, minutes: float) -> Recipe:
    """The recipe with the number of epochs, after a few steps on the images."""
    try:
        step = _time(recipe, pictures)
    except UserError as error:
        if recipe.images.value != 'memory':
            raise
        recipe = read_from_files(recipe, here, f'not every image can be held in memory: {error}')
        step = _time(recipe, pictures)
    recipe = with_epochs(recipe, pictures.number, minutes, step)  # refuses before all are read
    if recipe.validated and recipe.images.value == 'files':
        reasons = _unreadable(pictures, int(recipe.workers.value))
        if reasons:  # else the first validation would end the training
            print(
                f'{len(reasons)} images cannot be read, so training replaces them and nothing is '
                f'measured: {listed(reasons)}'
            )
            recipe = replace(recipe, validated=False)
    return recipe


def _unreadable(pictures: Pictures, workers: int) -> list[str]:
    """Why images cannot be read: all are decoded once, as measuring does it."""
    images = DataLoader(
        Images(pictures.root), batch_size=None, num_workers=workers, collate_fn=_reason
    )
    return [reason for reason in track(images, 'reading', transient=True) if reason]


def _reason(read: Any) -> str:
    _, _, reason = read  # of ImageOrReason
    return reason


def _time(recipe: Recipe, pictures: Pictures) -> float:
    set_random_seed(0)
    return seconds_a_step(Config.fromstring(config_text(recipe, pictures), '.py'))


def _evaluate(cfg: Config, file: Path, checkpoint: str, pictures: Pictures) -> None:
    """A table beside the untrained encoder and raw pixels, with folders as classes."""
    scores = pictures.number * len(pictures.classes)
    if scores > _MOST_SCORES or pictures.number > _MOST_IMAGES:
        print(
            f'no linear classifiers are trained: {pictures.number} images in '
            f'{len(pictures.classes)} folders would take long, and memory. "simclr-mm evaluate '
            f'{shlex.quote(str(file))} {shlex.quote(checkpoint)}" does it.'
        )
        return
    per_class = max(1, min(5, min(pictures.classes.values()) // 2))
    run, _ = evaluate_features(cfg, str(file), checkpoint, per_class)
    run.write(file.parent / 'evaluation' / 'pretrain.json')
    print_table(run)


def _first_folder(name: str) -> str:
    return name.rpartition('/')[0].partition('/')[0]  # as in the table


def _images(name: str) -> str:
    return 'images'  # without classes


def _embed(checkpoint: str, cfg: Config, pictures: Pictures, out: Path) -> None:
    inferencer = FeatureInferencer(load_encoder(checkpoint, cfg, machine().device))
    origin = dict(checkpoint=os.path.abspath(checkpoint))
    workers = min(machine().cores, 8)
    record = embed_folder(
        inferencer, pictures.root, out / 'embedding', workers=workers, restart=True, origin=origin
    )
    if record['unreadable']:
        print(f'{record["unreadable"]} images are unreadable: {out}/embedding/errors.jsonl')


def _next(folder: str, out: Path, checkpoint: str, minutes: float) -> str:
    quoted = shlex.quote
    index = quoted(str(out / 'embedding'))
    return (
        f'{out / _PAGE}: numbers and the loss; {out / "report.png"}: loss, views and a map; '
        f'{out / "embedding"}: a feature for every image\nGo on with:\n'
        f'  simclr-mm retrieve PICTURE.jpg --index {index}\n'
        f'  simclr-mm export {quoted(checkpoint)} --to timm\n'
        f'  simclr-mm pretrain {quoted(folder)} --minutes {minutes * 4:g} --out '
        f'{quoted(f"{out}-longer")}'
    )
