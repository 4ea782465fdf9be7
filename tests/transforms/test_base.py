"""What all random transforms share: image checks and where randomness comes from."""

import mmcv
import numpy as np
import pytest

from simclr_mm import transforms
from simclr_mm.datasets import SampleIndex
from simclr_mm.registry import TRANSFORMS
from simclr_mm.transforms import (
    ColorDistortion,
    ColorJitter,
    RandomGaussianBlur,
    RandomRotation,
    RandomSobel,
    TwoViews,
)

IMG = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    'img,message',
    [
        (IMG[..., 0], r'RandomSobel: .* got uint8 of shape \(16, 16\).*COLOR_GRAY2BGR'),
        (IMG.astype(np.uint16), r'must be uint8 or float32 .* got uint16 .*img.astype'),
        (IMG.astype(np.float32), 'RandomSobel needs 3 bands of uint8, .* 3 of float32'),
        (np.dstack([IMG, IMG[..., :1]]), r'RandomSobel needs .* image has 4 of uint8'),
        (IMG[:0], r'shape \(0, 16, 3\)'),
        ([1, 2], 'got list'),
    ],
)
def test_image_of_another_kind(img, message):
    with pytest.raises(ValueError, match=message):
        RandomSobel(prob=0)(dict(img=img))


def test_draws_only_from_the_views_generator():

    def views():
        results = dict(img=IMG, rng=np.random.default_rng(5))
        for transform in (ColorDistortion(), RandomGaussianBlur(kernel=5)):
            results = transform(results)
        return results['img']

    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = views()
    assert np.array_equal(np.random.get_state()[1], state)
    np.random.seed(1)
    assert np.array_equal(views(), first)


def test_fresh_entropy_without_a_generator():
    transform = ColorDistortion(jitter_prob=1)
    views = {transform(dict(img=IMG))['img'].tobytes() for _ in range(8)}
    assert len(views) == 8


def test_outside_the_views_it_is_a_function_of_the_address():
    def made(*address):
        index = SampleIndex(3, *address)
        both = [ColorDistortion(jitter_prob=1), RandomGaussianBlur(kernel=5, prob=0.5)]
        return [each(dict(img=IMG, sample_idx=index))['img'].tobytes() for each in both]

    assert made(1, 2) == made(1, 2)
    assert len({tuple(made(1, epoch)) for epoch in range(8)}) == 8
    results = dict(img=IMG, sample_idx=SampleIndex(3, 1), view_params_one={})
    drawn = []
    for _ in range(2):  # the second draws on
        results = RandomRotation(degrees=90)(results)
        drawn.append(results['view_params_one']['RandomRotation'])
    assert drawn[0] != drawn[1]


def test_nothing_is_recorded_unless_asked():
    assert set(RandomSobel()(dict(img=IMG))) == {'img', 'img_shape'}


@pytest.mark.parametrize('name', [name for name in transforms.__all__ if name != 'UnreadableImage'])
def test_every_transform_shows_its_parameters(name):
    required = dict(
        BandDrop=dict(fill=[1.0, 2.0]),
        BandJitter=dict(std=[1.0, 2.0], shared=True),
        BandNoise=dict(std=[1.0, 2.0]),
        ColorJitter=dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        LoadImageFromFile=dict(max_pixels=1000),
        ResizeEdge=dict(scale=8),
        TwoViews=dict(size=8, transforms=[dict(type='ColorDistortion', strength=0.5)]),
    )
    shown = repr(TRANSFORMS.build(dict(required.get(name, {}), type=name)))
    assert shown.startswith(f'{name}(') and 'object at' not in shown
    for key, value in required.get(name, {}).items():
        assert f'{key}={value!r}' in shown


def test_classes_as_types_of_new_configs():
    """Classes of this package and of others, for all views and for each."""
    for color, blur, gray in (
        ('simclr_mm.ColorDistortion', 'simclr_mm.RandomGaussianBlur', 'mmcv.RandomGrayscale'),
        (ColorDistortion, RandomGaussianBlur, mmcv.transforms.RandomGrayscale),
    ):
        steps = [dict(type=color, strength=0.5), dict(type=blur, kernel=3)]
        for transforms_, foreign in ((steps, False), ([steps, [dict(type=gray, prob=1.0)]], True)):
            views = TwoViews(16, transforms=transforms_)
            assert [type(step) for step in views.pipelines[0]][::2] == [
                ColorJitter,
                RandomGaussianBlur,
            ]
            assert views.foreign == [False, foreign]
        made = TwoViews(16, transforms=steps, augment='device').batch(IMG[None], [0])
        assert made.steps.shape == (1, 2, 3, 9)
