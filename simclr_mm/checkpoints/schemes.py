"""Route every way in which MMEngine reads a checkpoint through :mod:`.safe_load`."""

from pathlib import Path
from typing import Any

from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from simclr_mm.errors import CheckpointError

from .download import download
from .state_dict import load_weights

# MMEngine logs the name of a loader without its first ten letters, `load_from_`.


def load_from_local(filename: str, map_location: Any = None) -> Any:
    return load_weights(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    return load_weights(download(filename), map_location)


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    urls = mmengine_checkpoint.get_torchvision_models()
    return load_from_http(_look_up(urls, filename), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    urls = dict(mmengine_checkpoint.get_external_models())
    renamed = mmengine_checkpoint.get_deprecated_model_names()
    urls.update({old: urls[new] for old, new in renamed.items() if new in urls})
    found = _look_up(urls, filename)
    if '://' in found:
        return load_from_http(found, map_location)
    home = Path(mmengine_checkpoint._get_mmengine_home())
    return load_weights(home / found, map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    urls = mmengine_checkpoint.get_mmcls_models()
    checkpoint = load_from_http(_look_up(urls, filename), map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)


def load_from_elsewhere(filename: str, map_location: Any = None) -> Any:
    raise CheckpointError(
        f'{filename}: {filename.partition("://")[0]} is not supported, only files, http and '
        'https, torchvision, open-mmlab and mmcls: download the file and give its path'
    )


def _look_up(urls: dict[str, str], filename: str) -> str:
    scheme, _, name = filename.partition('://')
    if name not in urls:
        raise CheckpointError(
            f'{filename}: {scheme} has no model "{name}"; give the path or the URL of the file'
        )
    return urls[name]


_LOADERS = {
    '': load_from_local,
    'http://': load_from_http,
    'https://': load_from_http,
    'torchvision://': load_from_torchvision,
    'modelzoo://': load_from_torchvision,
    'open-mmlab://': load_from_openmmlab,
    'openmmlab://': load_from_openmmlab,
    'mmcls://': load_from_mmcls,
}


def install_safe_loading() -> None:
    """Make MMEngine read every checkpoint with the allow-list. It may be called again.

    It covers ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')`` and the
    ``load_checkpoint`` that mmpretrain uses. MMEngine's other schemes, such as ``s3://``, end in an
    error, because their loaders may run code. MMEngine 0.10.7 cannot read its own checkpoints under
    torch >= 2.6, and onedl-mmengine reads refused files again without protection.
    """
    loaders = {
        prefix: load_from_elsewhere
        for prefix, loader in CheckpointLoader._schemes.items()
        if loader.__module__.startswith('mmengine.')  # a user's own loaders stay
    }
    for prefix, loader in {**loaders, **_LOADERS}.items():
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
