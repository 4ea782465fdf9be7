"""What is wrong with one or two folders of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.embed.images import Images
from simclr_mm.commands.embed.retrieval import FeatureIndex
from simclr_mm.errors import UserError

from .duplicates import Pair, candidates, same_pictures
from .pictures import Pictures, look_at

KINDS = ('leaks', 'duplicates', 'broken', 'constant', 'tiny')
CONSTANT = 2.0  # levels of 256: an image of less contrast shows nothing, also after compression


@dataclass(frozen=True)
class Audit:
    """Images by row: those of the folder, then those of the test folder."""

    paths: list[str]
    names: list[str]  # paths below the folder
    in_test: np.ndarray  # (N,) bool
    features: np.ndarray  # (N, C); not finite where unreadable
    pictures: Pictures
    constant: list[int]
    tiny: list[int]
    pairs: list[Pair]  # the most alike first

    def pairs_of(self, kind: str) -> list[Pair]:
        """Pairs of a training and a test image ('leaks'), or within one folder."""
        leaks = kind == 'leaks'
        return [p for p in self.pairs if (self.in_test[p.first] != self.in_test[p.second]) == leaks]

    def counts(self) -> dict[str, int]:
        """Images of each kind: test images with a copy in training, copies beyond the first."""
        duplicates = self.pairs_of('duplicates')
        return dict(
            leaks=len({pair.second for pair in self.pairs_of('leaks')}),
            duplicates=len(self.paths) - len(set(groups(len(self.paths), duplicates))),
            broken=len(self.pictures.unreadable),
            constant=len(self.constant),
            tiny=len(self.tiny),
        )

    def sound(self) -> np.ndarray:
        """Rows that show something, the first such row of each group of copies."""
        left_out = {*self.pictures.unreadable, *self.constant, *self.tiny}
        shows = np.array([row for row in range(len(self.paths)) if row not in left_out], np.int64)
        group = np.array(groups(len(self.paths), self.pairs), np.int64)
        return shows[np.sort(np.unique(group[shows], return_index=True)[1])]


def audit(
    inferencer: FeatureInferencer,
    folders: Sequence[str | Path],
    out: Path,
    neighbours: int,
    smallest: int,
    workers: int = 0,
) -> Audit:
    """Embed the folders into ``out``, look at their images, and compare them.

    Args:
        folders: The folder, and the test folder if there is one.
        neighbours: Candidates of each image.
        smallest: Images with a shorter side, in pixels, are tiny.
    """
    indices = []
    for folder, place in zip(folders, ('features', 'features_test')):
        embed_folder(inferencer, folder, out / place, workers=workers, replace=True)
        indices.append(FeatureIndex(out / place))
    names = [name for index in indices for name in index.names]
    paths = [
        str(Path(folder, name)) for folder, index in zip(folders, indices) for name in index.names
    ]
    features = np.concatenate([index.features for index in indices])
    pictures = look_at([Images(folder) for folder in folders])
    readable = pictures.sizes[:, 0] > 0
    broken = np.flatnonzero(readable & ~np.isfinite(features).all(axis=1))
    if len(broken):
        raise UserError(
            f'features of {len(broken)} readable images, such as {names[broken[0]]}, are not '
            'finite (NaN or infinity): take another encoder, or --precision fp32'
        )
    shows = readable & (pictures.contrast >= CONSTANT)
    return Audit(
        paths,
        names,
        np.arange(len(paths)) >= len(indices[0].names),
        features,
        pictures,
        np.flatnonzero(readable & ~shows).tolist(),
        np.flatnonzero(readable & (pictures.sizes.min(axis=1) < smallest)).tolist(),
        _pairs(np.flatnonzero(shows), features, pictures, neighbours),
    )


def _pairs(rows: np.ndarray, features: np.ndarray, pictures: Pictures, k: int) -> list[Pair]:
    """The pairs among some rows that show the same picture."""
    if len(rows) < 2:
        return []
    thumbnails = pictures.thumbnails[rows]
    found = candidates(features[rows], thumbnails, k)
    aspects = pictures.sizes[rows, 0] / pictures.sizes[rows, 1]
    compared = track(
        same_pictures(found.tolist(), thumbnails, aspects),
        'comparing pixels',
        len(found),
        transient=True,
    )
    pairs = [
        pair._replace(first=int(rows[pair.first]), second=int(rows[pair.second]))
        for pair in compared
        if pair is not None
    ]
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def groups(count: int, pairs: Sequence[Pair]) -> list[int]:
    """For each row the first row of its group: rows that pairs connect."""
    ends = np.array([pair[:2] for pair in pairs], np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), tuple(ends)), (count, count))
    _, group = connected_components(links, directed=False)
    return np.unique(group, return_index=True)[1][group].tolist()


def diverse(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """k of (N, C) rows that are far from each other, by cosine, and the distance of each.

    The first is the row nearest to the mean; each next one is the row farthest from
    all before. No other k rows leave the farthest row less than half as far.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance, Theoretical
        Computer Science 38, 1985.

    Returns:
        (k,) rows, and the Euclidean distances (k,) of unit vectors to the nearest row
        before, in [0, 2]; that of the first is 2.
    """
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    chosen, distances = [int((unit @ unit.mean(axis=0)).argmax())], [2.0]
    nearest = np.full(len(unit), np.inf)
    while len(chosen) < min(k, len(unit)):
        squares = (2 - 2 * unit @ unit[chosen[-1]]).clip(0)
        nearest = np.minimum(nearest, np.sqrt(squares))
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        distances.append(float(nearest[chosen[-1]]))
    return np.array(chosen), np.array(distances)
