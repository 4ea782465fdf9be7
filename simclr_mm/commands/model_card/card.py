"""A model card: Markdown with a YAML header for machines."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from simclr_mm.apis.encoder import Encoder

from .facts import facts, training_data

_PAPER = 'https://arxiv.org/abs/2002.05709'


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
        encoder: The encoder in the file.
        name: Name of the model, the title.
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
        _table({key: str(value) for key, value in preprocessing.record().items()}),
        f'## Training\n\nSimCLR: {_PAPER}.',
        _table(trained) if trained else 'The config does not say.',
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
    if encoder.config.get('train_dataloader'):
        front['training_data'] = training_data(encoder.config)
    if rows:
        front['model-index'] = [dict(name=name, results=[_indexed(row) for row in rows])]
    return front


def _indexed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A result in the format of model cards on the web."""
    return dict(
        task=dict(type='image-classification', name=row['Task']),
        dataset=dict(type=row['Dataset'].lower(), name=row['Dataset']),
        metrics=[
            dict(type='accuracy', name=name, value=value) for name, value in row['Metrics'].items()
        ],
        source=dict(name=row['Source']),
    )


def _table(rows: Mapping[str, str]) -> str:
    return '\n'.join(
        ['| | |', '|:--|:--|'] + [f'| {label} | {value} |' for label, value in rows.items()]
    )
