"""No scheme of MMEngine's loader is left that reads without protection."""

import os

import fsspec
import mmpretrain  # noqa: F401  (it might register schemes)
import pytest
import torch
from helpers.hostile import Call
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint

from simclr_mm.checkpoints import install_safe_loading, schemes
from simclr_mm.checkpoints.download import cache_path
from simclr_mm.errors import CheckpointError

pytestmark = pytest.mark.portable
URL = 'https://download.invalid/r50_20220101-{}.pth'


@pytest.fixture
def unprotected(monkeypatch):
    """MMEngine's loaders as they come, put back at the end."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))


def test_every_scheme_is_covered(unprotected):
    for _ in range(2):
        install_safe_loading()
    loaders = CheckpointLoader._schemes.values()
    assert len(loaders) >= 11


@pytest.mark.parametrize(
    'scheme',
    [
        *('', 'https://', 'memory://', 'file://'),
        *('torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://'),
    ],
)
def test_schemes_read_and_refuse(unprotected, scheme, tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path))
    install_safe_loading()
    marker = tmp_path / 'it_ran'
    good, evil = tmp_path / 'good.pth', tmp_path / 'evil.pth'
    torch.save(dict(state_dict={'backbone.weight': torch.ones(2, 1)}), good)
    torch.save(dict(state_dict={'backbone.weight': Call(os.system, f'touch {marker}')}), evil)
    urls = {name: f'https://download.invalid/{name}' for name in ('good', 'evil')}
    for getter in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(mmengine_checkpoint, getter, lambda: urls)
    for file in (good, evil):  # in the cache already: the web is another test's matter
        cached = cache_path(urls[file.stem])
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(file.read_bytes())
        fsspec.filesystem('memory').pipe_file(f'/schemes/{file.name}', file.read_bytes())
    path = {
        '': f'{tmp_path}/{{}}.pth',
        'https://': 'https://download.invalid/{}',
        'memory://': 'memory://schemes/{}.pth',
        'file://': f'file://{tmp_path}/{{}}.pth',
    }.get(scheme, scheme + '{}')
    model = torch.nn.ModuleDict(dict(backbone=torch.nn.Linear(1, 2, bias=False)))
    if scheme == 'mmcls://':  # takes the backbone out of a classifier
        model = model.backbone
    load_checkpoint(model, path.format('good'), strict=True)
    assert next(model.parameters()).sum() == 2
    with pytest.raises(CheckpointError, match='refused: it asks for .*system'):
        load_checkpoint(model, path.format('evil'))
    assert not marker.exists()


def test_an_unknown_model_name(unprotected):
    install_safe_loading()
    with pytest.raises(CheckpointError, match='torchvision has no model "resnet5"'):
        CheckpointLoader.load_checkpoint('torchvision://resnet5')


@pytest.mark.parametrize('scheme', ['cluster:s3', 'cluster:petrel', 'pavi'])
def test_what_cannot_be_read_safely_is_refused(unprotected, scheme):
    install_safe_loading()
    with pytest.raises(
        CheckpointError, match=f'^{scheme}://bucket/a.pth: {scheme} is not supported'
    ):
        CheckpointLoader.load_checkpoint(f'{scheme}://bucket/a.pth')


@pytest.mark.parametrize(
    'url, message',
    [
        ('memory://schemes/none.pth', 'none.pth cannot be read .FileNotFoundError'),
        ('nowhere://b/a.pth', 'cannot be read .ValueError: Protocol not known: nowhere'),
        ('wandb://b/a.pth', "cannot be read .*|wandb.*: pip install 'simclr_mm.storage.'"),
        ('memory://schemes/x_20240101-00000000.pth', 'its name says 00000000'),
    ],
)
def test_what_a_storage_cannot_give_is_named(unprotected, tmp_path, monkeypatch, url, message):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path))
    install_safe_loading()
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    memory = fsspec.filesystem('memory')
    memory.pipe_file('/schemes/x_20240101-00000000.pth', (tmp_path / 'a.pth').read_bytes())
    with pytest.raises(CheckpointError, match=message):
        CheckpointLoader.load_checkpoint(url)


def test_s3_is_read_through_fsspec(unprotected, monkeypatch):
    asked = []
    monkeypatch.setattr(schemes, 'download', lambda url: asked.append(url) or '/nowhere')
    install_safe_loading()
    with pytest.raises(CheckpointError, match='does not exist'):
        CheckpointLoader.load_checkpoint('s3://bucket/a.pth')
    assert asked == ['s3://bucket/a.pth']


def test_a_scheme_of_the_user_stays(unprotected):
    CheckpointLoader.register_scheme('mine://', lambda filename, map_location: dict(a=filename))
    install_safe_loading()
    assert CheckpointLoader.load_checkpoint('mine://b') == dict(a='mine://b')
