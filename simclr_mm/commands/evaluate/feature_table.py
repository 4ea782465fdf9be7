"""Evaluate features, compared with those of an untrained encoder and raw pixels."""

import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed
from rich.console import Console
from rich.table import Table
from torch import nn

from simclr_mm.apis import build_encoder, load_encoder
from simclr_mm.apis.encoder import Encoder
from simclr_mm.apis.fingerprint import weights_hash
from simclr_mm.commands.command_line import ALONE, Ranks
from simclr_mm.evaluation import (
    PIXELS,
    PRETRAINED,
    UNTRAINED,
    EvaluationRun,
    Labelled,
    Result,
    Value,
    few_label_probe,
    knn_predict,
    linear_probe,
    swept_linear_probe,
)

from .image_features import gallery_and_queries
from .loop_results import knn_settings, scored_dataset

PENALTY = 1.0  # of the weights, 1 / C of scikit-learn


def evaluate_features(
    cfg: Config,
    config: str,
    checkpoint: str,
    per_class: int = 5,
    draws: int = 20,
    sweep: bool = False,
    cache: str | Path | None = None,
    ranks: Ranks = ALONE,
) -> tuple[EvaluationRun, Labelled]:
    """Evaluate three sets of features by kNN and linear probes.

    Args:
        cfg: A pretraining config with a GalleryAndQuery as test dataset. Probes are
            fitted on the gallery and scored on the queries.
        config: Its path, for the record.
        per_class: Labels of each class of the few-label probe, in each of ``draws``.
        sweep: Also choose the penalty of the linear probe on held-out gallery images.
        cache: As for :func:`cached_features`.
        ranks: They share the images. The first does the rest, and the others end here.

    Returns:
        Top-1 accuracies of the pretrained encoder, of the same encoder before training
        (seed 0) and of raw pixels; and the pretrained features and labels of the queries.
    """
    started = time.time()
    pretrained = load_encoder(checkpoint, cfg, get_device())
    untrained = untrained_encoder(cfg)
    settings = cfg.test_dataloader.dataset
    knn = knn_settings(cfg.test_evaluator, settings)
    k = int(knn['k'])
    dataset, split = scored_dataset(settings)
    found_in = {
        PRETRAINED: gallery_and_queries(
            pretrained, cfg.test_dataloader, cache, None, k, ranks, max(per_class, 2 * sweep)
        ),
        UNTRAINED: gallery_and_queries(untrained, cfg.test_dataloader, cache, ranks=ranks),
        # (n, 3, S, S) as (n, 3 S S): an encoder that has learned nothing
        PIXELS: gallery_and_queries(pretrained, cfg.test_dataloader, None, nn.Flatten(), 1, ranks),
    }
    ranks.only_first_goes_on()
    results = []
    for name, (gallery, queries) in found_in.items():
        few: dict[str, Value] = dict(per_class=per_class, draws=draws, penalty=PENALTY)
        with Console().status(f'{name}: kNN and linear probes'):
            few_labels = few_label_probe(gallery, queries, per_class, draws)
            found: list[tuple[str, float, dict[str, Value]]] = [
                ('knn', _knn(gallery, queries, knn), knn),
                ('linear', linear_probe(gallery, queries), dict(penalty=PENALTY)),
                (f'linear-{per_class}-labels', few_labels, few),
            ]
            if sweep and name != PIXELS:
                swept = swept_linear_probe(gallery, queries)
                found.append(('linear-swept', swept.accuracy, dict(penalty=swept.penalty)))
        scored = 'classification', dataset, split, name
        results += [Result(*scored, how, 'top1', 100 * share, kept) for how, share, kept in found]
    weights = weights_hash(pretrained.model.state_dict())
    run = EvaluationRun(config, checkpoint, weights, 0, time.time() - started, results)
    return run, found_in[PRETRAINED][1]


def print_table(run: EvaluationRun) -> None:
    """Print the result of :func:`evaluate_features`, a row for each set of features."""
    titles = {
        'knn': 'kNN',
        'linear': 'linear, all labels',
        'linear-swept': 'linear, all labels, chosen penalty',
    }
    values: dict[str, dict[str, float]] = {}
    for result in run.results:
        values.setdefault(result.features, {})[result.protocol] = result.value / 100
        if result.protocol not in titles:
            titles[result.protocol] = (
                f'linear, {result.settings["per_class"]} labels a class '
                f'(mean of {result.settings["draws"]} draws)'
            )
    protocols = [each for each in titles if each in values[PRETRAINED]]
    table = Table('features', *(titles[each] for each in protocols))
    for features, row in values.items():
        table.add_row(features, *(f'{row[each]:.3f}' if each in row else '-' for each in protocols))
    Console().print(table)


def untrained_encoder(cfg: Config) -> Encoder:
    """The encoder before training, with seed 0."""
    encoder = build_encoder(cfg, device=get_device())
    set_random_seed(0)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')  # or it reports every parameter
    encoder.model.init_weights()
    logger.setLevel(level)
    return encoder


def _knn(gallery: Labelled, queries: Labelled, settings: dict[str, Value]) -> float:
    """Accuracy with k and temperature of the config's KNNAccuracy."""
    query, known, classes = map(torch.from_numpy, (queries[0], *gallery))
    k, temperature = int(settings['k']), float(settings['temperature'])
    predicted = knn_predict(query, known, classes, k, temperature, get_device())
    return float((predicted.numpy() == queries[1]).mean())
