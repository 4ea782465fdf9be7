"""Each library's layout, on a thin ResNet-18 of random weights and BN statistics."""

from collections import OrderedDict
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from helpers.tools import tool
from mmengine.config import Config
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from simclr_mm import get_model
from simclr_mm.apis.model_zoo import SHIPPED, weights_of
from simclr_mm.commands.convert.conversion import convert, key_lines, save
from simclr_mm.commands.convert.pixels import widen
from simclr_mm.errors import CheckpointError

ROOT = Path(__file__).parents[3]
UNIT = dict(mean=[0.0] * 3, std=[255.0] * 3)


def randomised(module):
    """Random BN statistics, in eval mode."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, ends in (
                (part.running_mean, (-0.5, 0.5)),
                (part.running_var, (0.5, 2)),
                (part.weight, (0.5, 1.5)),
                (part.bias, (-0.5, 0.5)),
            ):
                nn.init.uniform_(tensor, *ends)
    return module.eval()


class Thin(ResNet):
    """torchvision's ResNet-18, an eighth as wide behind the stem."""

    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Identity()

    def _make_layer(self, block, planes, *args, **kwargs):
        return super()._make_layer(block, planes // 8, *args, **kwargs)


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    return randomised(Thin())


def small_encoder(padding):
    """The same for small images, as solo-learn and others change it."""
    network = Thin()
    network.maxpool = nn.Identity()
    network.conv1 = nn.Conv2d(3, 64, 3, 1, padding, bias=False)
    return randomised(network)


def mlp(norm, bias, out=16):
    """Linear, perhaps norm, ReLU, Linear, perhaps norm."""
    torch.manual_seed(1)
    norms = [[nn.BatchNorm1d(width)] if norm else [] for width in (64, out)]
    return randomised(
        nn.Sequential(
            nn.Linear(64, 64, bias), *norms[0], nn.ReLU(), nn.Linear(64, out, bias), *norms[1]
        )
    )


def under(prefix, module):
    state = module if isinstance(module, dict) else module.state_dict()
    return {f'{prefix}{key}': tensor for key, tensor in state.items()}


def renamed(module, names):
    """A Sequential's keys with other names for its modules."""
    return {
        f'{names[int(key.split(".")[0])]}.{key.split(".")[1]}': tensor
        for key, tensor in module.state_dict().items()
    }


def spijkervet(encoder, head):
    return {**under('encoder.', encoder), **under('projector.', head)}


def spijkervet_lightning(encoder, head):
    return dict(
        state_dict={**under('encoder.', encoder), **under('model.', spijkervet(encoder, head))}
    )


def sthalles(encoder, head):
    state = {**under('backbone.', encoder), **under('backbone.fc.', head)}
    return dict(epoch=200, arch='resnet18', state_dict=state, optimizer=dict(lr=0.1))


def solo(encoder, head):
    return dict(
        state_dict={
            **under('backbone.', encoder),
            **under('projector.', head),
            **under('classifier.', nn.Linear(64, 10)),
        }
    )


def atanov(encoder, head):
    names = {0: 'fc1', 1: 'bn1', 3: 'fc2', 4: 'bn2'}
    return dict(
        state_dict={
            **under('convnet.', encoder),
            **under('convnet.fc.', nn.Linear(64, 1000)),
            **under('projection.', renamed(head, names)),
        }
    )


def vissl(encoder, head):
    heads = renamed(head, {0: '0.clf.0'.replace('.', '/'), 2: '1/clf/0'})
    model = dict(
        trunk=under('_feature_blocks.', encoder),
        heads={key.replace('/', '.'): tensor for key, tensor in heads.items()},
    )
    return dict(classy_state_dict=dict(base_model=dict(model=model, meta={})))


def lightly(encoder, head):
    sequential = nn.Sequential(*list(encoder.children())[:-1])
    return dict(
        state_dict={
            **under('backbone.', sequential),
            **under('projection_head.layers.', head),
            **under('online_classifier.', nn.Linear(64, 10)),
        }
    )


def moco(encoder, head):
    return dict(
        state_dict={
            **under('module.encoder_q.', encoder),
            **under('module.encoder_q.fc.', head),
            **under('module.encoder_k.', encoder),
            'module.queue': torch.zeros(2),
        }
    )


def torchvision(encoder, head):
    return OrderedDict({**encoder.state_dict(), **under('fc.', nn.Linear(64, 1000))})


def ours(encoder, head):
    names = {0: 'fc0', 1: 'bn0', 3: 'fc1', 4: 'bn1'}
    state = {**under('backbone.', encoder), **under('neck.', renamed(head, names))}
    return dict(state_dict=under('module.', state), meta=dict(epoch=200))


@pytest.mark.parametrize(
    'layout, make, norm, bias, normalise, left',
    [
        ('Spijkervet', spijkervet, False, False, UNIT, 0),
        ('Spijkervet', spijkervet_lightning, False, False, UNIT, 126),
        ('sthalles', sthalles, False, True, UNIT, 3),
        ('solo-learn', solo, False, True, None, 2),
        ('Atanov', atanov, True, False, UNIT, 2),
        ('VISSL', vissl, False, True, None, 0),
        ('lightly', lightly, True, False, None, 2),
        ('lightly', lightly, True, True, None, 4),
        ('MoCo-like', moco, False, True, None, 127),
        ('torchvision', torchvision, None, None, None, 2),
        ('mmpretrain', ours, True, False, None, 1),
    ],
)
@torch.no_grad()
def test_features_and_projections(encoder, tmp_path, layout, make, norm, bias, normalise, left):
    head = None if norm is None else mlp(norm, bias)
    torch.save(make(encoder, head), tmp_path / 'theirs.ckpt')
    converted = convert(tmp_path / 'theirs.ckpt')
    assert converted.layout == layout
    assert len(converted.left) == left
    checkpoint, config, keys = save(converted, tmp_path / 'ours.pth')
    model = get_model(config, pretrained=checkpoint)
    images = torch.rand(2, 3, 64, 64)
    features = encoder(images)
    torch.testing.assert_close(model.extract_feat(images), features, atol=1e-4, rtol=1e-4)
    if head is not None:
        torch.testing.assert_close(model.neck(features), head(features), atol=1e-4, rtol=1e-4)
    if normalise:
        assert model.data_preprocessor.mean.flatten().tolist() == normalise['mean']
        assert model.data_preprocessor.std.flatten().tolist() == normalise['std']
    else:
        assert model.data_preprocessor.mean[0].item() == pytest.approx(123.675)
    lines = keys.read_text().splitlines()
    assert (
        len(lines)
        == len(converted.used) + len(converted.left) + len(converted.filled)
        == len(key_lines(converted))
    )


@torch.no_grad()
@pytest.mark.parametrize(
    'make, padding, name', [(solo, 2, 'SoloResNet'), (atanov, 1, 'ResNet_CIFAR')]
)
def test_stems_for_small_images(tmp_path, make, padding, name):
    torch.manual_seed(2)
    small = small_encoder(padding)
    torch.save(make(small, mlp(make is atanov, make is solo)), tmp_path / 'theirs.ckpt')
    converted = convert(tmp_path / 'theirs.ckpt', mean=[1, 2, 3], std=[4, 5, 6])
    assert converted.config.model.backbone.type.split('.')[-1] == name
    checkpoint, config, _ = save(converted, tmp_path / 'ours.pth')
    model = get_model(config, pretrained=checkpoint)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.extract_feat(images), small(images), atol=1e-4, rtol=1e-4)
    assert model.data_preprocessor.std.flatten().tolist() == [4, 5, 6]
    if make is solo:
        with pytest.raises(CheckpointError, match='pass backbone=.*SoloResNet'):
            get_model(
                config,
                pretrained=checkpoint,
                backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8),
            )


@torch.no_grad()
def test_get_model_takes_a_foreign_file(encoder, tmp_path):
    path = tmp_path / 'theirs.ckpt'
    torch.save(sthalles(encoder, mlp(False, True)), path)
    backbone = dict(depth=18, base_channels=8)
    model = get_model('simclr_resnet50', path, backbone=backbone, neck=None)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model.extract_feat(images), encoder(images), atol=1e-4, rtol=1e-4)
    assert model.data_preprocessor.std.flatten().tolist() == UNIT['std']
    with pytest.raises(CheckpointError, match='does not fit'):
        get_model('simclr_resnet50', path)


def test_mmselfsup_0_calls_its_classifier_otherwise(encoder, tmp_path):
    config = dict(type='LinearClsHead', num_classes=4, in_channels=64)
    state = {**under('backbone.', encoder), **under('head.fc_cls.', nn.Linear(64, 4))}
    torch.save(dict(state_dict=state), tmp_path / 'old.pth')
    model = get_model(
        'r18_8xb512-linear-coslr-90e_in1k',
        tmp_path / 'old.pth',
        backbone=dict(base_channels=8),
        head=config,
    )
    assert torch.equal(model.head.fc.weight, state['head.fc_cls.weight'])


def test_lightly_as_its_examples_build_it(tmp_path):
    lightly_models = pytest.importorskip('lightly.models')
    from lightly.models.modules import SimCLRProjectionHead

    children = list(lightly_models.ResNetGenerator('resnet-18', 0.125).children())[:-1]
    module = nn.Module()
    module.backbone = nn.Sequential(*children, nn.AdaptiveAvgPool2d(1))
    module.projection_head = SimCLRProjectionHead(64, 64, 16, num_layers=3)
    compare_package(randomised(module), tmp_path, lambda x: module.backbone(x).flatten(1))
    (resize,) = (
        step
        for step in Config.fromfile(tmp_path / 'ours.py').test_dataloader.dataset.pipeline
        if 'Resize' in step.type
    )
    assert resize.scale == 32


@pytest.mark.parametrize('name', ['resnet18', 'resnet50d'])
def test_timm(tmp_path, name):
    network = randomised(pytest.importorskip('timm').create_model(name, num_classes=0))
    compare_package(network, tmp_path, network)


@torch.no_grad()
def compare_package(module, tmp_path, features):
    torch.save(module.state_dict(), tmp_path / 'theirs.pth')
    checkpoint, config, _ = save(convert(tmp_path / 'theirs.pth'), tmp_path / 'ours.pth')
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(
        get_model(config, checkpoint).extract_feat(images), features(images), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    'state, reason',
    [
        ({'blocks.0.attn.weight': torch.ones(2)}, 'keys of no known library'),
        (dict(epoch=3), 'holds no weights'),
        (
            {
                'layer1.0.conv1.weight': torch.ones(8, 8, 3, 3),
                'conv1.weight': torch.ones(8, 3, 7, 7),
            },
            'a stage is missing',
        ),
        (
            {
                'encoder.layer1.0.conv1.weight': torch.ones(2),
                'model.encoder.layer1.0.conv1.weight': torch.zeros(2),
                'projector.0.weight': torch.ones(2),
            },
            'differ, and both would be',
        ),
        # SimSiam's and others', whose pixels are not Spijkervet's
        (
            {'encoder.layer1.0.conv1.weight': torch.ones(2), 'predictor.0.weight': torch.ones(2)},
            'no known library',
        ),
    ],
)
def test_what_is_refused(tmp_path, state, reason):
    torch.save(state, tmp_path / 'theirs.pth')
    with pytest.raises(CheckpointError, match=reason):
        convert(tmp_path / 'theirs.pth')


def test_missing_and_spoilt_weights(encoder, tmp_path):
    state = encoder.state_dict()
    del state['layer3.1.bn2.bias']
    torch.save(state, tmp_path / 'theirs.pth')
    with pytest.raises(CheckpointError, match='1 missing: backbone.layer3.1.bn2.bias'):
        convert(tmp_path / 'theirs.pth')
    state['layer3.1.bn2.bias'] = torch.full((32,), torch.nan)
    torch.save(state, tmp_path / 'theirs.pth')
    with pytest.raises(CheckpointError, match='holds NaN'):
        convert(tmp_path / 'theirs.pth')


@pytest.mark.parametrize(
    'flag, values',
    [
        ('--mean', (300, 2, 3)),
        ('--mean', (-1, 2, 3)),
        ('--mean', ('nan', 2, 3)),
        ('--mean', (0.485, 0.456, 0.406)),
        ('--std', (0.229, 0.224, 0.225)),
        ('--std', (1, 2, 0)),
        ('--std', (1, 2, 'inf')),
    ],
)
def test_pixels_of_another_range(encoder, tmp_path, flag, values):
    torch.save(torchvision(encoder, None), tmp_path / 'theirs.pth')
    with pytest.raises(SystemExit, match=f'{flag} .*: give numbers from'):
        tool('convert.py', tmp_path / 'theirs.pth', tmp_path / 'ours.pth', flag, *values)
    assert not (tmp_path / 'ours.pth').exists()


def test_pixels_that_are_given(encoder, tmp_path):
    torch.save(torchvision(encoder, None), tmp_path / 'theirs.pth')
    converted = convert(tmp_path / 'theirs.pth', mean=[0, 0, 0], std=[1, 1, 255])
    assert converted.config.data_preprocessor.mean == [0, 0, 0]
    assert converted.config.data_preprocessor.std == [1, 1, 255]


def test_pixels_of_the_stored_config():
    converted = convert(weights_of(SHIPPED))
    assert dict(converted.config.data_preprocessor, **UNIT) == converted.config.data_preprocessor
    assert converted.checkpoint['meta']['normalise'] == UNIT


SELFSUP_1 = """
data_preprocessor = dict(mean=(198.878, 167.418, 132.772), std=(59., 57., 56.), bgr_to_rgb=True)
model = dict(type='mmselfsup.SimCLR', head=dict(loss=dict(type='mmcls.CrossEntropyLoss')))
train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))
"""
SELFSUP_0 = 'img_norm_cfg = dict(mean=[0.5, 0.25, 0.125], std=[0.25, 0.5, 1.0])\nmodel = dict()'


@pytest.mark.parametrize(
    'key, text, mean',
    [
        ('cfg', SELFSUP_1, [198.878, 167.418, 132.772]),
        ('config', SELFSUP_0, [127.5, 63.75, 31.875]),
        ('cfg', 'model = dict(data_preprocessor=dict(mean=[1, 2, 3], std=[1, 2, 3]))', [1, 2, 3]),
    ],
)
def test_pixels_of_a_stored_config_of_other_classes(encoder, tmp_path, key, text, mean):
    state = under('backbone.', encoder)
    torch.save(dict(state_dict=state, meta={key: text}), tmp_path / 'theirs.pth')
    converted = convert(tmp_path / 'theirs.pth')
    assert converted.config.data_preprocessor.mean == mean
    weight = converted.checkpoint['state_dict']['backbone.conv1.weight']
    assert weight.equal(encoder.conv1.weight)


def test_an_encoder_of_bgr_becomes_one_of_rgb(encoder, tmp_path, capsys):
    text = SELFSUP_1.replace('bgr_to_rgb=True', 'bgr_to_rgb=False')
    state = under('backbone.', encoder)
    torch.save(dict(state_dict=state, meta=dict(cfg=text)), tmp_path / 'theirs.pth')
    with patch('simclr_mm.commands.convert.conversion.print_log') as said:
        checkpoint, config, _ = save(convert(tmp_path / 'theirs.pth'), tmp_path / 'ours.pth')
    assert 'takes BGR, by the stored config' in str(said.call_args)
    model = get_model(config, pretrained=checkpoint)
    assert model.data_preprocessor.mean.flatten().tolist()[0] == pytest.approx(132.772)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            model.extract_feat(images.flip(1)), encoder(images), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    'text', ['model = f(', 'model = dict()', 'data_preprocessor = dict(mean=1)']
)
def test_a_stored_config_without_pixels_is_said(encoder, tmp_path, text):
    state = under('backbone.', encoder)
    torch.save(dict(state_dict=state, meta=dict(cfg=text)), tmp_path / 'theirs.pth')
    with patch('simclr_mm.commands.convert.pixels.print_log') as said:
        converted = convert(tmp_path / 'theirs.pth')
    assert 'no mean and std are found in the stored config' in str(said.call_args)
    assert converted.config.data_preprocessor.mean == [123.675, 116.28, 103.53]


def test_a_linear_evaluation_of_solo_learn(tmp_path):
    small = small_encoder(2)
    state = {**under('backbone.', small), **under('classifier.', nn.Linear(64, 10))}
    torch.save(dict(state_dict=state), tmp_path / 'theirs.pth')
    converted = convert(tmp_path / 'theirs.pth')
    assert converted.layout == 'solo-learn'
    assert converted.config.model.backbone.type == 'simclr_mm.SoloResNet'


def test_a_file_of_the_user_stays(encoder, tmp_path):
    torch.save(torchvision(encoder, None), tmp_path / 'theirs.pth')
    (tmp_path / 'ours.py').write_text('mine = 1\n')
    with pytest.raises(SystemExit, match='ours.py is not from .*convert.* and stays'):
        tool('convert.py', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert (tmp_path / 'ours.py').read_text() == 'mine = 1\n'
    for _ in range(2):
        tool('convert.py', tmp_path / 'theirs.pth', tmp_path / 'other.pth')


def test_the_source_stays(encoder, tmp_path):
    torch.save(torchvision(encoder, None), tmp_path / 'theirs.pth')
    before = (tmp_path / 'theirs.pth').read_bytes()
    with pytest.raises(SystemExit, match='theirs.pth is SOURCE itself and stays'):
        tool('convert.py', tmp_path / 'theirs.pth', tmp_path / 'theirs.pth')
    assert (tmp_path / 'theirs.pth').read_bytes() == before


def test_a_deep_stem_for_bands():
    state = {'backbone.stem.0.conv.weight': torch.ones(4, 3, 3, 3)}
    widen(state, 6, 'theirs.pth')
    assert state['backbone.stem.0.conv.weight'].shape == (4, 6, 3, 3)


def test_converted_weights_have_no_training_that_is_not_theirs(encoder, tmp_path, capsys):
    torch.save(torchvision(encoder, None), tmp_path / 'theirs.pth')
    tool('convert.py', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    tool('publish_model.py', tmp_path / 'ours.pth', tmp_path / 'out')
    entry = yaml.safe_load(capsys.readouterr().out.rpartition('nothing\n')[2])[0]
    assert {*entry['Metadata']} == {'FLOPs', 'Parameters'}
    (card,) = (tmp_path / 'out').glob('*.md')
    text = card.read_text()
    assert 'torchvision, theirs.pth; the file does not say how it was trained' in text
    assert 'training_data' not in text and '200 epochs' not in text
    published = torch.load(card.with_suffix('.pth'), weights_only=False)
    assert published['meta']['converted_from'] == dict(layout='torchvision', file='theirs.pth')


def test_the_tool(encoder, tmp_path, capsys):
    theirs, ours_path = tmp_path / 'theirs.pth', tmp_path / 'ours.pth'
    torch.save(torchvision(encoder, None), theirs)
    tool('convert.py', theirs, ours_path)
    out = capsys.readouterr().out
    assert 'used 126 keys, 126 of them renamed' in out
    assert 'left 2: fc.weight (a classifier' in out
    assert f"get_model('{tmp_path}/ours.py', pretrained='{ours_path}')" in out
    with pytest.raises(SystemExit, match='error: OUT must end in .pth'):
        tool('convert.py', theirs, tmp_path / 'ours')
    with pytest.raises(SystemExit, match='none.pth'):
        tool('convert.py', tmp_path / 'none.pth', ours_path)


@pytest.mark.parametrize('bands', [1, 2, 6, 7])
def test_a_stem_for_bands(encoder, tmp_path, bands, capsys):
    """Equal bands give what equal channels of RGB gave, if n is 1 or a multiple of 3."""
    torch.save(encoder.state_dict(), tmp_path / 'rgb.pth')
    numbers = [float(k + 1) for k in range(bands)]
    settings = dict(mean=numbers, std=numbers, to_rgb=False)
    (tmp_path / 'bands.py').write_text(f'data_preprocessor = {settings}\n')
    out = tmp_path / 'out.pth'
    tool('convert.py', tmp_path / 'rgb.pth', out, '--bands', tmp_path / 'bands.py')
    assert f'mean {numbers}, std {numbers}' in capsys.readouterr().out
    model = get_model(out.with_suffix('.py'), pretrained=out)
    assert model.data_preprocessor.mean.flatten().tolist() == numbers
    jitter = model._config.train_dataloader.dataset.pipeline[1].transforms[0]
    assert jitter.type == 'simclr_mm.BandJitter' and jitter.std == numbers
    with pytest.raises(SystemExit, match='leave --mean and --std out'):
        both = '--bands', tmp_path / 'bands.py', '--mean', 1, 2, 3
        tool('convert.py', tmp_path / 'rgb.pth', out, *both)
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = encoder(grey.expand(2, 3, 64, 64))
        found = model.extract_feat(grey.expand(2, bands, 64, 64))
    if bands in (1, 6):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight, before = model.backbone.conv1.weight, encoder.conv1.weight
    if bands > 1:
        for band in range(bands):  # in float64 by hand
            by_hand = before[:, band % 3].double() * 3 / bands
            torch.testing.assert_close(weight[:, band].double(), by_hand, rtol=1e-6, atol=0)
