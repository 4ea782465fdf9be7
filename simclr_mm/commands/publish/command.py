"""Make a publishable file from a checkpoint: weights, config and preprocessing.

Writes OUT_DIR/{config}_{date}-{SHA-256}.pth, a model card beside it, and the entry of a
model index.
"""

import io
import re
from datetime import date
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.apis.loading import Checkpoint, encoder_of_checkpoint, load_encoder, open_checkpoint
from simclr_mm.checkpoints import PROBE, model_state
from simclr_mm.commands import command_line
from simclr_mm.commands.model_card import model_card, results
from simclr_mm.commands.publish.metafile import entry_of, entry_text, put_entry
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.version import __version__

# Settings of one run on one machine.
_OF_THE_RUN = ('work_dir', 'load_from', 'resume', 'launcher')
_KEPT = 'dataset_meta epoch iter seed mmengine_version teacher_sha256 converted_from'.split()


def config_path(config: str, root: Path | None) -> str:
    """The path of a config, given by name or file, in an index."""
    if not config.endswith('.py'):
        config = f'configs/{config}.py'
    if root is None:
        return config
    for path in (Path(config).resolve(), root / config):
        if root in path.parents and path.is_file():
            return str(path.relative_to(root))
    raise UserError(
        f'the index in {root} cannot name {config}: name a config in this folder, with --config'
    )


class Published(NamedTuple):
    """A published checkpoint."""

    name: str  # of the model
    path: Path  # the file
    sha256: str  # of the file
    card: Path  # the model card beside it
    encoder: Encoder  # read from the file
    rows: list[dict[str, Any]]  # results, in the format of a model index
    left_out: list[str]  # removed keys of the training checkpoint
    shortened: list[str]  # keys of the config with a path of this machine


def publish(
    opened: Checkpoint, folder: Path, name: str | None = None, half: bool = False
) -> Published:
    """Write ``{name}_{date}-{SHA-256[:8]}.pth`` and its model card.

    The file holds the weights and, in ``meta``, the config, the preprocessing and the length
    of the training. It holds no online probe, no optimizer and no log. Of an absolute path in
    the config it holds the last name.
    With ``half`` it holds kernels and matrices in float16, for half the size. Biases and BN
    stay in float32, and a model that is built from the file computes in float32.

    Raises:
        UserError: The name is no name of a model, or a weight is too large for float16.
    """
    if name is not None and not re.fullmatch(r'\w[\w.+-]*', name):
        raise UserError(
            f'--name {name!r}: a name of a model has letters, digits and _ . + - only, and '
            'begins with a letter or digit'
        )
    loaded, name = opened.content, name or opened.name
    shortened: list[str] = []
    settings = {k: v for k, v in opened.config.to_dict().items() if k not in _OF_THE_RUN}
    cfg = Config(_without_folders(settings, '', shortened))
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
    if half:
        state = {key: _halved(value, key) for key, value in state.items()}
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), buffer)
    content = buffer.getvalue()
    sha256 = bytes_hash([content])
    path = folder / f'{name}_{date.today():%Y%m%d}-{sha256[:8]}.pth'
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
    return Published(name, path, sha256, card, encoder, rows, left_out, shortened)


def _without_folders(value: Any, key: str, shortened: list[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without_folders(v, f'{key}.{k}', shortened) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(
            _without_folders(each, f'{key}.{i}', shortened) for i, each in enumerate(value)
        )
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute() or value.startswith('~/'):
                shortened.append(key.removeprefix('.'))
                return path.name
    return value


def _halved(weight: Tensor, key: str) -> Tensor:
    if weight.ndim < 2 or not weight.is_floating_point():
        return weight
    if weight.abs().max() > torch.finfo(torch.float16).max:
        raise UserError(f'{key} has weights that are too large for float16: leave --half out')
    return weight.half()


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, 'checkpoint', '--config', '--trust-checkpoint')
    add = parser.add_argument
    add('out_dir', help='folder of the published file')
    add('--name', help="name of the model; default: the config's")
    add('--half', action='store_true', help='kernels and matrices in float16, for half the size')
    add('--weights-url', metavar='URL', help='where OUT_DIR can be downloaded from')
    add('--metafile', metavar='FILE', help='put the entry into this file; default: print it')
    args = parser.parse_args(argv)

    root = None  # the folder that an index's paths start from, which contains configs/
    if args.metafile:
        if not Path(args.metafile).is_file():
            raise MissingFileError(f'--metafile: there is no file {args.metafile}')
        root = Path(args.metafile).resolve().parents[1]
    url = args.weights_url
    if url and not re.match(r'https?://[^/\s]+(/\S*)?$', url):
        raise UserError(f'--weights-url {url}: give an address that begins with https://')
    opened = open_checkpoint(args.checkpoint, args.config)
    config = config_path(args.config or opened.name, root)
    done = publish(opened, Path(args.out_dir), args.name, args.half)
    print(
        f'{done.path} and {done.card.name} are written; left out: '
        f'{", ".join(done.left_out) or "nothing"}'
    )
    if done.shortened:
        print(f'paths of this machine, shortened to their last name: {", ".join(done.shortened)}')
    weights = f'{url.rstrip("/")}/{done.path.name}' if url else None
    entry = entry_of(done.name, done.encoder, done.rows, config, weights, done.sha256)
    if args.metafile is None:
        print(entry_text(entry), end='')
        return
    replaced = put_entry(Path(args.metafile), entry)
    print(f'{args.metafile}: the entry {done.name} is {"replaced" if replaced else "added"}')
