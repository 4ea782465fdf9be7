"""Make a publishable file from a training checkpoint."""

import hashlib
import io
import re
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config

from simclr_mm.apis.encoder import Encoder
from simclr_mm.apis.loading import Checkpoint, encoder_of_checkpoint, load_encoder
from simclr_mm.checkpoints import PROBE, model_state
from simclr_mm.commands.model_card import model_card, results
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.version import __version__

# Settings of one run on one machine.
_OF_THE_RUN = ('work_dir', 'load_from', 'resume', 'launcher')
_KEPT = ('dataset_meta', 'epoch', 'iter', 'seed', 'mmengine_version', 'teacher_sha256')


class Published(NamedTuple):
    """A published checkpoint."""

    name: str  # of the model
    path: Path  # the file
    card: Path  # the model card beside it
    encoder: Encoder  # read from the file
    rows: list[dict[str, Any]]  # results, in the format of a model index
    left_out: list[str]  # removed keys of the training checkpoint


def publish(opened: Checkpoint, folder: Path, name: str | None = None) -> Published:
    """Write ``{name}_{date}-{SHA-256[:8]}.pth`` and its model card.

    The file holds the weights and, in ``meta``, the config, the preprocessing and the length
    of the training. It holds no online probe, no optimizer, no log and no path of the machine.
    """
    if name is not None and not re.fullmatch(r'\w[\w.+-]*', name):
        raise UserError(
            f'--name {name!r}: a name of a model has letters, digits and _ . + - only, and '
            'begins with a letter or digit'
        )
    loaded, name = opened.content, name or opened.name
    settings = opened.config.to_dict()
    cfg = Config({key: value for key, value in settings.items() if key not in _OF_THE_RUN})
    cfg.model.pop('online_probe', None)  # only for the training
    trained = encoder_of_checkpoint(opened._replace(config=cfg))
    rows = results(trained)
    meta = {k: v for k, v in (loaded.get('meta') or {}).items() if k in _KEPT}
    meta.update(
        cfg=cfg.pretty_text,
        experiment_name=name,
        preprocessing=trained.preprocessing.record(),
        simclr_mm_version=__version__,
    )
    weights = model_state(loaded, opened.source)
    state = {key: value.clone() for key, value in weights.items() if not key.startswith(PROBE)}
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = folder / f'{name}_{date.today():%Y%m%d}-{digest}.pth'
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        encoder = load_encoder(file.name, cfg)  # strictly
    card = path.with_suffix('.md')
    card.write_text(
        model_card(
            trained,
            name,
            f'Weights of `{name}`, backbone and head, with the config inside.',
            f'from simclr_mm.apis import load_encoder\nencoder = load_encoder({path.name!r})',
            rows,
        )
    )
    left_out = [key for key in loaded if key not in ('meta', 'state_dict')]
    left_out += [key for key in weights if key not in state]
    return Published(name, path, card, encoder, rows, left_out)
