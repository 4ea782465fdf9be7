"""Find the images of an embedded folder that are nearest to a query.

q queries, N images in the index, C feature width, k images requested.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.errors import MissingFileError, UserError

from .embedding_record import FEATURES, PATHS, RECORD, damaged, read_json, read_record
from .images import Images

_ROWS = 65536  # rows compared at a time: two copies of 512 MB of ResNet-50's features
_QUERIES = 1024  # compared with all others at a time: 400 MB for 100,000 images


@dataclass(frozen=True)
class Hit:
    """An image that was found."""

    row: int  # of the index
    path: str  # the file, or the place in a pack
    name: str  # its path below the embedded folder, or its key in the pack
    similarity: float  # cosine of the two features, in [-1, 1]


class FeatureIndex:
    """A searchable folder embedded by ``simclr-mm embed``. Features stay on disk.

    Raises:
        UserError: It is no such folder, or not complete.
    """

    def __init__(self, directory: str | Path) -> None:
        directory = Path(directory)
        record = read_record(directory)
        if record is None:
            raise UserError(
                f'{directory} holds no {RECORD}: make the index with '
                f'simclr-mm embed CHECKPOINT FOLDER --out {directory}'
            )
        if not (directory / FEATURES).exists():
            raise UserError(
                f'{directory} is not complete, {record["rows_done"]} of '
                f'{record["images"]} images: run the same simclr-mm embed again'
            )
        self.directory, self.record = directory, record
        self.folder = Path(record['folder'])
        self.names: list[str] = read_json(directory / PATHS)
        if not isinstance(self.names, list) or not all(isinstance(n, str) for n in self.names):
            raise damaged(directory / PATHS, 'is no list of names')
        try:
            self.features = np.load(directory / FEATURES, mmap_mode='r')  # (N, C)
        except (EOFError, ValueError) as error:
            raise damaged(directory / FEATURES, f'is damaged ({error})') from error
        if self.features.ndim != 2 or self.features.dtype != np.float32:
            raise damaged(directory / FEATURES, 'is not what simclr-mm embed writes, float32 rows')
        rows, names, images = len(self.features), len(self.names), record['images']
        if not rows == names == images:
            raise damaged(directory, f'holds {rows} rows and {names} names of {images} images')

    @cached_property
    def _images(self) -> Images:
        return Images(self.record['folder'])

    def picture(self, row: int) -> str | np.ndarray:
        """The file of an image, or, from a pack, (H, W, 3) uint8 RGB."""
        if self.record.get('pack'):
            images = self._images
            if len(images) != len(self.names) or images.name(row) != self.names[row]:
                raise damaged(self.directory, f'is of another pack than {self.folder} holds now')
            return images.picture(row)
        return str(self.folder / self.names[row])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k rows with the largest cosine similarity to each of (q, C) queries.

        Returns:
            Similarities (q, k), decreasing, and rows (q, k), in a tie the earlier row first.
        """
        readable = self.record['images'] - self.record['unreadable']
        if not 1 <= k <= readable:
            raise UserError(f'{k} nearest images: {self.directory} holds {readable} readable ones')
        if queries.ndim != 2 or queries.shape[1] != self.features.shape[1]:
            raise UserError(
                f'queries are (q, {self.features.shape[1]}) features, as '
                f'in {self.directory}, got {queries.shape}'
            )
        queries = _unit(queries)
        best = np.empty((len(queries), 0), np.float32)
        rows = np.empty((len(queries), 0), np.int64)
        for start in range(0, len(self.features), _ROWS):
            block = _unit(self.features[start : start + _ROWS])  # (m, C)
            found = np.nan_to_num(queries @ block.T, nan=-np.inf)  # (q, m)
            best = np.concatenate([best, found], 1)  # (q, k + m)
            mine = np.arange(start, start + len(block))
            rows = np.concatenate([rows, np.tile(mine, (len(queries), 1))], 1)
            order = np.argsort(-best, axis=1, kind='stable')[:, :k]  # (q, k)
            best = np.take_along_axis(best, order, 1)
            rows = np.take_along_axis(rows, order, 1)
        return best, rows


def retrieve(
    inferencer: FeatureInferencer, index: FeatureIndex, queries: Sequence[str], k: int
) -> list[list[Hit]]:
    """The k >= 1 images nearest to each query, the nearest first, without the query itself.

    Raises:
        UserError: The index is of another encoder, or k is too large.
        UnreadableImage: A query is no image.
    """
    for query in queries:
        if not Path(query).is_file():
            raise MissingFileError(f'{query}: there is no such file: name images')
    before, now = index.record['fingerprint'], inferencer.encoder.fingerprint()
    changed = [key for key, value in now.items() if before[key] != value]
    if changed:
        raise UserError(
            f'{index.directory} was embedded with other {" and ".join(changed)}, so '
            'its features cannot be compared: take the checkpoint and the config in its '
            'embedding.json, or embed the folder again'
        )
    readable = index.record['images'] - index.record['unreadable']
    features = inferencer(list(queries))  # (q, C)
    searched = min(k + 1, readable)
    while True:
        found = [
            _others(index, query, *hits)
            for query, *hits in zip(queries, *index.search(features, searched))
        ]
        fewest = min(found, key=len)
        if len(fewest) >= k:
            return [others[:k] for others in found]
        if searched == readable:
            raise UserError(
                f'{k} nearest images of {queries[found.index(fewest)]} were asked for, and '
                f'{index.directory} holds {len(fewest)} others: ask for so many or fewer, with -k'
            )
        searched = min(2 * searched, readable)  # links to the query took places


def _others(index: FeatureIndex, query: str, values: np.ndarray, rows: np.ndarray) -> list[Hit]:
    """The images at these rows but for the query itself, also by another name."""
    itself = Path(query).resolve()
    hits = [
        Hit(row, str(index.folder / index.names[row]), index.names[row], float(value))
        for value, row in zip(values, rows.tolist())
    ]
    return [hit for hit in hits if Path(hit.path).resolve() != itself]


def nearest_others(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and rows (N, k) of the k nearest of (N, C) rows of length 1, decreasing.

    The query of a row, such as that row or its mirror image, does not find this row.
    """
    found = []
    for start in range(0, len(queries), _QUERIES):
        similarity = queries[start : start + _QUERIES] @ gallery.T  # (q, N)
        similarity.diagonal(start).fill_(-torch.inf)
        found.append(similarity.topk(k, dim=1))
    cosines, rows = zip(*found)
    return torch.cat(cosines), torch.cat(rows)


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float32. NaN rows stay NaN, and zero rows zero."""
    rows = torch.from_numpy(np.array(features, np.float32))  # a copy, changed in place
    return F.normalize(rows, dim=1, out=rows).numpy()
