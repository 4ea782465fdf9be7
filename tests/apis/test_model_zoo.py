"""Names become models, with every weight in its place or an error."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.apis.model import ModelHub

import simclr_mm
from simclr_mm.apis import get_model, load_encoder
from simclr_mm.apis.model_zoo import default_encoder, list_models, register, weights_of
from simclr_mm.errors import CheckpointError, UserError

pytestmark = pytest.mark.portable
ROOT = Path(simclr_mm.__file__).parents[1]
PRETRAINING = 'simclr_r18_1xb512-coslr-100e_cifar10'
LINEAR = 'r18_1xb512-linear-coslr-100e_cifar10'
THIN = dict(backbone=dict(base_channels=8, stem_channels=8))


def _thin_linear(**kwargs):
    return get_model(LINEAR, head=dict(in_channels=64), **THIN, **kwargs)


@pytest.fixture
def saved(tmp_path) -> str:
    """A pretraining checkpoint of the thin model, no two weights alike."""
    model = get_model(PRETRAINING, **THIN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    path = tmp_path / 'pretraining.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return str(path)


def test_list_models():
    names = list_models()
    assert names == sorted(names) and 'simclr_resnet50' in names
    assert PRETRAINING in list_models('*cifar10')
    assert list_models('simclr_resnet??') == ['simclr_resnet18', 'simclr_resnet50']
    assert list_models('resnet*') == []  # mmpretrain's
    configs = [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in str(path)]
    assert {path.stem for path in configs} <= set(names)


def test_registering_twice_changes_nothing():
    names = register()
    register.cache_clear()
    try:
        with pytest.raises(ValueError, match='conflict'):
            register()  # what a second registration would do
    finally:
        register.cache_clear()
        for name in names:
            del ModelHub._models_dict[name]
    assert register() == names and register() is register()


def test_name_path_and_config_are_the_same_model():
    path = ROOT / 'configs' / f'{PRETRAINING}.py'
    config = Config.fromfile(path)
    text = config.pretty_text
    keys = [
        list(get_model(model, **THIN).state_dict())
        for model in (PRETRAINING, PRETRAINING.upper(), path, str(path), config)
    ]
    assert all(k == keys[0] for k in keys)
    assert config.pretty_text == text


def test_a_device(monkeypatch):
    moved = []
    monkeypatch.setattr(BaseModel, 'to', lambda self, device: moved.append(device))
    get_model(PRETRAINING, device='cpu', **THIN)
    assert moved == ['cpu']


def test_an_unknown_name_lists_close_ones():
    with pytest.raises(ValueError, match='simclr_resnet5O; close names: simclr_resnet50'):
        get_model('simclr_resnet5O')
    with pytest.raises(ValueError, match='xyz; list_models'):
        get_model('xyz')


def test_no_published_weights():
    with pytest.raises(ValueError, match=f'{LINEAR} has no published.*simclr_resnet50'):
        get_model(LINEAR, pretrained=True)
    with pytest.raises(ValueError, match='the config has no published weights'):
        get_model(Config.fromfile(ROOT / 'configs' / f'{PRETRAINING}.py'), True)


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Puts a model of this name with these weights into an index, beside a package there."""
    (tmp_path / 'configs').mkdir()
    shutil.copy(ROOT / 'configs' / f'{PRETRAINING}.py', tmp_path / 'configs')
    shutil.copytree(ROOT / 'configs' / '_base_', tmp_path / 'configs' / '_base_')
    (tmp_path / 'simclr_mm' / 'weights').mkdir(parents=True)
    (tmp_path / 'README.md').touch()
    before = dict(ModelHub._models_dict)

    def put(weights):
        (tmp_path / 'model-index.yml').write_text(f"""
Models:
  - Name: shipped
    In Collection: SimCLR
    Config: configs/{PRETRAINING}.py
    Weights: {weights}
Collections:
  - Name: SimCLR
    README: README.md
""")
        ModelHub._models_dict.clear()
        register.cache_clear()

    with monkeypatch.context() as patch:
        patch.setattr('simclr_mm.apis.model_zoo.MIM', tmp_path)
        patch.setattr('simclr_mm.apis.model_zoo.PACKAGE', tmp_path / 'simclr_mm')
        patch.setattr('simclr_mm.apis.model_zoo.SHIPPED', 'shipped')
        yield put
    register.cache_clear()
    ModelHub._models_dict.clear()
    register()
    ModelHub._models_dict.update(before)


def test_weights_beside_the_package_are_the_default_encoder(saved, entry, tmp_path):
    name = 'shipped_20261129-00000000.pth'
    entry(f'simclr_mm/weights/{name}')
    with pytest.raises(UserError, match='this copy of simclr_mm brings no encoder: name a check'):
        default_encoder()
    place = tmp_path / 'simclr_mm' / 'weights' / name
    assert weights_of('shipped') == str(place)
    with pytest.raises(CheckpointError, match=f'{place} does not exist'):
        get_model('shipped', True)
    shutil.copy(saved, place)
    with pytest.raises(CheckpointError, match='is damaged: its SHA-256 begins with'):
        load_encoder(default_encoder())
    digest = hashlib.sha256(place.read_bytes()).hexdigest()[:8]
    entry(f'simclr_mm/weights/shipped_20261129-{digest}.pth')
    place.rename(place.with_name(f'shipped_20261129-{digest}.pth'))
    thin = get_model(default_encoder(), True, **THIN).state_dict()
    assert torch.equal(thin['neck.fc1.weight'], torch.load(saved)['state_dict']['neck.fc1.weight'])


def test_a_name_that_is_close_to_a_model(tmp_path):
    with pytest.raises(UserError, match='no file simclr_resnet5O, .* did you mean simclr_resnet50'):
        weights_of('simclr_resnet5O')
    for other in ('https://a/simclr_resnet5O', str(tmp_path / 'a.pth')):
        assert weights_of(other) == other


def test_weights_of_the_entry_and_of_a_path(saved, monkeypatch):
    state = torch.load(saved)['state_dict']
    monkeypatch.setattr(ModelHub._models_dict[PRETRAINING], 'weights', saved)
    for pretrained in (True, saved, Path(saved)):
        model = get_model(PRETRAINING, pretrained, **THIN)
        for key, value in model.state_dict().items():
            assert torch.equal(value, state[key])


def test_weights_that_do_not_fit(saved):
    with pytest.raises(CheckpointError, match='does not fit SimCLR: .*layer1.0.conv1.wei'):
        get_model(PRETRAINING, saved)
    with pytest.raises(CheckpointError, match='does not exist'):
        get_model(PRETRAINING, 'no.pth')


def test_a_pretraining_checkpoint_is_no_classifier(saved):
    with pytest.raises(CheckpointError) as error:
        _thin_linear(pretrained=saved)
    error.match('is of pretraining and lacks head.fc.weight, head.fc.bias: train the')
    assert '\n' not in str(error.value)


def test_classes(tmp_path):
    state = _thin_linear().state_dict()
    for meta in (dict(dataset_meta=dict(classes=('a', 'b'))), dict(CLASSES=('a', 'b'))):
        torch.save(dict(state_dict=state, meta=meta), tmp_path / 'a.pth')
        model = _thin_linear(pretrained=tmp_path / 'a.pth')
        assert model._dataset_meta['classes'] == ('a', 'b')
    torch.save(state, tmp_path / 'a.pth')  # says nothing, and CIFAR-10 may be folders
    assert not _thin_linear(pretrained=tmp_path / 'a.pth')._dataset_meta
    imagenet = get_model('r18_8xb512-linear-coslr-90e_in1k')
    assert imagenet._dataset_meta['classes'][0] == 'tench, Tinca tinca'


def test_mmpretrain_knows_our_models(saved):
    register()
    assert 'simclr_resnet50' in mmpretrain.list_models('simclr')
    model = mmpretrain.get_model(PRETRAINING, pretrained=saved, **THIN)
    ours = get_model(PRETRAINING, pretrained=saved, **THIN)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.extract_feat(images), ours.extract_feat(images))
    # and its own models are found here, loaded strictly
    assert get_model('resnet18_8xb16_cifar10')._metainfo.name == 'resnet18_8xb16_cifar10'


@pytest.mark.slow
def test_a_wheel_in_an_empty_directory(tmp_path):
    source, target, empty = (tmp_path / name for name in ('source', 'target', 'empty'))
    empty.mkdir()
    ignored = shutil.ignore_patterns(
        '.git', '.venv*', 'work_dirs', 'build', '*.egg-info', '__pycache__', 'data'
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'install',
            '--quiet',
            '--no-deps',
            '--no-build-isolation',
            '--target',
            target,
            source,
        ],
        check=True,
    )
    code = (
        'import sys; sys.path.insert(0, sys.argv[1])\n'
        'import simclr_mm; from simclr_mm.apis import get_model, list_models\n'
        'assert simclr_mm.__file__.startswith(sys.argv[1]), simclr_mm.__file__\n'
        f'model = get_model({PRETRAINING!r})\n'
        f'get_model({LINEAR!r})\n'
        'print(len(list_models()))'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, str(target)], cwd=empty, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == str(len(list_models()))
    for args, printed in (
        (['--help'], 'usage: simclr-mm COMMAND'),
        (['configs', 'list', PRETRAINING], PRETRAINING),
    ):
        script = [sys.executable, target / 'bin' / 'simclr-mm', *args]
        environment = {**os.environ, 'PYTHONPATH': str(target)}
        out = subprocess.check_output(script, env=environment, cwd=empty, text=True)
        assert out.startswith(printed)


def test_another_backbone_takes_the_place_of_the_configs():
    vit = dict(type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=16)
    model = get_model('simclr_resnet50', backbone=vit)
    assert type(model.backbone).__name__ == 'VisionTransformer'
    assert model.neck.fc0.in_features == 192
    # A type that is the config's is no replacement.
    kept = get_model(PRETRAINING, backbone=dict(type='ResNet_CIFAR', **THIN['backbone']))
    assert kept.backbone.depth == 18


def test_the_backbone_cannot_be_removed():
    with pytest.raises(ValueError, match='backbone=None: a model needs'):
        get_model(PRETRAINING, backbone=None)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(head=dict(heat=1)), r"model\.head\.heat: NTXentHead has no argument 'heat'"),
        (dict(head=dict(temperature='x')), r"model\.head\.temperature = 'x'"),
        (dict(backbone=5), r'model\.backbone = 5: SimCLR takes a dict'),
        (dict(backbone=dict(depht=18)), r"model\.backbone: .*argument 'depht'"),
        (dict(backbone=dict(type='')), r"model\.backbone\.type: there is no model of type ''"),
    ],
)
def test_a_wrong_change_is_named_in_one_line(changes, words):
    with pytest.raises(UserError, match=words) as error:
        get_model('simclr_r18-w16_1xb64-coslr-30e_digits', **changes)
    assert '\n' not in str(error.value)


def test_removed_parts_and_their_weights(saved):
    for removed in (dict(head=None), dict(neck=None, head=None)):
        model = get_model(PRETRAINING, saved, **removed, **THIN)
        state = torch.load(saved)['state_dict']
        assert model.head is None and set(model.state_dict()) == {
            key for key in state if 'neck' not in removed or key.startswith('backbone.')
        }
        for key, value in model.state_dict().items():
            assert torch.equal(value, state[key])
