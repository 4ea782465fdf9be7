"""What a config and a checkpoint say about how an encoder was trained."""

from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from simclr_mm.files.installed import MIM

_DATA = dict(
    ImageNet='ImageNet-1k',
    CIFAR10='CIFAR-10',
    STL10='STL-10',
    Digits='scikit-learn digits',
    ImageFolder='a folder of images',
)
# Logged names of validation metrics: task and metric as model indexes name them.
_METRICS = {
    'val/knn/top1': ('kNN Classification', 'Top 1 Accuracy'),
    'val/accuracy/top1': ('Image Classification', 'Top 1 Accuracy'),
    'val/accuracy/top5': ('Image Classification', 'Top 5 Accuracy'),
}
MEASURED = 'measured here'


def training_data(cfg: Config, phase: str = 'train') -> str:
    """Name of the data that a phase reads."""
    dataset = cfg[f'{phase}_dataloader'].dataset
    dataset = dataset.get('query', dataset)  # of kNN
    name = dataset.type.split('.')[-1]
    return _DATA.get(name, name)


def batch_size(cfg: Config) -> int:
    """Images a step over all processes, which the learning rate is made for."""
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    return base or cfg.train_dataloader.batch_size


def results(file: str, checkpoint: dict[str, Any], cfg: Config) -> list[dict[str, Any]]:
    """Metrics of a checkpoint, in the form of a model index.

    Args:
        file: Its name, which tells published weights.
        checkpoint: What it holds; the log of its training, if that is still there.
        cfg: Its config.

    Returns:
        Dicts with ``Task``, ``Dataset``, ``Metrics`` and ``Source``, who measured it.
    """
    entries = yaml.safe_load((MIM / 'configs' / 'metafile.yml').read_text())['Models']
    found = [entry for entry in entries if Path(entry.get('Weights', '')).name == file]
    downstream = {name for entry in found for name in entry.get('Downstream', [])}
    found += [entry for entry in entries if entry['Name'] in downstream]
    # Two entries may name the same weights, and so the same results.
    known = {str(row): row for entry in found for row in entry['Results'] or []}
    return [*known.values(), *_logged(checkpoint, cfg)]


def facts(checkpoint: dict[str, Any], cfg: Config) -> dict[str, str]:
    """How an encoder was trained, by label, as far as it is known."""
    if not cfg.get('train_dataloader') or not cfg.get('optim_wrapper'):
        return {}
    head = {k: v for k, v in (cfg.model.get('head') or {}).items() if k != 'type'}
    optimizer = cfg.optim_wrapper.optimizer
    schedule = cfg.get('train_cfg') or {}
    unit = 'epochs' if 'max_epochs' in schedule else 'iterations'
    length = schedule.get('max_epochs') or schedule.get('max_iters')
    meta = _part(checkpoint, 'meta')
    done = meta.get('epoch' if unit == 'epochs' else 'iter')
    layout = _part(checkpoint, 'message_hub', 'runtime_info').get('data_layout')
    rows = {
        'Method': cfg.model.type.split('.')[-1],
        'Backbone': _settings(cfg.model.backbone),
        'Head': f'{(cfg.model.get("head") or {}).get("type", "none")}: {_settings(head)}',
        'Data': training_data(cfg),
        'Transforms': ', '.join(_transforms(cfg.train_dataloader.dataset.pipeline)),
        'Length': f'{done} of {length} {unit}' if done else f'{length} {unit}',
        'Batch size': f'{batch_size(cfg)} images',
        'Steps': layout or '',
        'Optimizer': _settings(optimizer),
    }
    return {label: value for label, value in rows.items() if value}


def _logged(checkpoint: dict[str, Any], cfg: Config) -> list[dict[str, Any]]:
    """The last validation in the log."""
    scalars = _part(checkpoint, 'message_hub', 'log_scalars')
    tasks: dict[str, dict[str, float]] = {}
    for key, (task, metric) in _METRICS.items():
        if isinstance(scalars.get(key), HistoryBuffer) and len(scalars[key].data[0]):
            value = float(scalars[key].data[0][-1])
            tasks.setdefault(task, {})[metric] = round(value, 2)
    return [
        dict(Task=task, Dataset=training_data(cfg, 'val'), Metrics=metrics, Source=MEASURED)
        for task, metrics in tasks.items()
    ]


def _part(checkpoint: Any, *keys: str) -> dict[str, Any]:
    """A dict inside dicts; empty where a file has none there."""
    for key in keys:
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, dict) else None
    return checkpoint if isinstance(checkpoint, dict) else {}


def _settings(settings: dict[str, Any]) -> str:
    return ', '.join(
        f'{key}={value}' for key, value in settings.items() if key not in ('init_cfg', 'loss')
    )


def _transforms(pipeline: list[dict[str, Any]]) -> list[str]:
    """Types of all transforms, those inside others after them."""
    names = []
    for step in pipeline:
        arguments = {
            key: value
            for key, value in step.items()
            if key not in ('type', 'transforms') and not isinstance(value, dict)
        }
        inside = f'({_settings(arguments)})' if arguments else ''
        names += [step['type'].split('.')[-1] + inside]
        nested = step.get('transforms') or []
        if nested and isinstance(nested[0], dict):
            names += _transforms(nested)
    return names
