"""kNN and logistic regression beside scikit-learn's, on the features of a checkpoint.

Of the kNN predictions that differ, those are counted where the votes of two classes or
the similarities of the k-th and the next neighbour tie, to float32's precision.
"""

import time

import numpy as np
import torch
from checkpoint_features import gallery_and_queries_of, parser
from mmengine.device import get_device
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from simclr_mm.commands import command_line
from simclr_mm.evaluation import Labelled, knn_predict
from simclr_mm.evaluation.logistic_regression import LogisticRegression


def knn_agreement(
    train: Labelled, test: Labelled, k: int, temperature: float
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Predict by both; labels are 0 to K - 1.

    Returns:
        How many predictions differ, how many of these are ties, ours, scikit-learn's.
    """
    gallery, queries = (normalize(part[0].astype(np.float64)) for part in (train, test))

    def weights(distance: np.ndarray) -> np.ndarray:
        # |x - y|^2 = 2 - 2 cos for unit vectors.
        return np.exp(-(distance**2) / 2 / temperature)

    reference = KNeighborsClassifier(k, weights=weights, algorithm='brute')
    expected = reference.fit(gallery, train[1]).predict(queries)
    ours = knn_predict(
        torch.from_numpy(test[0]), *map(torch.from_numpy, train), k, temperature
    ).numpy()
    differing = np.flatnonzero(ours != expected)
    ties = 0
    for query in queries[differing]:
        cosines = gallery @ query
        order = np.argsort(-cosines)[: k + 1]
        kth, after = cosines[order[-2:]]
        votes = np.zeros(train[1].max() + 1)
        near = order[:k]
        np.add.at(votes, train[1][near], np.exp((cosines[near] - 1) / temperature))
        second, first = np.sort(votes)[-2:]
        ties += kth - after < 1e-6 or first - second < 1e-5 * first
    return len(differing), ties, ours, expected


def linear_agreement(
    train: Labelled, test: Labelled, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of our fit and of scikit-learn's, for standardised features."""
    scaler = StandardScaler().fit(train[0])
    reference = Reference(C=1 / penalty, max_iter=10_000, tol=1e-4)
    expected = reference.fit(scaler.transform(train[0]), train[1]).predict(
        scaler.transform(test[0])
    )
    regression = LogisticRegression(*train, int(train[1].max()) + 1, get_device())
    return regression.fit(penalty).predict(test[0]), expected


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument('--k', type=int, nargs='+', default=[1, 20, 200])
    flags.add_argument('--temperature', type=float, default=0.07)
    flags.add_argument(
        '--penalty', type=float, nargs='+', default=[1.0], help='1 / C of scikit-learn'
    )
    args = flags.parse_args()
    train, test = gallery_and_queries_of(args)

    def top1(predicted: np.ndarray) -> str:
        return f'{100 * (predicted == test[1]).mean():.2f} %'

    for k in args.k:
        started = time.time()
        differing, ties, ours, expected = knn_agreement(train, test, k, args.temperature)
        print(
            f'kNN, k {k}: {top1(ours)}, scikit-learn {top1(expected)}; {differing} '
            f'of {len(ours)} predictions differ, {ties} of them ties; '
            f'{time.time() - started:.0f} s'
        )
    for penalty in args.penalty:
        started = time.time()
        ours, expected = linear_agreement(train, test, penalty)
        print(
            f'linear, penalty {penalty:g}: {top1(ours)}, scikit-learn '
            f'{top1(expected)}; {(ours != expected).sum()} of {len(ours)} '
            f'predictions differ; {time.time() - started:.0f} s'
        )


if __name__ == '__main__':
    command_line.run(main)
