"""Write the features of a folder in batches, and resume after an interruption.

n images in a batch, N images in the folder, C feature width.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import default_collate
from numpy.lib.format import open_memmap
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Subset

from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.commands.command_line import ALONE, Ranks
from simclr_mm.engine.loader_workers import start_plain_worker
from simclr_mm.files.atomic import alone_in, write_text
from simclr_mm.files.hashes import bytes_hash

from .embedding_record import ERRORS, FEATURES, PARTIAL, PATHS, RECORD, earlier_progress, new_record
from .images import Images

_SAVE_EVERY = 5.0  # seconds of work that a kill may cost
# Rows of readable images, their features (n, C) or None, and reasons by unreadable row.
_Embedded = tuple[list[int], np.ndarray | None, dict[int, str]]


def embed_folder(
    inferencer: FeatureInferencer,
    folder: str | Path,
    out: str | Path,
    batch_size: int = 64,
    workers: int = 0,
    restart: bool = False,
    origin: dict[str, str] | None = None,
    ranks: Ranks = ALONE,
    replace: bool = False,
) -> dict[str, Any]:
    """Embed every image below a folder or in a pack into ``out/features.npy``.

    ``out`` also gets ``paths.json``, N paths relative to the folder, or keys in the pack;
    ``errors.jsonl``, row, path and reason of each unreadable image (its features are NaN); and
    ``embedding.json``, the record of images and encoder, which is returned. Memory holds one batch
    at a time. A later call continues an interrupted one; ``restart`` replaces the content of
    ``out``, ``replace`` only that of other images or another encoder. ``origin`` names the
    checkpoint and the config, for the record. ``ranks`` share the batches; the first writes, and
    the others return no record.
    """
    images, out = Images(folder, inferencer.transforms, inferencer.loading), Path(out)
    names = [images.name(row) for row in range(len(images))]
    if ranks.size > 1:
        listing = bytes_hash([json.dumps(names).encode()])
        ranks.require_same(dict(inferencer.encoder.fingerprint(), images=listing))
    if ranks.rank > 0:
        done = ranks.share(0)
        if done < len(images):
            parts = _embedded(inferencer, images, done, batch_size, workers, ranks)
            for _ in ranks.in_order(parts):  # rank 0 has them
                pass
        return {}
    with alone_in(out):
        record = new_record(inferencer, images, names, origin)
        record.update({} if restart else earlier_progress(out, record['fingerprint'], replace))
        if record['rows_done'] == 0:
            _begin(out, names, record['width'])
        done = ranks.share(record['rows_done'])
        if done < len(images):
            parts = _embedded(inferencer, images, done, batch_size, workers, ranks)
            _fill(ranks.in_order(parts), names, out, record)
        if (out / PARTIAL).exists():
            os.replace(out / PARTIAL, out / FEATURES)
        return record


def _begin(out: Path, names: list[str], width: int) -> None:
    for name in (RECORD, FEATURES, PARTIAL, ERRORS):
        (out / name).unlink(missing_ok=True)
    write_text(out / PATHS, json.dumps(names, indent=1))
    open_memmap(out / PARTIAL, 'w+', np.float32, (len(names), width))
    if hasattr(os, 'posix_fallocate'):  # a full disk is an error now, not a later crash
        with open(out / PARTIAL, 'r+b') as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(out / PARTIAL))
    (out / ERRORS).touch()


def _embedded(
    inferencer: FeatureInferencer,
    images: Images,
    done: int,
    batch_size: int,
    workers: int,
    ranks: Ranks,
) -> Iterator[_Embedded]:
    """This rank's batches of the rows from ``done`` on."""
    rows = ranks.mine(range(done, len(images)), batch_size)
    if not rows:
        return
    loader = DataLoader(
        Subset(images, rows),
        batch_size,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=start_plain_worker,
    )
    for readable, batch, reasons in loader:
        yield readable, None if batch is None else inferencer.forward(batch), reasons


def _fill(parts: Iterable[_Embedded], names: list[str], out: Path, record: dict) -> None:
    features = open_memmap(out / PARTIAL, 'r+')  # (N, C)
    # Errors noted after the last save go, because their rows are embedded again.
    lines = (out / ERRORS).read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('\n')]
    kept = [line for line in whole if json.loads(line)['row'] < record['rows_done']]
    write_text(out / ERRORS, ''.join(kept))
    saved = time.monotonic()
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn()) as bar, open(out / ERRORS, 'a') as errors:
        task = bar.add_task('embedding', total=len(names), completed=record['rows_done'])
        for rows, found, reasons in parts:
            if found is not None:
                features[rows] = found  # (n, C)
            for row, reason in reasons.items():
                features[row] = np.nan
                errors.write(json.dumps(dict(row=row, path=names[row], reason=reason)) + '\n')
            record['rows_done'] += len(rows) + len(reasons)
            record['unreadable'] += len(reasons)
            bar.update(task, completed=record['rows_done'])
            if time.monotonic() - saved > _SAVE_EVERY or record['rows_done'] == len(names):
                errors.flush()
                features.flush()
                write_text(out / RECORD, json.dumps(record, indent=1))
                saved = time.monotonic()


def _collate(entries: list) -> tuple[list[int], Any, dict[int, str]]:
    """Rows of readable images, their batch or None, and reasons by unreadable row."""
    readable = [(row, sample) for row, sample, reason in entries if not reason]
    batch = default_collate([sample for _, sample in readable]) if readable else None
    reasons = {row: reason for row, _, reason in entries if reason}
    return [row for row, _ in readable], batch, reasons
