"""Route every way in which MMEngine reads a checkpoint through :mod:`.safe_load`."""

from pathlib import Path
from typing import Any

from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from simclr_mm.errors import CheckpointError
from simclr_mm.files.storage import is_url

from .download import download
from .state_dict import load_weights

# Functions of MMEngine that give the URLs of a scheme's models by name.
_MODELS = {
    'torchvision': 'get_torchvision_models',
    'modelzoo': 'get_torchvision_models',
    'open-mmlab': 'get_external_models',
    'openmmlab': 'get_external_models',
    'mmcls': 'get_mmcls_models',
}

# MMEngine logs the name of a loader without its first ten letters, `load_from_`.


def load_from_local(filename: str, map_location: Any = None) -> Any:
    return load_weights(filename, map_location)


def load_from_url(filename: str, map_location: Any = None) -> Any:
    return load_weights(download(filename), map_location)


def load_from_model_zoo(filename: str, map_location: Any = None) -> Any:
    scheme, _, name = filename.partition('://')
    urls = getattr(mmengine_checkpoint, _MODELS[scheme])()
    if 'mmlab' in scheme:
        name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    if name not in urls:
        raise CheckpointError(
            f'{filename}: {scheme} has no model "{name}"; give the path or the URL of the file'
        )
    if is_url(urls[name]):
        checkpoint = load_from_url(urls[name], map_location)
    else:
        home = Path(mmengine_checkpoint._get_mmengine_home())
        checkpoint = load_weights(home / urls[name], map_location)
    if scheme == 'mmcls':
        return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)
    return checkpoint


def load_from_elsewhere(filename: str, map_location: Any = None) -> Any:
    raise CheckpointError(
        f'{filename}: {filename.partition("://")[0]} is not supported, only files, http, https, '
        'schemes of fsspec, torchvision, open-mmlab and mmcls: copy the file and give its path'
    )


def install_safe_loading() -> None:
    """Make MMEngine read every checkpoint with the allow-list. It may be called again.

    It covers ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')`` and the
    ``load_checkpoint`` that mmpretrain uses. fsspec serves ``s3://`` and the schemes that MMEngine
    does not know. MMEngine's others, such as ``petrel://``, end in an error, because their loaders
    may run code. MMEngine 0.10.7 cannot read its own checkpoints under torch >= 2.6, and
    onedl-mmengine reads refused files again without protection.
    """
    loaders = {
        prefix: load_from_elsewhere
        for prefix, loader in CheckpointLoader._schemes.items()
        if loader.__module__.startswith('mmengine.')  # a user's own loaders stay
    }
    # Patterns, tried from z to a: the last but one takes what is left for fsspec.
    loaders |= {'': load_from_local, r'\w+://': load_from_url}
    loaders |= {f'{scheme}://': load_from_url for scheme in ('http', 'https', 's3')}
    loaders |= {f'{scheme}://': load_from_model_zoo for scheme in _MODELS}
    for prefix, loader in loaders.items():
        CheckpointLoader.register_scheme(prefix, loader, force=True)


def read_checkpoint(source: str) -> Any:
    """Read a checkpoint onto the CPU from a path or URL, with the allow-list.

    Returns:
        What was saved, usually a dict with ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: It cannot be fetched or read, asks for something that could run
            code, or holds weights that are not finite.
    """
    install_safe_loading()
    return CheckpointLoader.load_checkpoint(source, 'cpu', logger='silent')
