"""Evaluate features, compared with those of an untrained encoder and raw pixels."""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed
from rich.console import Console
from rich.table import Table

from simclr_mm.apis import build_encoder, load_encoder
from simclr_mm.apis.encoder import Encoder
from simclr_mm.checkpoints import weights_hash
from simclr_mm.commands.command_line import ALONE, Ranks, test_data
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
from simclr_mm.registry import type_name

from .image_features import gallery_and_queries, small_pixels
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
        Raw pixels of more than 32 x 32 are averaged to that.
    """
    started = time.time()
    settings = test_data(cfg).dataset
    pretrained = load_encoder(checkpoint, cfg, get_device())
    untrained = untrained_encoder(cfg)
    knn = knn_settings(cfg.test_evaluator, settings)
    k = int(knn['k'])
    dataset, split = scored_dataset(settings)
    found_in = {
        PRETRAINED: gallery_and_queries(
            pretrained, cfg.test_dataloader, cache, None, k, ranks, per_class, sweep
        ),
        UNTRAINED: gallery_and_queries(untrained, cfg.test_dataloader, cache, ranks=ranks),
        PIXELS: gallery_and_queries(pretrained, cfg.test_dataloader, None, small_pixels, 1, ranks),
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


def untrained_encoder(cfg: Config, device: str | torch.device | None = None) -> Encoder:
    """The encoder with random weights of seed 0, also where training starts from a file's."""
    cfg = copy.deepcopy(cfg)
    _forget_files(cfg.model)
    set_random_seed(0)  # for weights that init_weights leaves as they are
    encoder = build_encoder(cfg, device=device or get_device())
    set_random_seed(0)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')  # or it reports every parameter
    backbone = encoder.model.backbone  # a student's init_weights would ask for its teacher
    if hasattr(backbone, 'init_weights'):
        backbone.init_weights()
    logger.setLevel(level)
    return encoder


def _forget_files(model: Any) -> None:
    """Remove what lets parts of a model read a file, also of timm's, so that they are random."""
    if isinstance(model, list):
        for each in model:
            _forget_files(each)
    if not isinstance(model, dict):
        return
    for key, value in list(model.items()):
        kinds = value if isinstance(value, list) else [value]
        reads = key == 'init_cfg' and any(map(_reads_file, kinds))
        if reads or key in ('pretrained', 'checkpoint_path'):
            del model[key]
        else:
            _forget_files(value)


def _reads_file(init_cfg: Any) -> bool:
    return bool(init_cfg) and type_name(init_cfg) in ('Pretrained', 'PretrainedInit')


def _knn(gallery: Labelled, queries: Labelled, settings: dict[str, Value]) -> float:
    """Accuracy with k and temperature of the config's KNNAccuracy."""
    query, known, classes = map(torch.from_numpy, (queries[0], *gallery))
    k, temperature = int(settings['k']), float(settings['temperature'])
    predicted = knn_predict(query, known, classes, k, temperature, get_device())
    return float((predicted.numpy() == queries[1]).mean())
