"""How good features are, beside those of an untrained encoder and raw pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed
from rich.console import Console
from rich.table import Table

from simclr_mm.apis.fingerprint import weights_hash
from simclr_mm.apis.model_zoo import get_model
from simclr_mm.engine import Runner
from simclr_mm.evaluation import (
    PIXELS,
    PRETRAINED,
    UNTRAINED,
    EvaluationRun,
    Labelled,
    Result,
    extract_features,
    few_label_probe,
    knn_predict,
    linear_probe,
    swept_linear_probe,
)

from .cache import cached_features
from .evaluation_run import knn_settings, scored_dataset
from .labelled import gallery_size

Row = dict[str, object]


def feature_rows(
    cfg: Config,
    checkpoint: str,
    per_class: int = 5,
    draws: int = 20,
    sweep: bool = False,
    cache: str | Path | None = None,
) -> tuple[list[Row], Labelled]:
    """Evaluate three sets of features by kNN and linear probes.

    Args:
        cfg: A pretraining config, whose test dataset is a GalleryAndQuery: probes are
            fitted on the gallery and scored on the queries.
        checkpoint: Weights of the config's model, a path or a URL.
        per_class: Labels of each class of the few-label probe.
        draws: Draws of the few-label probe.
        sweep: Also choose the penalty of the linear probe on held-out gallery images,
            for the two encoders.
        cache: Folder that keeps the encoders' features. None: they are not kept.

    Returns:
        A row for the pretrained encoder, the same encoder before training (seed 0) and
        raw pixels, each with shares in [0, 1] under ``knn``, ``linear`` and
        ``few_labels``, for an encoder also the ``weights_sha256`` and, with ``sweep``,
        ``linear_swept`` and its ``penalty``; and the pretrained features and labels of
        the queries.
    """
    pretrained = get_model(cfg, pretrained=checkpoint, device=get_device())
    untrained = get_model(cfg, device=get_device())
    set_random_seed(0)
    with _quiet():
        untrained.init_weights()  # reports every parameter
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    in_gallery = np.arange(len(loader.dataset)) < gallery_size(loader.dataset)

    rows, queries = [], None
    for name, model in ((PRETRAINED, pretrained), (UNTRAINED, untrained), (PIXELS, None)):
        if model is None:
            features, labels = extract_features(
                pretrained, loader, lambda images: images.flatten(1), description=name
            )
        else:
            features, labels = cached_features(model, loader, cache, description=name)
        gallery = features[in_gallery], labels[in_gallery]
        queried = features[~in_gallery], labels[~in_gallery]
        queries = queries or queried
        with Console().status(f'{name}: kNN and linear probes'):
            row = dict(
                features=name,
                knn=_knn(gallery, queried, _knn_settings(cfg)),
                linear=linear_probe(gallery, queried),
                few_labels=few_label_probe(gallery, queried, per_class, draws),
            )
            if model is not None:
                row['weights_sha256'] = weights_hash(model)
            if model is not None and sweep:
                found = swept_linear_probe(gallery, queried)
                row.update(linear_swept=found.accuracy, penalty=found.penalty)
        rows.append(row)
    return rows, queries


def print_rows(rows: list[Row], per_class: int = 5, draws: int = 20) -> None:
    """Print the table of :func:`feature_rows`."""
    columns = dict(
        knn='kNN',
        linear='linear, all labels',
        few_labels=f'linear, {per_class} labels a class (mean of {draws} draws)',
    )
    if 'linear_swept' in rows[0]:
        columns['linear_swept'] = 'linear, all labels, chosen penalty'
    table = Table('features', *columns.values())
    for row in rows:
        table.add_row(
            row['features'], *(f'{row[key]:.3f}' if key in row else '-' for key in columns)
        )
    Console().print(table)


def as_run(
    rows: list[Row],
    cfg: Config,
    config: str,
    checkpoint: str,
    seconds: float,
    per_class: int = 5,
    draws: int = 20,
) -> EvaluationRun:
    """The rows of :func:`feature_rows` in the form of every evaluation.

    Args:
        rows: The rows.
        cfg: The config as it was evaluated.
        config: Its path.
        checkpoint: As for :func:`feature_rows`.
        seconds: That the evaluation took.
        per_class: As for :func:`feature_rows`.
        draws: As for :func:`feature_rows`.
    """
    dataset, split = scored_dataset(cfg.test_dataloader.dataset)
    results = []
    for row in rows:
        protocols = {
            'knn': ('knn', _knn_settings(cfg)),
            'linear': ('linear', dict(penalty=1.0)),
            'few_labels': (
                f'linear-{per_class}-labels',
                dict(per_class=per_class, draws=draws, penalty=1.0),
            ),
            'linear_swept': ('linear-swept', dict(penalty=row.get('penalty'))),
        }
        for key, (protocol, settings) in protocols.items():
            if key in row:
                results.append(
                    Result(
                        'classification',
                        dataset,
                        split,
                        row['features'],
                        protocol,
                        'top1',
                        100 * row[key],
                        settings,
                    )
                )
    return EvaluationRun(config, checkpoint, rows[0]['weights_sha256'], 0, seconds, results)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def _knn(gallery: Labelled, queries: Labelled, settings: dict[str, float]) -> float:
    """Accuracy with k and temperature of the config's KNNAccuracy."""
    predicted = knn_predict(
        torch.from_numpy(queries[0]),
        *map(torch.from_numpy, gallery),
        settings['k'],
        settings['temperature'],
        get_device(),
    )
    return float((predicted.numpy() == queries[1]).mean())


def _knn_settings(cfg: Config) -> dict[str, float]:
    return knn_settings(cfg.test_evaluator, cfg.test_dataloader.dataset)
