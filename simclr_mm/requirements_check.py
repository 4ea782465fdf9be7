"""What must happen before PyTorch and OpenMMLab are imported."""

import contextlib
import io
import os
import sys
import warnings
from importlib import import_module, metadata, util

# The distributions that own each package.
_OWNERS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}


def wait_passively() -> None:
    """Let idle OpenMP threads sleep after a moment, unless the user has set how they wait.

    By default they spin for long and take the cores from other processes, such as loader
    workers. Sleeping at once costs time at each of the many short waits. These variables have
    no effect once PyTorch is loaded.
    """
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT='10000')


def check_system() -> None:
    """Check that this is no Windows.

    Raises:
        ImportError: It is. Its Python has neither ``fcntl``, which locks work dirs and files, nor
            the signals that save a run.
    """
    if sys.platform == 'win32':
        raise ImportError(
            'simclr_mm does not run in Windows itself. Use the Windows Subsystem for Linux: "wsl '
            '--install" in PowerShell, then the commands of simclr_mm in its shell.'
        )


def check_openmmlab() -> None:
    """Check that mmengine, mmcv and mmpretrain are installed, each once.

    Raises:
        ImportError: One is missing, or two distributions that own the same files are
            installed.
    """
    missing = [name for name in _OWNERS if util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'simclr_mm needs {", ".join(missing)}. Install the maintained '
            "distributions with  pip install 'simclr_mm[onedl]'  (from a clone: pip "
            "install -e '.[onedl]'), or the original ones with  "
            "'simclr_mm[openmmlab]'."
        )
    for owners in _OWNERS.values():
        installed = [name for name in owners if _is_installed(name)]
        if len(installed) > 1:
            raise ImportError(
                f'{" and ".join(installed)} are both installed and own the same files, '
                f'so neither is complete. Keep one: pip uninstall '
                f'{" ".join(installed)}, then install simclr_mm[onedl] or '
                'simclr_mm[openmmlab] in a fresh environment.'
            )


def import_quietly() -> None:
    """Import mmpretrain's datasets and models without lines that are meant for others.

    They are the line "Could not import OneDL" of onedl-mmpretrain, which is meant for a DEBUG
    log, the warning of mmcv without compiled operators, which nothing here needs, and what
    OpenMMLab is told to change. Other output stays.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter('ignore', category)
        for room in ('datasets', 'models'):
            import_module(f'mmpretrain.{room}')
    print(printed.getvalue().replace('Could not import OneDL\n', ''), end='')


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
