import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from simclr_mm.checkpoints import load_state
from simclr_mm.checkpoints.foreign.layouts import UNIT_RANGE
from simclr_mm.checkpoints.foreign.renaming import from_google
from simclr_mm.checkpoints.foreign.tensor_bundle import read_bundle
from simclr_mm.checkpoints.foreign.weights import neck_config
from simclr_mm.errors import CheckpointError
from simclr_mm.models import SimCLR

FIXTURES = Path(__file__).parent / 'google'
sys.path.insert(0, str(FIXTURES))
from variables import images, value  # noqa: E402

EXPECTED = {
    'v1': dict(depth=50, width=1 / 32),
    'v2_sk': dict(depth=50, width=1 / 32, selective_kernels=True),
    'small': dict(depth=18, width=1 / 32, small_images=True),
}


@pytest.fixture(scope='module')
def recorded():
    return dict(np.load(FIXTURES / 'tensorflow1.npz'))


def variables(recorded, case):
    """The variables that TensorFlow made, in an order that tells nothing."""
    names = [str(name) for name in recorded[f'{case}/names']]
    shapes = [
        [int(side) for side in str(text).split(',') if side] for text in recorded[f'{case}/shapes']
    ]
    found = {name: value(name, shape) for name, shape in zip(names, shapes)}
    return {name: found[name] for name in sorted(found)}


def model_of(conversion):
    model = SimCLR(backbone=conversion.backbone, neck=neck_config(conversion.state))
    load_state(model, conversion.state, 'the fixture')
    return model.eval()


@torch.no_grad()
def compare(model, recorded, case):
    sizes = [key.split('/')[2] for key in recorded if key.startswith(f'{case}/features')]
    assert len(sizes) == 2
    for size in sizes:
        pixels = torch.from_numpy(images(*map(int, size.split('x'))))
        features = model.extract_feat(pixels.permute(0, 3, 1, 2))
        for got, key in ((features, 'features'), (model.neck(features), 'projections')):
            expected = torch.from_numpy(recorded[f'{case}/{key}/{size}'])
            assert (got - expected).abs().max() < 1e-4 * expected.abs().max(), (case, key)


@pytest.mark.parametrize('case', EXPECTED)
def test_features_are_tensorflows(recorded, case):
    conversion = from_google(variables(recorded, case), 'the fixture')
    assert conversion.backbone == dict(type='simclr_mm.GoogleResNet', **EXPECTED[case])
    assert conversion.normalise == UNIT_RANGE
    compare(model_of(conversion), recorded, case)
    assert set(conversion.left) == {
        'head_supervised/linear_layer/dense/kernel',
        'head_supervised/linear_layer/dense/bias',
    }
    last = max(key for key in conversion.state if key.endswith('bias'))
    assert conversion.filled[last].startswith('0'), 'the last norm has no beta'


def test_saved_model_of_tensorflow_2(recorded, tmp_path):
    with tarfile.open(FIXTURES / 'tensorflow2.tar.xz') as archive:
        archive.extractall(tmp_path)
    values = read_bundle(f'{tmp_path}/variables')
    conversion = from_google(values, 'the fixture')
    assert conversion.backbone == dict(type='simclr_mm.GoogleResNet', **EXPECTED['v2_sk'])
    ours = from_google(variables(recorded, 'v2_sk'), 'the fixture').state
    assert conversion.state.keys() == ours.keys()
    assert all(torch.equal(conversion.state[key], ours[key]) for key in ours)


def test_slots_averages_and_steps_are_left(recorded):
    values = variables(recorded, 'small')
    kernel = 'base_model/conv2d_3/kernel'
    values.update(
        {
            f'{kernel}/Momentum': values[kernel],
            f'ema_model/{kernel}': values[kernel],
            'global_step': np.array(7),
            'odd': np.zeros(3),
        }
    )
    left = from_google(values, 'the fixture').left
    assert left[f'{kernel}/Momentum'] == left['global_step']
    assert 'average' in left[f'ema_model/{kernel}']
    assert 'neither' in left['odd']


def test_another_network_is_refused(recorded):
    values = variables(recorded, 'small')
    values['base_model/conv2d_99/kernel'] = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(CheckpointError, match='22 convolutions, the first 3x3'):
        from_google(values, 'net.ckpt')
    with pytest.raises(CheckpointError, match='no SimCLR'):
        from_google(dict(weight=np.zeros(3)), 'net.ckpt')
