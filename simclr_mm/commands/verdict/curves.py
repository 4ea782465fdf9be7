"""Hits of kNN and of a linear classifier, at several numbers of labels."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from rich.progress import track

from simclr_mm.class_balance import draw_of_each_class
from simclr_mm.errors import UserError
from simclr_mm.evaluation import Labelled, knn_predict, linear_predict
from simclr_mm.evaluation.comparison import Cell, Table

KNN, LINEAR = 'kNN', 'linear'


def draws_of(
    labels: np.ndarray, shares: Sequence[float], draws: int, seed: int
) -> dict[int, list[np.ndarray]]:
    """Rows of each draw, by the number of labels. With all labels there is one draw.

    A draw has a share of each class, and at least one image of it. A share that gives no
    other number of labels than a smaller one is left out, with a line in the log.
    """
    if len(np.unique(labels)) < 2:
        raise UserError('the labelled images have one class: a verdict needs two to tell apart.')
    found: dict[int, list[np.ndarray]] = {}
    for share in sorted(shares):
        seeds = range(seed, seed + (draws if share < 1 else 1))
        rows = [
            draw_of_each_class(labels, lambda n: max(1, round(share * n)), each) for each in seeds
        ]
        if len(rows[0]) in found:
            print_log(
                f'{100 * share:g} % of the labels are as many as a smaller share: left out',
                'current',
            )
            continue
        found[len(rows[0])] = rows if len(rows[0]) < len(labels) else rows[:1]
    return found


def all_hits(
    features: Mapping[str, tuple[Labelled, Labelled]],
    draws: Mapping[int, list[np.ndarray]],
    k: int,
    device: str | torch.device | None = None,
) -> dict[str, dict[Cell, Table]]:
    """For each set of features (R, m) hits, 1.0 or 0.0, of the m test images after R draws.

    kNN has k neighbours, or all where a draw has fewer, and the temperature 0.07; the linear
    classifier has the L2 penalty 1.
    """
    found: dict[str, dict[Cell, Table]] = {}
    device = device or get_device()
    work = [(name, n, rows) for name in features for n in draws for rows in draws[n]]
    for name, n, rows in track(work, 'kNN and linear classifiers', transient=True):
        (gallery, labels), (queries, wanted) = features[name]
        train = gallery[rows], labels[rows]
        query, known, classes = map(torch.from_numpy, (queries, *train))
        nearest = knn_predict(query, known, classes, min(k, n), device=device).numpy()
        fitted = linear_predict(train, queries, device=device)
        for protocol, predicted in ((KNN, nearest), (LINEAR, fitted)):
            tables = found.setdefault(name, {})
            hits = (predicted == wanted).astype(np.float64)[None]  # (1, m)
            before = tables.get((protocol, n), hits[:0])
            tables[protocol, n] = np.concatenate([before, hits])
    return found
