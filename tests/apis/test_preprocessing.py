"""How a picture is prepared, read off a config that may come with any file."""

import pytest
import torch
from mmpretrain.datasets import CenterCrop, ResizeEdge
from torchvision.transforms import v2

from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.errors import UserError


def of(resize=None, crop=None) -> Preprocessing:
    resize = {'type': 'ResizeEdge', 'scale': 64, **(resize or {})}
    crop = {'type': 'CenterCrop', 'crop_size': 56, **(crop or {})}
    preprocessor = torch.nn.Identity()
    preprocessor.to_rgb = True
    return Preprocessing.of(preprocessor, [resize, crop], 'a.pth')


@pytest.mark.parametrize(
    'resize, crop',
    [
        (dict(interpolation='bilinear), 1 / 0, (0'), None),
        (dict(interpolation=['bilinear']), None),
        (dict(interpolation=dict(a=1)), None),
        (dict(backend='cv2" or 1 / 0'), None),
        (dict(backend='pil'), None),
        (dict(scale=True), None),
        (dict(scale=-64), dict(crop_size=-128)),
        (dict(scale=0), dict(crop_size=0)),
        (dict(scale=10**9), None),
        (dict(scale='64'), None),
        (None, dict(crop_size='56')),
    ],
)
def test_a_value_that_no_config_has_is_refused(resize, crop):
    with pytest.raises(UserError, match='^a.pth: its preprocessing is unknown'):
        of(resize, crop)


@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic', 'lanczos'])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_the_code_runs(interpolation, backend):
    found = of(dict(interpolation=interpolation, backend=backend))
    if (interpolation, backend) == ('lanczos', 'cv2'):  # v2 has none for tensors
        return
    assert eval(found.torchvision(), dict(v2=v2, torch=torch)).transforms


def test_classes_as_types():
    found = of(dict(type=ResizeEdge), dict(type=CenterCrop))
    assert (found.resize, found.size, found.edge) == (64, 56, 'short')
    assert found == of(dict(type='mmpretrain.datasets.transforms.processing.ResizeEdge'))
