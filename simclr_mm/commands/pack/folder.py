"""Pack a folder of images into a few large files."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simclr_mm.datasets.pack_index import INDEX, UNREADABLE, read_index
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage
from simclr_mm.version import __version__

from .plan import PackPlan, PackSettings, open_work, plan_pack
from .writers import WRITERS, PackedImage


def pack_folder(
    folder: str,
    out: str,
    settings: PackSettings,
    classes_file: str | None = None,
    labelled: bool = True,
    processes: int = 1,
    restart: bool = False,
) -> dict:
    """Write the shards of a folder that are not there yet.

    Which image lies in which shard depends on the folder and the settings alone, and a
    shard is there whole or not at all: stopped anywhere and called again, the result is
    the same.

    Args:
        folder: See :func:`~simclr_mm.commands.pack.plan.plan_pack`.
        out: A folder that does not exist, is empty, or holds a part of this pack.
        settings: Format and size.
        classes_file: See ``plan_pack``.
        labelled: See ``plan_pack``.
        processes: That read and encode images.
        restart: Replace another pack.

    Returns:
        What ``index.json`` holds.

    Raises:
        ValueError: A setting, ``out`` or the folder's classes are not as described, no
            image could be read, or another process is packing there.
    """
    _check(settings, processes)
    plan = plan_pack(folder, settings, classes_file, labelled)
    writer = WRITERS[settings.format](Path(out), plan.classes)
    record = plan.record()
    work = open_work(Path(out), record, restart)
    if not work.is_dir():
        return read_index(Path(out))
    try:
        with FileLock(work / 'lock', timeout=0):
            states = _write_shards(plan, writer, Path(out), work, processes)
            index = _finish(plan, writer, Path(out), states, record)
            shutil.rmtree(work)
    except Timeout as error:
        raise UserError(
            f'{out}: another process is packing there. Wait for it, or name a new folder.'
        ) from error
    return index


def encode(path: str, short_side: int | None, quality: int) -> tuple[bytes, str]:
    """Read an image for a pack.

    Args:
        path: Its file.
        short_side: See PackSettings.
        quality: See PackSettings.

    Returns:
        The file as it is, or a JPEG of the reduced image, turned as EXIF said, where
        the image is larger; and the extension of its format.

    Raises:
        UnreadableImage: It is no complete image.
    """
    content, img = LoadImageFromFile().read(path)
    if short_side is not None and min(img.shape[:2]) > short_side:
        scale = short_side / min(img.shape[:2])
        size = [max(short_side, round(side * scale)) for side in img.shape[1::-1]]
        img = cv2.resize(img, size, interpolation=cv2.INTER_AREA)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return cv2.imencode('.jpg', img, options)[1].tobytes(), 'jpg'
    for start, extension in ((b'\xff\xd8', 'jpg'), (b'\x89PNG', 'png')):
        if content.startswith(start):  # whatever its name says
            return content, extension
    return content, Path(path).suffix.lower()[1:]


def _check(settings: PackSettings, processes: int) -> None:
    for flag, value, high in (
        ('--short-side', settings.short_side, 1 << 16),
        ('--quality', settings.quality, 100),
        ('--shard-size', settings.shard_images, 1 << 31),
        ('--processes', processes, 1 << 10),
    ):
        if value is not None and not 1 <= value <= high:
            raise UserError(f'{flag} {value}: give a number from 1 to {high}.')


def _encode_one(task: tuple[int, str], **options):
    """What goes through the pipe of a process: row, and content or reason."""
    row, path = task
    try:
        return row, encode(path, **options), None
    except UnreadableImage as error:
        return row, None, str(error)


def _write_shards(plan: PackPlan, writer, out: Path, work: Path, processes: int) -> list[dict]:
    """Write the missing shards; what is known of each."""
    shards = plan.shards(writer.shuffled)
    settings = plan.settings
    one = partial(_encode_one, short_side=settings.short_side, quality=settings.quality)
    columns = (TextColumn('packing'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    states = []
    with _mapping(processes) as mapping, Progress(*columns) as progress:
        task = progress.add_task('', total=len(plan.paths))
        for number, rows in enumerate(shards):
            file = work / f'{number:05d}.json'
            if not file.is_file():
                tasks = [(row, str(plan.root / plan.paths[row])) for row in rows]
                unreadable: dict[int, str] = {}
                results = _followed(mapping(one, tasks), progress, task)
                path = out / f'shard-{number:05d}{writer.suffix}'
                writer.write(path, _readable(plan, results, unreadable))
                state = dict(name=path.name, unreadable=unreadable)
                with atomic_file(file) as handle:
                    handle.write(json.dumps(state).encode())
            progress.update(task, completed=sum(map(len, shards[: number + 1])))
            state = json.loads(file.read_text())
            states.append(dict(state, images=len(rows) - len(state['unreadable'])))
    return states


@contextmanager
def _mapping(processes: int) -> Iterator[Callable]:
    """``map``, by so many processes."""
    if processes == 1:
        yield map
        return
    # OpenCV's threads do not survive a fork, and the processes are enough.
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context('fork'), cv2.setNumThreads, (0,)
    ) as pool:
        yield partial(pool.map, chunksize=4)


def _followed(results: Iterator, progress: Progress, task) -> Iterator:
    for result in results:
        yield result
        progress.advance(task)


def _readable(
    plan: PackPlan, results: Iterator, unreadable: dict[int, str]
) -> Iterator[PackedImage]:
    """Pass readable images on, remember the reasons of the others."""
    for row, encoded, reason in results:
        if encoded is None:
            unreadable[row] = reason
            continue
        label = None if plan.labels is None else plan.labels[row]
        yield PackedImage(row, plan.paths[row], label, *encoded)


def _finish(plan: PackPlan, writer, out: Path, states: list[dict], record: dict) -> dict:
    """Write the index of whole shards."""
    unreadable = {
        int(row): reason for state in states for row, reason in state['unreadable'].items()
    }
    images = [
        (path, None if plan.labels is None else plan.labels[row])
        for row, path in enumerate(plan.paths)
        if row not in unreadable
    ]
    if not images:
        raise UserError(f'no image of {plan.root} can be read; the first: {unreadable[0]}')
    with atomic_file(out / UNREADABLE) as file:
        for row, reason in sorted(unreadable.items()):
            line = json.dumps(dict(path=plan.paths[row], reason=reason))
            file.write(line.encode() + b'\n')
    files = [out / state['name'] for state in states if writer.suffix]
    writer.finish(files, images)
    index = dict(
        pack_version=1,
        made_with=f'simclr_mm {__version__}',
        format=plan.settings.format,
        images=len(images),
        unreadable=len(unreadable),
        labels=plan.labels is not None,
        classes=plan.classes,
        settings=record['settings'],
        shards=[
            dict(name=path.name, images=state['images'], bytes=path.stat().st_size)
            for path, state in zip(files, states)
        ],
        plan=record,
    )
    with atomic_file(out / INDEX) as file:
        file.write(json.dumps(index, indent=1).encode())
    return index
