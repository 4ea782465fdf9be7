"""How good features are, beside those of an untrained encoder and raw pixels."""
from contextlib import contextmanager
from typing import Dict, Iterator, List, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed
from rich.console import Console
from rich.table import Table

from simclr_mm.engine import Runner
from simclr_mm.evaluation import (Labelled, extract_features, few_label_probe,
                                  knn_predict, linear_probe)

from .model_zoo import get_model

PRETRAINED, UNTRAINED, PIXELS = 'pretrained encoder', 'untrained encoder', 'raw pixels'
Row = Dict[str, object]


def feature_rows(cfg: Config,
                 checkpoint: str,
                 per_class: int = 5,
                 draws: int = 20) -> Tuple[List[Row], Labelled]:
    """Evaluate three sets of features by kNN and linear probes.

    Args:
        cfg: A pretraining config, whose test dataset is a GalleryAndQuery: probes are
            fitted on the gallery and scored on the queries.
        checkpoint: Weights of the config's model, a path or a URL.
        per_class: Labels of each class of the few-label probe.
        draws: Draws of the few-label probe.

    Returns:
        A row for the pretrained encoder, the same encoder before training (seed 0) and
        raw pixels, each with shares in [0, 1] under ``knn``, ``linear`` and
        ``few_labels``; and the pretrained features and labels of the queries.
    """
    pretrained = get_model(cfg, pretrained=checkpoint, device=get_device())
    untrained = get_model(cfg, device=get_device())
    set_random_seed(0)
    with _quiet():
        untrained.init_weights()  # reports every parameter
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    dataset = loader.dataset
    in_gallery = np.arange(len(dataset)) < len(dataset.rows)

    rows, embedded = [], {}
    for name, model, embed in ((PRETRAINED, pretrained, None), (UNTRAINED, untrained,
                                                                None),
                               (PIXELS, pretrained, lambda images: images.flatten(1))):
        features, labels = extract_features(model, loader, embed, description=name)
        gallery = features[in_gallery], labels[in_gallery]
        queries = features[~in_gallery], labels[~in_gallery]
        embedded[name] = queries
        with Console().status(f'{name}: kNN and linear probes'):
            rows.append(
                dict(
                    features=name,
                    knn=_knn(gallery, queries, cfg.test_evaluator),
                    linear=linear_probe(gallery, queries),
                    few_labels=few_label_probe(gallery, queries, per_class, draws)))
    return rows, embedded[PRETRAINED]


def print_rows(rows: List[Row], per_class: int = 5, draws: int = 20) -> None:
    """Print the table of :func:`feature_rows`."""
    table = Table('features', 'kNN', 'linear, all labels',
                  f'linear, {per_class} labels a class (mean of {draws} draws)')
    for row in rows:
        table.add_row(row['features'],
                      *(f'{row[key]:.3f}' for key in ('knn', 'linear', 'few_labels')))
    Console().print(table)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def _knn(gallery: Labelled, queries: Labelled, evaluator: dict) -> float:
    """Accuracy with k and temperature of the config's KNNAccuracy."""
    settings = {key: evaluator[key] for key in ('k', 'temperature') if key in evaluator}
    predicted = knn_predict(
        torch.from_numpy(queries[0]), *map(torch.from_numpy, gallery), **settings)
    return float((predicted.numpy() == queries[1]).mean())
