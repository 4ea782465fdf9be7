"""A model card: Markdown with a YAML header for machines, and the facts that it shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from simclr_mm.apis.encoder import Encoder, pipeline_of
from simclr_mm.engine.resume import VALIDATED
from simclr_mm.files.installed import CONFIGS
from simclr_mm.files.storage import file_name
from simclr_mm.registry import type_name
from simclr_mm.visualization.page import markdown_of

_PAPER = 'https://arxiv.org/abs/2002.05709'
_DATA = dict(
    ImageNet='ImageNet-1k',
    CIFAR10='CIFAR-10',
    STL10='STL-10',
    Digits='scikit-learn digits',
    ImageFolder='a folder of images',
)
# Logged names of validation metrics: task and metric in a model index.
_METRICS = {
    'val/knn/top1': ('kNN Classification', 'Top 1 Accuracy'),
    'val/accuracy/top1': ('Image Classification', 'Top 1 Accuracy'),
    'val/accuracy/top5': ('Image Classification', 'Top 5 Accuracy'),
}
MEASURED = 'measured here'
FRONT = '---\nlibrary_name: '  # the beginning of a card


def model_card(
    encoder: Encoder,
    name: str,
    about: str,
    code: str,
    rows: Sequence[Mapping[str, Any]],
    library: str = 'simclr_mm',
    sections: Mapping[str, str] | None = None,
) -> str:
    """The page beside a file of weights, in Markdown.

    Args:
        about: One sentence about the file.
        code: What loads it, with ``library``.
        rows: Results, in the form of a model index.
        sections: More sections, by their titles, in front of the config.
    """
    trained = facts(encoder)
    measured = [
        f'- {row["Task"]} on {row["Dataset"]}: {metric} {value} ({row["Source"]})'
        for row in rows
        for metric, value in row['Metrics'].items()
    ]
    preprocessing = encoder.preprocessing
    body = [
        about,
        '## Use',
        f'```python\n{code}\n```',
        '## Pictures',
        f'{preprocessing.sentence()}.',
        markdown_of(['', ''], ([k, str(v)] for k, v in preprocessing.record().items())).strip(),
        f'## Training\n\nSimCLR: {_PAPER}.',
        markdown_of(['', ''], trained.items()).strip() if trained else 'The config does not say.',
        '## Results',
        '\n'.join(measured) or 'None are recorded in the checkpoint.',
    ]
    for title, text in (sections or {}).items():
        body += [f'## {title}', text]
    body.append(f'## Config\n\n```python\n{encoder.config.pretty_text.strip()}\n```')
    front = yaml.safe_dump(
        _front(encoder, name, rows, library), sort_keys=False, allow_unicode=True
    )
    return f'---\n{front}---\n\n# {name}\n\n' + '\n\n'.join(body) + '\n'


def _front(
    encoder: Encoder, name: str, rows: Sequence[Mapping[str, Any]], library: str
) -> dict[str, Any]:
    front: dict[str, Any] = dict(
        library_name=library,
        pipeline_tag='image-feature-extraction',
        tags=['simclr', 'self-supervised-learning', 'contrastive-learning'],
    )
    if encoder.config.get('train_dataloader') and not converted_from(encoder):
        front['training_data'] = training_data(encoder.config)
    if rows:
        front['model-index'] = [dict(name=name, results=[_indexed(row) for row in rows])]
    return front


def _indexed(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        task=dict(type='image-classification', name=row['Task']),
        dataset=dict(type=row['Dataset'].lower(), name=row['Dataset']),
        metrics=[
            dict(type='accuracy', name=name, value=value) for name, value in row['Metrics'].items()
        ],
        source=dict(name=row['Source']),
    )


def training_data(cfg: Config, phase: str = 'train') -> str:
    """Name of the data of a phase."""
    dataset = cfg[f'{phase}_dataloader'].dataset
    name = type_name(dataset.get('query', dataset))  # for kNN the queries
    return _DATA.get(name, name)


def batch_size(cfg: Config) -> int:
    """Images of a step over all processes, for which the learning rate is set."""
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    return base or cfg.train_dataloader.batch_size


def results(encoder: Encoder) -> list[dict[str, Any]]:
    """Metrics of an encoder, in the format of a model index.

    They come from the published model whose weights have this file's name, and from the training
    log, if the last validation in it was of these weights.
    """
    file = file_name(encoder.source)
    entries = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())['Models']
    found = [entry for entry in entries if Path(entry.get('Weights', '')).name == file]
    downstream = {name for entry in found for name in entry.get('Downstream', [])}
    found += [entry for entry in entries if entry['Name'] in downstream]
    # Two entries may have the same weights, and so the same results.
    known = {str(row): row for entry in found for row in entry['Results'] or []}
    if _validated(encoder) == _part(encoder.training, 'meta').get('iter', ''):
        return [*known.values(), *_logged(encoder)]
    return [*known.values()]


def facts(encoder: Encoder) -> dict[str, str]:
    """The known facts of an encoder's training, by label."""
    cfg = encoder.config
    origin = converted_from(encoder)
    if origin:  # its config is that of no training
        return {
            'Converted from': f'{origin}; the file does not say how it was trained',
            'Backbone': _settings(cfg.model.backbone),
        }
    if not cfg.get('train_dataloader') or not cfg.get('optim_wrapper'):
        return {}
    head = cfg.model.get('head') or dict(type='none')
    arguments = {key: value for key, value in head.items() if key != 'type'}
    optimizer = cfg.optim_wrapper.optimizer
    schedule = cfg.get('train_cfg') or {}
    unit = 'epochs' if 'max_epochs' in schedule else 'iterations'
    length = schedule.get('max_epochs') or schedule.get('max_iters')
    meta = _part(encoder.training, 'meta')
    done = meta.get('epoch' if unit == 'epochs' else 'iter')
    layout = _part(encoder.training, 'message_hub', 'runtime_info').get('data_layout')
    rows = {
        'Method': type_name(cfg.model),
        'Backbone': _settings(cfg.model.backbone),
        'Head': f'{type_name(head)}: {_settings(arguments)}',
        'Data': training_data(cfg),
        'Transforms': ', '.join(_transforms(pipeline_of(cfg, 'train') or [])),
        'Length': f'{done} of {length} {unit}' if done else f'{length} {unit}',
        'Batch size': f'{batch_size(cfg)} images',
        'Steps': layout or '',
        'Optimizer': _settings(optimizer),
        'Seed': str(meta.get('seed', '')),
        'Last validation in the log': _earlier(encoder, meta.get('iter')),
    }
    return {label: value for label, value in rows.items() if value}


def converted_from(encoder: Encoder) -> str:
    """Library and file that simclr-mm convert made the weights from; '' for others."""
    origin = _part(encoder.training, 'meta', 'converted_from')
    return ', '.join(str(value) for value in origin.values())


def _validated(encoder: Encoder) -> int | None:
    # A checkpoint of an epoch is saved before the validation after that epoch.
    return _part(encoder.training, 'message_hub', 'runtime_info').get(VALIDATED)


def _logged(encoder: Encoder) -> list[dict[str, Any]]:
    scalars = _part(encoder.training, 'message_hub', 'log_scalars')
    tasks: dict[str, dict[str, float]] = {}
    for key, (task, metric) in _METRICS.items():
        if isinstance(scalars.get(key), HistoryBuffer) and len(scalars[key].data[0]):
            value = float(scalars[key].data[0][-1])
            tasks.setdefault(task, {})[metric] = round(value, 2)
    if not tasks:
        return []
    data = training_data(encoder.config, 'val')
    return [
        dict(Task=task, Dataset=data, Metrics=metrics, Source=MEASURED)
        for task, metrics in tasks.items()
    ]


def _earlier(encoder: Encoder, iteration: Any) -> str:
    at, rows = _validated(encoder), _logged(encoder)
    if None in (at, iteration) or at == iteration or not rows:
        return ''
    values = (f'{row["Task"]} {name} {v}' for row in rows for name, v in row['Metrics'].items())
    return f'{", ".join(values)} after {at} of {iteration} iterations'


def _part(content: Any, *keys: str) -> dict[str, Any]:
    """A nested dict. Empty if the file has none there."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _settings(settings: Mapping[str, Any]) -> str:
    texts = []
    for key, value in settings.items():
        if key not in ('init_cfg', 'loss'):
            texts.append(f'{key}={type_name(value) if isinstance(value, type) else value}')
    return ', '.join(texts)


def _transforms(pipeline: list[dict[str, Any]]) -> list[str]:
    names = []
    for step in pipeline:
        arguments = {
            key: value
            for key, value in step.items()
            if key not in ('type', 'transforms') and not isinstance(value, dict)
        }
        inside = f'({_settings(arguments)})' if arguments else ''
        names.append(type_name(step) + inside)
        nested = step.get('transforms') or []
        if nested and isinstance(nested[0], dict):
            names += _transforms(nested)
    return names
