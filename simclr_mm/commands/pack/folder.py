"""Pack a folder of images into a few large files."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from rich.progress import track

from simclr_mm.commands.command_line import ALONE, Ranks
from simclr_mm.datasets.pack_index import INDEX, UNREADABLE, parse_index
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import alone_in, write_text
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage
from simclr_mm.version import __version__

from .plan import LOCK, PackPlan, PackSettings, open_work, plan_pack
from .writers import WRITERS, PackedImage, Writer

_BROKEN = 'a broken link: its target does not exist.'
# An encoded image: its row; its content and extension, or the reason why it has none.
_Encoded = tuple[int, tuple[bytes, str] | str]


def pack_folder(
    folder: str,
    out: Path,
    settings: PackSettings,
    classes_file: str | None = None,
    labelled: bool = True,
    processes: int = 1,
    restart: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Write the missing shards of a folder. Returns the content of ``index.json``.

    The shard of an image depends only on the folder and the settings, and a shard is
    complete or absent. So a pack continued after an interruption equals an uninterrupted one.

    Args:
        folder: See :func:`.plan.plan_pack`, also for ``classes_file`` and ``labelled``.
        out: A folder that does not exist, is empty, or holds a part of this pack.
        processes: Processes that read and encode images.
        restart: Replace another pack.
        ranks: They share the shards, on a disk that all see. Only the first returns.
    """
    plan = plan_pack(folder, settings, classes_file, labelled)
    writer = WRITERS[settings.format](out, plan.classes)
    if ranks.size > 1 and not writer.suffix:
        raise UserError(
            f'--format {settings.format} is one file, which one process writes: start it without '
            'torchrun, or choose another format.'
        )
    record = plan.record()
    ranks.require_same(record)
    if ranks.rank > 0:
        work = ranks.share(None)
        if work is not None:
            _write_shards(plan, writer, _visible(work), processes, ranks)
        ranks.only_first_goes_on()
    work = open_work(out, record, restart)
    if not work.is_dir():
        ranks.share(None)
    else:
        with alone_in(out, LOCK):
            ranks.share(work)
            states = _write_shards(plan, writer, work, processes, ranks)
            _finish(plan, writer, states, record)
            shutil.rmtree(work, ignore_errors=True)  # NFS keeps the lock, which is open
    index = out / INDEX
    return parse_index(index.read_bytes(), str(index))


def encode(path: str, short_side: int | None, quality: int) -> tuple[bytes, str]:
    """An image for a pack, and the extension of its format.

    A larger image becomes a reduced JPEG, turned upright by its EXIF data. Other files stay
    unchanged.
    """
    content, img = LoadImageFromFile().read(path)
    if short_side is not None and min(img.shape[:2]) > short_side:
        scale = short_side / min(img.shape[:2])
        size = [max(short_side, round(side * scale)) for side in img.shape[1::-1]]
        img = cv2.resize(img, size, interpolation=cv2.INTER_AREA)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return cv2.imencode('.jpg', img, options)[1].tobytes(), 'jpg'
    for start, extension in ((b'\xff\xd8', 'jpg'), (b'\x89PNG', 'png')):
        if content.startswith(start):  # independent of its name
            return content, extension
    return content, Path(path).suffix.lower()[1:]


def _encode_row(task: tuple[int, str], settings: PackSettings) -> _Encoded:
    row, path = task
    try:
        return row, encode(path, settings.short_side, settings.quality)
    except UnreadableImage as error:
        return row, str(error)


def _visible(work: Path) -> Path:
    """The folder of state that rank 0 has opened."""
    if not work.is_dir():
        raise UserError(f'there is no {work}, which rank 0 has opened: pack to a disk that all see')
    return work


def _write_shards(
    plan: PackPlan, writer: Writer, work: Path, processes: int, ranks: Ranks
) -> list[dict[str, Any]]:
    """Returns name, images and unreadable rows of each shard, on rank 0 of all ranks."""
    states = []
    encode_row = partial(_encode_row, settings=plan.settings)
    with _pool(processes) as pool:
        in_order = map if processes == 1 else partial(pool.map, chunksize=4)
        shards = ranks.mine(list(enumerate(plan.shards(writer.shuffled))))
        for number, rows in track(shards, 'packing shards'):
            file = work / f'{number:05d}.json'
            if not file.is_file():
                path = writer.out / f'shard-{number:05d}{writer.suffix}'
                unreadable: dict[int, str] = {}
                tasks = [(row, str(plan.root / plan.paths[row])) for row in rows]
                images = _readable(plan, in_order(encode_row, tasks), unreadable)
                writer.write(path, images)
                write_text(file, json.dumps(dict(name=path.name, unreadable=unreadable)))
            state = json.loads(file.read_text())
            states.append(dict(state, images=len(rows) - len(state['unreadable'])))
    return list(ranks.in_order(states))


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Forked processes that end at once with an error or the end of this one."""
    context = multiprocessing.get_context('fork')
    pool = ProcessPoolExecutor(processes, context, _start_process)
    try:
        yield pool
    except BaseException:  # also Ctrl-C
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _start_process() -> None:
    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _readable(
    plan: PackPlan, results: Iterable[_Encoded], unreadable: dict[int, str]
) -> Iterator[PackedImage]:
    """Yield readable images, and collect the reasons of the others."""
    for row, image in results:
        if isinstance(image, str):
            unreadable[row] = image
        else:
            yield PackedImage(row, plan.paths[row], plan.labels[row], *image)


def _finish(
    plan: PackPlan, writer: Writer, states: list[dict[str, Any]], record: dict[str, Any]
) -> None:
    """Write the lists and the index of complete shards."""
    reasons = {int(row): reason for state in states for row, reason in state['unreadable'].items()}
    left_out = {plan.paths[row]: reason for row, reason in sorted(reasons.items())}
    if len(left_out) == len(plan.paths):
        raise UserError(f'no image of {plan.root} can be read; the first: {reasons[0]}')
    left_out.update((path, _BROKEN) for path in plan.broken)
    lines = (json.dumps(dict(path=path, reason=reason)) for path, reason in left_out.items())
    write_text(writer.out / UNREADABLE, ''.join(f'{line}\n' for line in lines))
    rows = [row for row in range(len(plan.paths)) if row not in reasons]
    shards = [state for state in states if writer.suffix]
    paths = [writer.out / state['name'] for state in shards]
    writer.finish(paths, [(plan.paths[row], plan.labels[row]) for row in rows])
    index = dict(
        pack_version=1,
        made_with=f'simclr_mm {__version__}',
        format=plan.settings.format,
        images=len(rows),
        unreadable=len(left_out),
        labels=record['labels'],
        classes=plan.classes,
        settings=record['settings'],
        shards=[
            dict(name=path.name, images=state['images'], bytes=path.stat().st_size)
            for path, state in zip(paths, shards)
        ],
        plan=record,
    )
    write_text(writer.out / INDEX, json.dumps(index, indent=1))
