"""Linear probes on fixed features."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.device import get_device
from sklearn.model_selection import train_test_split

from simclr_mm.class_balance import class_balanced_subset
from simclr_mm.errors import UserError

from .class_metrics import top1
from .features import check_finite, finite_rows
from .logistic_regression import LogisticRegression, one_vs_rest

# (n, C) features, and (n,) labels or (n, K) targets as for one_vs_rest.
Labelled = tuple[np.ndarray, np.ndarray]

# Sec. B.8: "45 logarithmically spaced values between 1e-6 and 1e5". Strongest first,
# because each fit starts from the previous one, and strong penalties are quick.
PENALTIES = tuple(np.logspace(5, -6, 45).tolist())
VALIDATION_SHARE = 0.2  # of the training images


class Sweep(NamedTuple):
    """The result of :func:`swept_linear_probe`."""

    accuracy: float  # the metric on the test images, by default a share in [0, 1]
    penalty: float  # the chosen one
    validation: list[float]  # the metric on the validation images, for each penalty
    predicted: np.ndarray  # (m,) classes of the test images, or (m, K) logits


def linear_probe(train: Labelled, test: Labelled, c: float = 1.0) -> float:
    """Accuracy of multinomial logistic regression on standardised features.

    Source: linear evaluation, arXiv:2002.05709, Sec. 2.3; L-BFGS as in its B.8.

    Args:
        train: (n, C) features and (n,) labels to fit. Rows that are not finite are left
            out; a log line counts them.
        test: (m, C) features and (m,) labels to predict.
        c: Inverse strength of the L2 penalty, > 0.

    Returns:
        Share of the test labels predicted, in [0, 1].

    Raises:
        UserError: A test row is not finite, no training row is, or c <= 0.
    """
    return top1(linear_predict(train, test[0], c), test[1])


def linear_predict(
    train: Labelled, features: np.ndarray, c: float = 1.0, device: str | torch.device | None = None
) -> np.ndarray:
    """The (m,) classes that :func:`linear_probe` predicts for (m, C) features.

    ``device`` fits. None: the device that PyTorch uses here.
    """
    if not c > 0:
        raise UserError(f'linear probe: c = {c}: give a positive number.')
    return _predictions(_finite(train), features, [1 / c], device)[0]


def swept_linear_probe(
    train: Labelled,
    test: Labelled,
    penalties: Sequence[float] = PENALTIES,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
    held_out: np.ndarray | None = None,
    metric: Callable[[np.ndarray, np.ndarray], float] = top1,
    device: str | torch.device | None = None,
) -> Sweep:
    """Linear evaluation with the L2 penalty that is best on held-out training images.

    The objective is the sum of cross entropies plus penalty / 2 times the squared weights, so
    the penalty is 1 / C of scikit-learn's, or 2 / C for two classes. The highest validation score
    wins, in a tie the largest penalty. The test score is that of a fit to all training images. If
    images have several classes, each class gets its own classifier.

    Source: arXiv:2002.05709, Sec. B.8.1, the linear classifier of transfer learning.

    Args:
        train: (n, C) features and (n,) labels, at least two of each class, as for
            :func:`linear_probe`; or (n, K) targets as for
            :func:`~simclr_mm.evaluation.logistic_regression.one_vs_rest`, which need ``held_out``
            and the metric ``voc07_map``.
        test: (m, C) features and (m,) labels to predict, or (m, K) targets.
        penalties: Values to try, in the order of fitting.
        validation_share: Share of the training images, stratified by class. The paper does
            not say how many it held out.
        seed: Seed of the validation split.
        held_out: Rows of the training images to validate on. None: drawn by share and seed.
        metric: One of ``CLASS_METRICS``; higher is better.
        device: Where to fit. None: the device that PyTorch uses here.

    Raises:
        UserError: A class is too small to be split, or see :func:`linear_probe`.

    Differs: features are standardised, which the paper does not mention.
    """
    if held_out is not None:
        is_held_out = np.isin(np.arange(len(train[1])), held_out)
        held_out = np.flatnonzero(_finite((train[0], is_held_out))[1])
    train = _finite(train)
    if held_out is None:
        held_out = _stratified(train[1], validation_share, seed)
    fitted = np.setdiff1d(np.arange(len(train[1])), held_out)
    known = train[0][fitted], train[1][fitted]
    predictions = _predictions(known, train[0][held_out], penalties, device)
    scores = [metric(predicted, train[1][held_out]) for predicted in predictions]
    best = max(zip(scores, penalties))[1]
    predicted = _predictions(train, test[0], [best], device)[0]
    return Sweep(metric(predicted, test[1]), best, scores, predicted)


def require_divisible(labels: np.ndarray, share: float = VALIDATION_SHARE) -> None:
    """Refuse (n,) labels too few for a sweep, which holds a share of each class out.

    Raises:
        UserError: A class has one image, or the share has fewer images than there are classes.
    """
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2 or share * len(labels) < len(counts):
        raise UserError(
            f'a sweep of penalties: {len(labels)} training images of {len(counts)} classes, '
            f'{counts.min()} of the smallest, are too few to hold some of each class out for '
            'validation: take more images, or a fixed penalty (no --sweep)'
        )


def _stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of a share of the examples, stratified by class."""
    require_divisible(labels, share)
    rows = np.arange(len(labels))
    return train_test_split(rows, test_size=share, random_state=seed, stratify=labels)[1]


def few_label_probe(
    train: Labelled, test: Labelled, per_class: int = 5, draws: int = 20, c: float = 1.0
) -> float:
    """Mean accuracy of :func:`linear_probe` on a few labels of each class.

    Draw s of ``draws`` takes ``per_class`` labels of each class with seed s. ``c`` is the inverse
    strength of the L2 penalty. The result is a share in [0, 1].
    """
    if draws < 1:
        raise UserError(f'few-label probe: draws = {draws}: give at least one.')
    features, labels = _finite(train)
    accuracies = []
    for seed in range(draws):
        rows = class_balanced_subset(labels, per_class, seed)
        accuracies.append(linear_probe((features[rows], labels[rows]), test, c))
    return float(np.mean(accuracies))


def _finite(train: Labelled) -> Labelled:
    rows = finite_rows(torch.as_tensor(train[0]), 'training features of a linear probe').numpy()
    return train[0][rows], train[1][rows]


def _predictions(
    train: Labelled,
    features: np.ndarray,
    penalties: Sequence[float],
    device: str | torch.device | None,
) -> list[np.ndarray]:
    """For each penalty (m,) classes, or the logits of one_vs_rest."""
    check_finite(torch.as_tensor(features), 'test features of a linear probe')
    device = device or get_device()
    if train[1].ndim == 2:
        predicted, unconverged = one_vs_rest(train, features, penalties, device)
        fits = len(penalties) * train[1].shape[1]
    else:
        classes, labels = np.unique(train[1], return_inverse=True)
        regression = LogisticRegression(train[0], labels, len(classes), device)
        predicted, unconverged, fits = [], 0, len(penalties)
        for penalty in penalties:
            fit = regression.fit(penalty)
            unconverged += not fit.converged
            predicted.append(classes[fit.logits(features).argmax(axis=1)])
    if unconverged:
        warnings.warn(
            f'linear probe: {unconverged} of {fits} fits were stopped when L-BFGS ran out of '
            'iterations. Small penalties on separable classes do this.',
            stacklevel=2,
        )
    return predicted
