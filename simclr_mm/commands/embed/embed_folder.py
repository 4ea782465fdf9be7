"""Features of a folder in a file, written in batches and resumed where it stopped.

n images in a batch, N images in the folder, C feature width.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from mmengine.dataset import default_collate
from numpy.lib.format import open_memmap
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset, Subset

from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.datasets import ImageFolder
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage

from .embedding_record import ERRORS, FEATURES, PARTIAL, PATHS, RECORD, earlier_progress, new_record

_SAVE_EVERY = 5.0  # seconds of work that a kill may cost


def embed_folder(
    inferencer: FeatureInferencer,
    folder: str | Path,
    out: str | Path,
    batch_size: int = 64,
    workers: int = 0,
    restart: bool = False,
    origin: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Embed every image below a folder, at any depth, into ``out/features.npy``.

    Writes ``features.npy``, (N, C) float32; ``paths.json``, N paths relative to the
    folder, row by row; ``errors.jsonl``, row, path and reason of each unreadable image,
    whose row of features is NaN; and ``embedding.json``, what was embedded how. Images
    and features pass through memory batch by batch. Called again after it was stopped,
    it goes on; called again after it ended, it does nothing.

    Args:
        inferencer: The encoder, its device and its precision.
        folder: Any folder of images.
        out: Folder of the results.
        batch_size: Images at a time.
        workers: Processes that read images; 0: this one.
        restart: Begin anew, whatever is in ``out``.
        origin: Where the weights come from, noted in ``embedding.json``.

    Returns:
        ``embedding.json``.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a number is too small, the folder holds no image, ``out`` holds
            features of something else and ``restart`` is False, or another process is
            writing there.
    """
    folder, out = Path(folder), Path(out)
    if batch_size < 1 or workers < 0:
        raise UserError(f'batch_size is {batch_size} and workers {workers}: give at least 1 and 0')
    if not folder.is_dir():
        raise MissingFileError(
            f'there is no folder {folder.absolute()}: give the folder of the images to embed'
        )
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / '.lock', timeout=0):
            dataset = _Readable(folder, inferencer)
            paths = [dataset.path(row) for row in range(len(dataset))]
            record = new_record(inferencer, folder, paths, origin)
            record.update({} if restart else earlier_progress(out, record['fingerprint']))
            _begin(out, paths, record)
            _embed(inferencer, dataset, out, record, batch_size, workers)
            return record
    except Timeout as error:
        raise UserError(
            f'another process is writing into {out}: wait for it, or give another --out'
        ) from error


class _Readable(Dataset):
    """(row, sample, '') of an image, or (row, None, reason) of an unreadable one."""

    def __init__(self, folder: Path, inferencer: FeatureInferencer) -> None:
        pipeline = [LoadImageFromFile(), inferencer.transforms]
        self.folder = folder
        self.images = ImageFolder(str(folder), pipeline=pipeline, test_mode=True)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple:
        try:
            return row, self.images[row], ''
        except UnreadableImage as error:
            return row, None, str(error)

    def path(self, row: int) -> str:
        """Path relative to the folder, with forward slashes."""
        path = self.images.get_data_info(row)['img_path']
        return Path(os.path.relpath(path, self.folder)).as_posix()


def _collate(entries: list) -> tuple:
    """Rows of readable images, their batch or None, and reasons by unreadable row."""
    readable = [(row, sample) for row, sample, reason in entries if not reason]
    batch = default_collate([sample for _, sample in readable]) if readable else None
    reasons = {row: reason for row, _, reason in entries if reason}
    return [row for row, _ in readable], batch, reasons


def _begin(out: Path, paths: list[str], record: dict[str, Any]) -> None:
    """Files of an embedding that has no row yet; those of a begun one stay."""
    if record['rows_done'] > 0:
        return
    for name in (RECORD, FEATURES, PARTIAL, ERRORS):
        (out / name).unlink(missing_ok=True)
    _write_json(out / PATHS, paths)
    open_memmap(out / PARTIAL, 'w+', np.float32, (len(paths), record['width']))
    if hasattr(os, 'posix_fallocate'):  # a full disk is an error now, not a crash later
        with open(out / PARTIAL, 'r+b') as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(out / PARTIAL))
    (out / ERRORS).touch()


def _embed(
    inferencer: FeatureInferencer,
    dataset: _Readable,
    out: Path,
    record: dict[str, Any],
    batch_size: int,
    workers: int,
) -> None:
    """Fill the rows that are missing, and give the file its name."""
    if record['rows_done'] < len(dataset):
        _fill(inferencer, dataset, out, record, batch_size, workers)
    if (out / PARTIAL).exists():
        os.replace(out / PARTIAL, out / FEATURES)


def _fill(
    inferencer: FeatureInferencer,
    dataset: _Readable,
    out: Path,
    record: dict[str, Any],
    batch_size: int,
    workers: int,
) -> None:
    features = open_memmap(out / PARTIAL, 'r+')  # (N, C)
    _forget_errors_from(record['rows_done'], out / ERRORS)
    saved = time.monotonic()
    rest = Subset(dataset, range(record['rows_done'], len(dataset)))
    loader = DataLoader(rest, batch_size, num_workers=workers, collate_fn=_collate, shuffle=False)
    with open(out / ERRORS, 'a') as errors:
        for rows, batch, reasons in _with_progress(loader, record):
            if batch is not None:
                features[rows] = inferencer.forward(batch)  # (n, C)
            for row, reason in reasons.items():
                features[row] = np.nan
                entry = dict(row=row, path=dataset.path(row), reason=reason)
                errors.write(json.dumps(entry) + '\n')
            record['rows_done'] += len(rows) + len(reasons)
            record['unreadable'] += len(reasons)
            if time.monotonic() - saved > _SAVE_EVERY or record['rows_done'] == len(dataset):
                errors.flush()
                features.flush()
                _write_json(out / RECORD, record)
                saved = time.monotonic()


def _with_progress(loader: DataLoader, record: dict[str, Any]) -> Iterator[tuple]:
    """The batches, with a bar that begins where an earlier call stopped."""
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task('embedding', total=record['images'], completed=record['rows_done'])
        for batch in loader:
            yield batch
            bar.update(task, completed=record['rows_done'])


def _forget_errors_from(row: int, path: Path) -> None:
    """Drop what was noted after the last save: those rows are done again."""
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith('\n') and _row(line) < row]
    with atomic_file(path) as file:
        file.write(''.join(kept).encode())


def _row(line: str) -> int:
    return json.loads(line)['row']


def _write_json(path: Path, content: Any) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1).encode())
