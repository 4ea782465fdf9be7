"""A page about a file of weights: Markdown behind YAML that machines read."""

from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config

from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.commands.export.source import Source
from simclr_mm.commands.export.verified import Proof
from simclr_mm.version import __version__

from .training_facts import facts, results, training_data

_PAPER = 'https://arxiv.org/abs/2002.05709'


def export_card(source: Source, target: str, path: Path, code: str, proof: Proof) -> str:
    """The page beside an exported file.

    Args:
        source: The encoder.
        target: What shall load the file.
        path: The file.
        code: What loads it there.
        proof: What the verification found.

    Returns:
        Markdown.
    """
    rows = results(source.file, source.checkpoint, source.cfg)
    origin = f'`{source.file}`' + (f', SHA-256 `{source.sha256}`' if source.sha256 else '')
    lost = '\n'.join(f'- {name}: {count}' for name, count in source.left_out.items())
    body = [
        f'The encoder of {origin}, for {target}.',
        '## Use',
        f'```python\n{code}\n```',
        *_sections(source.preprocessing, source.checkpoint, source.cfg, rows),
        '## Verified',
        f'Loaded by {target} on this machine: {proof}. PyTorch '
        f'{torch.__version__}, simclr_mm {__version__}.',
        '## Left out',
        lost or 'Nothing.',
        _config(source.cfg),
    ]
    return _page(source.name, source.cfg, rows, body, target)


def published_card(
    name: str,
    path: Path,
    checkpoint: dict[str, Any],
    cfg: Config,
    preprocessing: Preprocessing,
    rows: list[dict[str, Any]],
) -> str:
    """The page beside a published checkpoint.

    Args:
        name: The model's name.
        path: The published file.
        checkpoint: What the training's file held.
        cfg: The training's config.
        preprocessing: How a picture becomes its input.
        rows: Results, in the form of a model index.

    Returns:
        Markdown.
    """
    code = f'from simclr_mm.apis.encoder import load_encoder\nmodel = load_encoder({path.name!r})'
    body = [
        f'Weights of `{name}`, backbone and head, with the config inside.',
        '## Use',
        f'```python\n{code}\n```',
        *_sections(preprocessing, checkpoint, cfg, rows),
        _config(cfg),
    ]
    return _page(name, cfg, rows, body)


def _page(
    name: str, cfg: Config, rows: list[dict[str, Any]], body: list[str], library: str | None = None
) -> str:
    head: dict[str, Any] = dict(
        library_name=library or 'simclr_mm',
        pipeline_tag='image-feature-extraction',
        tags=['simclr', 'self-supervised-learning', 'contrastive-learning'],
    )
    if cfg.get('train_dataloader'):
        head['training_data'] = training_data(cfg)
    if rows:
        head['model-index'] = [dict(name=name, results=[_indexed(row) for row in rows])]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f'---\n{front}---\n\n# {name}\n\n' + '\n\n'.join(body) + '\n'


def _indexed(row: dict[str, Any]) -> dict[str, Any]:
    """A result as model cards on the web have it."""
    return dict(
        task=dict(type='image-classification', name=row['Task']),
        dataset=dict(type=row['Dataset'].lower(), name=row['Dataset']),
        metrics=[
            dict(type='accuracy', name=name, value=value) for name, value in row['Metrics'].items()
        ],
        source=dict(name=row['Source']),
    )


def _sections(
    preprocessing: Preprocessing,
    checkpoint: dict[str, Any],
    cfg: Config,
    rows: list[dict[str, Any]],
) -> list[str]:
    trained = facts(checkpoint, cfg)
    measured = [
        f'- {row["Task"]} on {row["Dataset"]}: {name} {value} ({row["Source"]})'
        for row in rows
        for name, value in row['Metrics'].items()
    ]
    return [
        '## Pictures',
        f'{preprocessing.sentence()}.',
        _table({k: str(v) for k, v in preprocessing.record().items()}),
        f'## Training\n\nSimCLR: {_PAPER}.',
        _table(trained) if trained else 'The config does not say.',
        '## Results',
        '\n'.join(measured) or 'None are recorded in the checkpoint.',
    ]


def _table(rows: dict[str, str]) -> str:
    return '\n'.join(
        ['| | |', '|:--|:--|'] + [f'| {label} | {value} |' for label, value in rows.items()]
    )


def _config(cfg: Config) -> str:
    return f'## Config\n\n```python\n{cfg.pretty_text.strip()}\n```'
