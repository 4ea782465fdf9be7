"""Where the tests find data that the repository does not carry.

``SIMCLR_MM_DATA`` names a folder with ``imagenet-sample/`` and ``cifar10/`` (class
folders of JPEGs) or with the archives they come in; by default ``../shared/data``
beside the checkout. Tests that need what is absent skip and say so.
"""

import os
import tarfile
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

# All ranks are on this machine; where no DNS answers, gloo would wait for it.
os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')

# Two threads in each of two test processes on two cores are far slower than one.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')

DATA = Path(os.environ.get('SIMCLR_MM_DATA', Path(__file__).parents[2] / 'shared' / 'data'))


@pytest.fixture(autouse=True, scope='session')
def no_full_collections():
    """MMEngine collects garbage for each dataset it builds: 0.3 s and more, here.

    So do others; what Python collects by itself stays.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('gc.collect', lambda *args: 0)
        yield


@pytest.fixture(autouse=True, scope='session')
def no_pretty_configs():
    """MMEngine formats the config for each checkpoint and log: 0.1 s, here, and more.

    Under either of the names by which its releases find YAPF. Other processes format.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
            patch.setattr(f'{module}.FormatCode', lambda text, **style: (text, True), raising=False)
        yield


@pytest.fixture(autouse=True)
def no_default_scope():
    """A runner leaves its scope to the whole process, and so to the tests behind it."""
    DefaultScope._instance_dict.clear()


def pytest_collection_modifyitems(items: list) -> None:
    """Files with slow tests first: no core is left alone with one at the end."""
    slow = {item.path for item in items if 'slow' in item.keywords}
    items.sort(key=lambda item: item.path not in slow)


def _dataset(name: str, archive: str, tmp_path_factory, part: str = '') -> Path:
    if (DATA / name).is_dir():
        return DATA / name
    if not (DATA / archive).is_file():
        pytest.skip(f'{name} is not in {DATA}: set SIMCLR_MM_DATA')
    unpacked = tmp_path_factory.mktemp('data')
    with tarfile.open(DATA / archive) as tar:
        members = (member for member in tar if member.name.startswith(f'{name}/{part}'))
        tar.extractall(unpacked, members, filter='data')
    return unpacked / name


@pytest.fixture(scope='session')
def imagenet_sample(tmp_path_factory) -> Path:
    """256 photographs in ``train/<wnid>/*.JPEG``."""
    return _dataset('imagenet-sample', 'imagenet-sample.tar', tmp_path_factory)


@pytest.fixture(scope='session')
def cifar10(tmp_path_factory) -> Path:
    """CIFAR-10's test images as JPEGs in ``test/<class>/*.jpg``."""
    return _dataset('cifar10', 'cifar10-jpeg.tar.xz', tmp_path_factory, 'test/')
