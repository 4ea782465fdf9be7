"""Models by name: this package's entries in mmpretrain's hub."""

import copy
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmpretrain.apis.model import ModelHub

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.installed import MIM, PACKAGE, config_files

SHIPPED = 'simclr_r18-w16_1xb256-coslr-100e_cifar10'  # its weights lie in the package


@cache
def register() -> tuple[str, ...]:
    """Register this package's models in mmpretrain's hub, once.

    Weights without ``://`` are a file of the package. The hub gets its path, so
    ``pretrained=True`` needs no network, in mmpretrain's ``get_model`` too.

    Returns:
        Their names, sorted. mmpretrain's ``get_model``, ``list_models`` and inferencers
        then know them.
    """
    before = set(ModelHub._models_dict)
    ModelHub.register_model_index(MIM / 'model-index.yml', config_prefix=MIM)
    ours = sorted(set(ModelHub._models_dict) - before)
    for entry in map(ModelHub._models_dict.get, ours):
        if entry.weights and '://' not in entry.weights:
            entry.weights = str(PACKAGE.parent / entry.weights)
    return tuple(ours)


def list_models(pattern: str | None = None) -> list[str]:
    """Names of this package's models, for :func:`simclr_mm.get_model`.

    Args:
        pattern: With wildcards as in ``fnmatch``, such as ``'*cifar10'``. None: all.

    Returns:
        Names, sorted.
    """
    return [name for name in register() if fnmatch(name, pattern or '*')]


def default_encoder() -> str:
    """The name of the model whose weights the package brings, for commands that need any encoder.

    Raises:
        UserError: This copy of the package brings none.
    """
    weights = ModelHub._models_dict[SHIPPED].weights if SHIPPED in register() else None
    if not weights or not Path(weights).is_file():
        raise UserError(
            'this copy of simclr_mm brings no encoder: name a checkpoint, or a model with '
            'published weights'
        )
    return SHIPPED


def weights_of(checkpoint: str | Path) -> str:
    """A path or URL of weights: of a model of this package by its name, else the argument.

    Raises:
        UserError: The model has no published weights.
        MissingFileError: It is neither a file nor a name, but close to one.
    """
    text = str(checkpoint)
    if text.lower() in register():
        return published_weights(text, *find_config(text))
    if '://' not in text and not Path(text).expanduser().exists():
        close = get_close_matches(text, register(), cutoff=0.8)
        if close:
            raise MissingFileError(
                f'there is no file {text}, and no model of this name: did you mean '
                f'{" or ".join(close)}?'
            )
    return text


def config_file(path: str | Path) -> Path:
    """The file of a config: a path, or the name of a config of this package.

    Raises:
        MissingFileError: There is neither.
    """
    if Path(path).is_file():
        return Path(path)
    files, name = config_files(), str(path).removesuffix('.py')
    if name not in files:
        close = ' or '.join(get_close_matches(Path(name).name, files, cutoff=0.8))
        advice = f'this package has {close}' if close else 'simclr-mm configs lists the names'
        where = ', it is a folder' if Path(path).is_dir() else ''
        raise MissingFileError(f'there is no config file {str(path)!r}{where}: {advice}')
    return files[name]


def read_config_file(path: str | Path) -> Config:
    """Read a config file, or a config of this package by its name.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is no config.
    """
    file = config_file(path)
    if file.suffix not in ('.py', '.json', '.yaml', '.yml'):
        raise UserError(f'{path} is no config: give a .py file, or a name of simclr-mm configs')
    try:
        return Config.fromfile(file)
    except Exception as error:  # a config is a program
        reason = f'{type(error).__name__}: {error}'
        raise UserError(f'{path} cannot be read as a config: {reason}') from error


def find_config(model: str | Path | Config) -> tuple[Config, Any | None]:
    """A config that the caller may change, and the hub's entry if a name was given.

    Raises:
        UserError: No model has this name.
    """
    if isinstance(model, Config):
        return copy.deepcopy(model), None
    if not isinstance(model, (str, Path)):
        raise UserError(
            f'a {type(model).__name__} is no model: give a name, or a config or its file'
        )
    if Path(model).suffix == '.py':
        return read_config_file(model), None
    register()
    ModelHub._register_mmpretrain_models()
    name = str(model).lower()
    if not ModelHub.has(name):
        close = get_close_matches(name, register(), n=3, cutoff=0.4)
        advice = f'close names: {", ".join(close)}' if close else 'list_models() has the names'
        raise UserError(f'no model is named {model}; {advice}')
    entry = ModelHub.get(name)
    return entry.config, entry


def published_weights(model: str | Path | Config, config: Config, entry: Any | None) -> str:
    """Path or URL of a model's published weights.

    Raises:
        UserError: It has none.
    """
    weights = entry.weights if entry else config.get('load_from')
    if not weights:
        names = [name for name in register() if ModelHub._models_dict[name].weights]
        raise UserError(
            f'{model if entry else "the config"} has no published weights: give the path of '
            f'a checkpoint (pretrained=PATH), or choose one of {", ".join(names)}'
        )
    return weights
