"""Exports: the encoder elsewhere, bit by bit, and what may keep it from leaving."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from helpers.models import shaken
from helpers.tools import tool
from mmengine.config import Config
from PIL import Image

from simclr_mm import get_model
from simclr_mm.apis import loading
from simclr_mm.checkpoints import load_file
from simclr_mm.checkpoints.foreign.renaming import to_our_keys
from simclr_mm.commands.export.backbone import features_of, read_backbone
from simclr_mm.commands.export.torchvision_timm import Torchvision
from simclr_mm.commands.export.verified import TARGETS, export
from simclr_mm.errors import CheckpointError
from simclr_mm.files.installed import optional_package

ROOT = Path(__file__).parents[3]
IN1K = ROOT / 'configs' / 'simclr_r18_1xb256-adam-100e_in1k-128px.py'
THIN = dict(stem_channels=8, base_channels=8)
BACKBONES = dict(
    resnet18=dict(type='ResNet', depth=18),
    thin=dict(type='ResNet', depth=18, **THIN),
    cifar=dict(type='ResNet_CIFAR', depth=50, base_channels=8),
    wide=dict(type='ResNet', depth=50, base_channels=16, expansion=2),
    deep_stem=dict(type='ResNetV1d', depth=50, stem_channels=16, base_channels=8),
    grouped=dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, base_channels=16),
    caffe=dict(type='ResNet', depth=50, style='caffe', **THIN),
    convnext=dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
)
PACKAGES = dict(
    timm=['timm'],
    onnx=['onnx', 'onnxruntime', 'onnxscript'],
    safetensors=['safetensors'],
    hf=['timm', 'safetensors'],
)


def save(folder, name):
    """A training checkpoint of SimCLR around a backbone."""
    torch.manual_seed(0)
    cfg = Config.fromfile(IN1K)
    cfg.model.backbone = BACKBONES[name]
    cfg.test_dataloader.dataset.pipeline[1].scale = 72
    cfg.test_dataloader.dataset.pipeline[2].crop_size = 64
    path = folder / f'{name}.pth'
    torch.save(
        dict(
            state_dict=shaken(get_model(cfg)).state_dict(),
            optimizer=dict(state={}),
            meta=dict(cfg=cfg.pretty_text, epoch=3, experiment_name='mine_20260101_010101'),
        ),
        path,
    )
    return str(path)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Paths of checkpoints by the name of their backbone."""
    folder = tmp_path_factory.mktemp('checkpoints')
    return {name: save(folder, name) for name in BACKBONES}


@pytest.fixture(scope='module')
def sources(checkpoints):
    return {name: read_backbone(path)[0] for name, path in checkpoints.items()}


def exported(source, target, folder):
    for package in PACKAGES.get(target, []):
        pytest.importorskip(package)
    if target == 'onnx' and torch.__version__ < (2, 7):
        pytest.skip('the ONNX export needs PyTorch 2.7')
    path = folder / f'x{TARGETS[target].suffix}'
    code, proof = export(source, target, path)
    assert proof.difference <= proof.tolerance
    return path, code


@pytest.fixture(scope='module')
def onnx_file(sources, tmp_path_factory):
    return exported(sources['thin'], 'onnx', tmp_path_factory.mktemp('onnx'))[0]


def backbone_in(checkpoint):
    state = load_file(checkpoint)['state_dict']
    return {
        key.removeprefix('backbone.'): value
        for key, value in state.items()
        if key.startswith('backbone.')
    }


def from_onnx(path):
    from onnx import load, numpy_helper

    return {
        entry.name.removeprefix('encoder.backbone.'): torch.from_numpy(
            numpy_helper.to_array(entry).copy()
        )
        for entry in load(path).graph.initializer
        if entry.name.startswith('encoder.backbone.')
    }


def weights_in(path, target):
    """What an exported file holds, under our names."""
    if target == 'safetensors':
        from safetensors.torch import load_file as load

        return load(path)
    if target in ('mmdet', 'mmseg'):
        return torch.load(path, weights_only=True)['state_dict']
    # The maps into our layout, written without those out of it.
    back = to_our_keys(torch.load(path, weights_only=True), str(path))
    assert set(back.left) <= {'meta'}
    return {key.removeprefix('backbone.'): value for key, value in back.state.items()}


@pytest.mark.parametrize(
    'name,target',
    [
        ('resnet18', 'torchvision'),
        ('thin', 'torchvision'),
        ('cifar', 'torchvision'),
        ('wide', 'torchvision'),
        ('grouped', 'torchvision'),
        ('cifar', 'timm'),
        ('deep_stem', 'timm'),
        ('grouped', 'timm'),
        ('thin', 'mmpretrain'),
        ('convnext', 'mmpretrain'),
        ('thin', 'mmdet'),
        ('deep_stem', 'mmseg'),
        ('thin', 'safetensors'),
        ('convnext', 'safetensors'),
    ],
)
def test_round_trip_is_bit_identical(name, target, checkpoints, sources, tmp_path):
    path, _ = exported(sources[name], target, tmp_path)
    assert_same(weights_in(path, target), backbone_in(checkpoints[name]))


def test_onnx_keeps_every_weight(checkpoints, onnx_file):
    """But for counters of batches, which no feature depends on."""
    expected = backbone_in(checkpoints['thin'])
    assert_same(
        from_onnx(onnx_file),
        {k: v for k, v in expected.items() if not k.endswith('num_batches_tracked')},
    )


def test_onnx_keeps_the_weights_of_matrices(checkpoints, sources, tmp_path):
    """Which the optimizer of graphs would store transposed."""
    path, _ = exported(sources['convnext'], 'onnx', tmp_path)
    assert_same(from_onnx(path), backbone_in(checkpoints['convnext']))


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert found[key].numpy().tobytes() == value.numpy().tobytes()


@pytest.mark.portable
def test_torchvision_by_hand(sources, tmp_path):
    """The stock constructor, the mean of ImageNet and a crop written out."""
    path, code = exported(sources['resnet18'], 'torchvision', tmp_path)
    assert 'torchvision.models.resnet18()' in code and '_make_layer' not in code
    file = torch.load(path, weights_only=True)
    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    model.load_state_dict(file['state_dict'])
    picture = np.random.default_rng(1).integers(0, 256, (100, 80, 3), np.uint8)
    resized = np.asarray(Image.fromarray(picture).resize((72, 90), Image.BILINEAR))
    pixels = torch.from_numpy(resized[13:77, 4:68] / 255).float()
    how = file['meta']['preprocessing']
    assert (how['color_order'], how['value_range'], how['size']) == ('RGB', [0, 1], 64)
    assert how['mean'] == [0.485, 0.456, 0.406] and how['std'] == [0.229, 0.224, 0.225]
    pixels = (pixels - torch.tensor(how['mean'])) / torch.tensor(how['std'])
    with torch.no_grad():
        expected = model.eval()(pixels.permute(2, 0, 1)[None])
    found = features_of(sources['resnet18'], [picture])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    names = {}
    exec(code.rpartition('\n')[0], names)
    with torch.no_grad():
        found = names['model'](names['preprocess'](Image.fromarray(picture))[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_onnx_takes_any_number_of_images(sources, onnx_file):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata['preprocessing'])['size'] == 64
    model = sources['thin'].model
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    for n in (1, 5):
        (found,) = session.run(None, {'images': images[:n].numpy()})
        batch = model.data_preprocessor(dict(inputs=images[:n].flip(1)))
        with torch.no_grad():
            expected = sources['thin'].features(batch['inputs'])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    'name,target,message',
    [
        ('deep_stem', 'torchvision', 'export it to timm'),
        ('caffe', 'torchvision', 'style=caffe'),
        ('caffe', 'timm', 'style=caffe'),
        ('convnext', 'timm', 'does not support this backbone .ConvNeXt.'),
        ('cifar', 'hf', 'no config.json can describe it; export it to timm'),
        ('thin', 'hf', 'no config.json can describe it'),
    ],
)
def test_a_target_that_cannot_hold_the_backbone(name, target, message, sources, tmp_path):
    for package in PACKAGES.get(target, []):
        pytest.importorskip(package)
    with pytest.raises(CheckpointError, match=message):
        export(sources[name], target, tmp_path / 'x.pth')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'fault,message',
    [
        (lambda state: state['layer1.0.conv1.weight'].mul_(1.01), 'features differ|weights'),
        (lambda state: state['bn1.running_mean'].add_(1), 'weights differ, bn1.running_mean'),
        (lambda state: state.pop('bn1.weight'), 'Missing key'),
    ],
)
def test_a_failed_verification_leaves_what_was_there(
    fault, message, sources, tmp_path, monkeypatch
):

    class Faulty(Torchvision):
        def tensors(self, encoder):
            state = super().tensors(encoder)
            fault(state)
            return state

    monkeypatch.setitem(TARGETS, 'torchvision', Faulty())
    path = tmp_path / 'x.pth'
    with pytest.raises(CheckpointError, match=message):
        export(sources['thin'], 'torchvision', path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_preprocessing_is_noticed(sources, tmp_path, monkeypatch):
    """Same weights, other pixels: only the features tell."""

    class Wrong(Torchvision):
        def setup(self, encoder, path):
            return super().setup(encoder, path).replace('0.485', '0.475')

    monkeypatch.setitem(TARGETS, 'torchvision', Wrong())
    with pytest.raises(CheckpointError, match='features differ by'):
        export(sources['thin'], 'torchvision', tmp_path / 'x.pth')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.portable
def test_tool_writes_file_and_card(checkpoints, tmp_path, capsys):
    out = tmp_path / 'encoder.pth'
    tool('export.py', checkpoints['thin'], '--to', 'mmdet', out)
    printed = capsys.readouterr().out
    assert 'tolerance 1e-05' in printed and '120 tensors are bit-identical' in printed
    state = load_file(checkpoints['thin'])['state_dict']
    neck = [value for key, value in state.items() if key.startswith('neck.')]
    assert (
        f'neck ({len(neck)} tensors, {sum(v.numel() for v in neck):,} numbers); optimizer'
    ) in printed
    names = {}
    exec(printed.split('use:\n')[1].replace('\n    ', '\n').lstrip(), names)
    assert names['model']['backbone']['init_cfg']['checkpoint'] == str(out)
    _, front, body = out.with_suffix('.md').read_text().split('---\n', 2)
    front = yaml.safe_load(front)
    assert front['library_name'] == 'mmdet'
    assert front['training_data'] == 'ImageNet-1k'
    for fact in (
        '# mine\n',
        'shorter edge resized to 72',
        'Adam',
        '3 of 100 epochs',
        'temperature=',
        '## Left out',
        'base_channels=8',
    ):
        assert fact in body, fact


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda file: file['meta'].pop('cfg'), 'does not hold its config'),
        (lambda file: file['state_dict'].pop('backbone.bn1.bias'), '1 missing: bn1.bias'),
        (lambda file: file['state_dict']['backbone.bn1.bias'].fill_(torch.nan), 'holds NaN'),
        (
            lambda file: file['meta'].update(
                cfg=file['meta']['cfg'].replace('to_rgb=True', 'to_rgb=False')
            ),
            'to_rgb is not True',
        ),
        (
            lambda file: file['meta'].update(
                cfg=file['meta']['cfg'].replace("type='CenterCrop'", "type='RandomCrop'")
            ),
            "pipeline is .'ResizeEdge', 'RandomCrop'",
        ),
    ],
)
def test_tool_ends_in_one_line(change, message, checkpoints, tmp_path):
    file = load_file(checkpoints['thin'])
    change(file)
    path = tmp_path / 'x.pth'
    torch.save(file, path)
    with pytest.raises(SystemExit, match=message) as error:
        tool('export.py', path, '--to', 'torchvision')
    assert '\n' not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_card_stays(checkpoints, tmp_path):
    (tmp_path / 'encoder.md').write_text('# Notes\n')
    with pytest.raises(SystemExit, match='encoder.md is no model card and stays'):
        tool('export.py', checkpoints['thin'], '--to', 'torchvision', tmp_path / 'encoder.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['encoder.md']


def test_the_checkpoint_itself_stays(checkpoints, tmp_path):
    path = tmp_path / 'x.pth'
    shutil.copy(checkpoints['thin'], path)
    before = path.read_bytes()
    (tmp_path / 'link.pth').symlink_to(path)
    with pytest.raises(SystemExit, match='link.pth is the checkpoint itself and stays'):
        tool('export.py', path, '--to', 'torchvision', tmp_path / 'link.pth')
    assert path.read_bytes() == before


def test_a_url_with_a_long_signature(checkpoints, tmp_path, monkeypatch, capsys):
    url = f'https://host/folder/epoch_3.pth?X-Signature={"a" * 300}'
    content = load_file(checkpoints['thin'])
    monkeypatch.setattr(loading, 'read_weights', lambda source: content)
    monkeypatch.chdir(tmp_path)
    tool('export.py', url, '--to', 'torchvision')
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        *('epoch_3_torchvision.md', 'epoch_3_torchvision.pth')
    ]
    card = (tmp_path / 'epoch_3_torchvision.md').read_text()
    assert 'The encoder of `epoch_3.pth`' in card and 'Signature' not in card


def test_a_missing_package_is_named_by_the_extra_that_installs_it():
    with pytest.raises(
        ValueError, match=r"--to x needs absent: pip install 'simclr_mm\[export\]'$"
    ):
        optional_package('absent', 'export', '--to x')
