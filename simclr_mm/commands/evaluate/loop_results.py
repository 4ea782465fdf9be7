"""Convert the metrics of a test loop to results."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel, is_model_wrapper

from simclr_mm.checkpoints import weights_hash
from simclr_mm.commands.command_line import is_classifier
from simclr_mm.commands.command_line.config import metrics_of
from simclr_mm.datasets.nested import innermost
from simclr_mm.evaluation import CHECKPOINT, EvaluationRun, Result, Value, knn_predict
from simclr_mm.registry import type_name

Kind = tuple[str, str, str]  # task, protocol and unit as in a Result

# By the prefix of a metric's name.
_KINDS = dict(
    knn=('classification', 'knn', '%'),
    probe=('classification', 'online-probe', '%'),
    label_free=('representation', 'label-free', ''),
)


def run_of_metrics(
    metrics: dict[str, float],
    cfg: Config,
    config: str,
    checkpoint: str,
    model: BaseModel,
    seconds: float,
) -> EvaluationRun:
    """Results of a test loop. Metrics with more than one number are named and left out."""
    dataset, split = scored_dataset(cfg.test_dataloader.dataset)
    results = []
    for name, value in metrics.items():
        if np.ndim(value) > 0:  # such as a confusion matrix
            print_log(f'{name} has more than one number and is not among the results', 'current')
            continue
        prefix, _, metric = name.rpartition('/')
        (task, protocol, unit), settings = _kind(prefix, cfg)
        if metric == 'support':  # images of a class
            unit = ''
        scored = (task, dataset, split, CHECKPOINT, protocol, metric)
        results.append(Result(*scored, float(value), settings, unit))
    model = model.module if is_model_wrapper(model) else model
    return EvaluationRun(
        config, checkpoint, weights_hash(model.state_dict()), None, seconds, results
    )


def _kind(prefix: str, cfg: Config) -> tuple[Kind, dict[str, Value]]:
    """The kind of the metrics with a prefix, and their settings."""
    if prefix == 'knn':
        return _KINDS[prefix], knn_settings(cfg.test_evaluator, cfg.test_dataloader.dataset)
    if prefix in _KINDS:
        return _KINDS[prefix], {}
    if is_classifier(cfg):  # all of mmpretrain's metrics are in percent
        protocol, settings = classifier_protocol(cfg)
        return ('classification', protocol, '%'), settings
    return (prefix, prefix, ''), {}


def classifier_protocol(cfg: Config) -> tuple[str, dict[str, Value]]:
    """How a config trains a classifier, with ``until`` of a neck and settings of a LabelSubset.

    It is 'distilled', 'linear-published' or 'fine-tuned', depending on whether
    PretrainedBackboneHook freezes the encoder, or 'classifier' without that hook. A LabelSubset
    adds its part of the labels, such as 'fine-tuned-1%'.
    """
    name = 'classifier'
    for hook in cfg.get('custom_hooks') or []:
        if type_name(hook) == 'PretrainedBackboneHook':
            name = 'linear-published' if hook.get('frozen', True) else 'fine-tuned'
    if type_name(cfg.model) == 'Distillation':
        name = 'distilled'
    subset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    until = (cfg.model.get('neck') or {}).get('until')
    settings = {} if until is None else {'until': until}
    if type_name(subset) != 'LabelSubset':
        return name, settings
    for key in ('share', 'per_class', 'list_file', 'seed'):
        if subset.get(key) is not None:
            settings[key] = subset[key]
    if 'share' in settings:
        return f'{name}-{100 * settings["share"]:g}%', settings
    if 'per_class' in settings:
        return f'{name}-{settings["per_class"]}-labels', settings
    return f'{name}-{Path(settings["list_file"]).stem}', settings


def knn_settings(evaluator: dict | Sequence[dict], dataset: dict) -> dict[str, Value]:
    """k and temperature of a loop's KNNAccuracy, or their defaults, and the gallery's size."""
    found = (each for each in metrics_of(evaluator) if type_name(each) == 'KNNAccuracy')
    knn: dict[str, Value] = next(found, {})
    defaults = inspect.signature(knn_predict).parameters
    settings = {key: knn.get(key, defaults[key].default) for key in ('k', 'temperature')}
    if dataset.get('gallery_per_class') is not None:
        settings['gallery_per_class'] = dataset['gallery_per_class']
    return settings


def scored_dataset(dataset: dict) -> tuple[str, str]:
    """Name and split of the images that a val or test dataset scores.

    For class folders these are the last two names of the path, for a GalleryAndQuery those of
    the queries, and for a wrapper such as a LabelSubset those of the inner dataset.
    """
    dataset = innermost(dataset.get('query', dataset))
    if 'split' in dataset or not dataset.get('data_root'):
        return type_name(dataset), dataset.get('split', '')
    folder = Path(dataset['data_root']).absolute()
    return folder.parent.name, folder.name
