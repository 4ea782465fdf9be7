"""Make the entry of a model index from a checkpoint, and write it into the file."""

import re
import textwrap
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.analysis import FlopAnalyzer
from modelindex.models.ModelIndex import ModelIndex

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands.model_card import batch_size, converted_from, training_data
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import write_text
from simclr_mm.registry import type_name

_COLLECTION = 'SimCLR'


def entry_of(
    name: str,
    encoder: Encoder,
    results: list[dict[str, Any]],
    config: str,
    weights: str | None,
    sha256: str,
) -> dict[str, Any]:
    """The entry of a model, with the URL of its weights and their SHA-256 if the URL is known."""
    cfg, model, size = encoder.config, encoder.model, encoder.preprocessing.size
    trained: dict[str, Any] = {}
    by: dict[str, Any] = {}
    if not converted_from(encoder):
        length = cfg.train_cfg.get('max_epochs')
        trained = dict(Epochs=length) if length else dict(Iterations=cfg.train_cfg.max_iters)
        trained['Batch Size'] = batch_size(cfg)
        by['Training Data'] = training_data(cfg)
        by['Training Techniques'] = type_name(cfg.optim_wrapper.optimizer)
    device = next(model.parameters()).device
    flops = FlopAnalyzer(model, torch.zeros(1, encoder.bands, size, size, device=device))
    flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False)  # heads, additions
    entry: dict[str, Any] = {
        'Name': name,
        'Metadata': {
            **trained,
            'FLOPs': int(flops.total()),
            'Parameters': sum(p.numel() for p in model.parameters()),
            **by,
        },
        'In Collection': _COLLECTION,
        'Results': results or None,
    }
    if weights:
        entry['Metadata']['SHA-256'] = sha256
        entry['Weights'] = weights
    return {**entry, 'Config': config}


def entry_text(entry: dict[str, Any]) -> str:
    text = yaml.dump([entry], Dumper=_Indented, sort_keys=False, allow_unicode=True)
    return textwrap.indent(text, '  ')


def put_entry(path: Path, entry: dict[str, Any]) -> bool:
    """Put an entry into a metafile, and leave every other line unchanged.

    It replaces the entry of its name, whose other keys stay, also in Metadata, or is appended.
    Returns whether there was one.
    """
    text = path.read_text()
    models = (yaml.safe_load(text) or {}).get('Models')
    if not isinstance(models, list):
        raise UserError(f'{path} is no metafile: it has no list of Models')
    old = next((model for model in models if model['Name'] == entry['Name']), None)
    new = text + entry_text(entry)
    if old is not None:
        # A published file has no log and no results, so the old results stay.
        results = entry['Results'] or old.get('Results')
        metadata = {**(old.get('Metadata') or {}), **entry['Metadata']}
        metadata.pop('Iterations' if 'Epochs' in entry['Metadata'] else 'Epochs', None)
        entry = {**old, **entry, 'Metadata': metadata, 'Results': results}
        # Until the next entry, a comment between entries or another section.
        block = rf'^  - Name: *{re.escape(entry["Name"])} *\n(    .*(\n|\Z))*'
        new = re.sub(block, lambda _: entry_text(entry), text, count=1, flags=re.MULTILINE)
    expected = [entry if model is old else model for model in models]
    if yaml.safe_load(new)['Models'] != expected + [entry] * (old is None):
        raise UserError(
            f'{path} cannot be edited: Models must come last, its entries indented by two'
        )
    index = ModelIndex.from_dict(yaml.safe_load(new), str(path), is_root=True)
    problems = [
        f'{found["filepath"]}: {error}'
        for found in index.collect_check_errors()
        for error in found['errors']
        if 'README' not in error
    ]
    if problems:
        raise UserError(f'{path} would not be valid: {problems[0]}')
    write_text(path, new)
    return old is not None


class _Indented(yaml.SafeDumper):
    """Indents lists below their key, as in metafiles."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)
