"""Make a file to publish out of a training's checkpoint."""

import hashlib
import io
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from simclr_mm.apis.encoder import build_stored
from simclr_mm.apis.model_zoo import get_model
from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.checkpoints import PROBE, model_state
from simclr_mm.commands.export.source import read_with_config
from simclr_mm.files.atomic import atomic_file
from simclr_mm.version import __version__

from .model_card import published_card
from .training_facts import results

# Settings of one run on one machine.
_OF_THE_RUN = ('work_dir', 'load_from', 'resume', 'launcher')
_KEPT = ('dataset_meta', 'epoch', 'iter', 'seed', 'mmengine_version')


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Args:
        name: Of the model.
        trained_as: Name of the config.
        path: The file.
        card: The page beside it.
        model: With the weights of the file.
        cfg: The config in it.
        preprocessing: How a picture becomes its input.
        rows: Results, in the form of a model index.
        left_out: Keys of the training's checkpoint that are gone.
    """

    name: str
    trained_as: str
    path: Path
    card: Path
    model: BaseModel
    cfg: Config
    preprocessing: Preprocessing
    rows: list[dict[str, Any]]
    left_out: list[str]


def publish(
    checkpoint: str, folder: Path, config: str | None = None, name: str | None = None
) -> Published:
    """Write ``{name}_{date}-{SHA-256[:8]}.pth`` and its model card.

    The file holds the weights and, in ``meta``, the config, the preprocessing and how
    long it was trained; no online probe, no optimizer, no log, no folder of the machine
    it was made on.

    Args:
        checkpoint: A path or URL.
        folder: Gets the files.
        config: A config file or a model name. None: the config in the checkpoint.
        name: Of the model. None: the config's.

    Returns:
        What was written; the weights were loaded from it, every key in its place.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit its config.
        ValueError: how to prepare a picture is not known.
    """
    loaded, cfg, trained_as = read_with_config(checkpoint, config)
    name = name or trained_as
    rows = results(Path(checkpoint).name, loaded, cfg)
    cfg = Config({k: v for k, v in cfg.to_dict().items() if k not in _OF_THE_RUN})
    cfg.model.pop('online_probe', None)  # it has served
    preprocessing = Preprocessing.of(build_stored(cfg, checkpoint), checkpoint)
    meta = {k: v for k, v in (loaded.get('meta') or {}).items() if k in _KEPT}
    meta.update(
        cfg=cfg.pretty_text,
        experiment_name=name,
        preprocessing=preprocessing.record(),
        simclr_mm_version=__version__,
    )
    trained = model_state(loaded, checkpoint)
    state = {k: v.clone() for k, v in trained.items() if not k.startswith(PROBE)}
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = folder / f'{name}_{date.today():%Y%m%d}-{digest}.pth'
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        model = get_model(cfg, pretrained=file.name)  # strictly
    card = path.with_suffix('.md')
    card.write_text(published_card(name, path, loaded, cfg, preprocessing, rows))
    left_out = [key for key in loaded if key not in ('meta', 'state_dict')]
    left_out += [key for key in trained if key not in state]
    return Published(name, trained_as, path, card, model, cfg, preprocessing, rows, left_out)
