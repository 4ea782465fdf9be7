"""The crop of one view, or of the image before all views."""

import cv2
import numpy as np
import pytest

from simclr_mm.datasets import SampleIndex
from simclr_mm.transforms import RandomCropAndFlip, TwoViews
from simclr_mm.transforms.random_streams import view_streams


@pytest.fixture(scope='module')
def photo():
    img = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    return cv2.resize(img, (72, 96), interpolation=cv2.INTER_CUBIC)


def run(transform, img, **results):
    return transform(dict(img=img.copy(), **results))


@pytest.mark.portable
@pytest.mark.parametrize('seed', range(4))
def test_does_what_two_views_does(photo, seed):
    """Which gets the box that was drawn as its image, and the flip as certain."""
    drawn = {}
    rng = np.random.default_rng(seed)
    cropped = run(RandomCropAndFlip(32), photo, rng=rng, view_params_one=drawn)
    drawn = drawn['RandomCropAndFlip']
    top, left = drawn['top'], drawn['left']
    height, width = drawn['height'], drawn['width']
    size_of_box = dict(scale=(1.0, 1.0), ratio=(width / height, width / height))
    views = TwoViews(32, flip_prob=float(drawn['flip']), **size_of_box)
    box = photo[top : top + height, left : left + width]
    expected = run(views, box)['img'][0].transpose(1, 2, 0)
    assert np.array_equal(cropped['img'], expected)
    assert cropped['img_shape'] == (32, 32)


def test_flips_half_and_covers_the_range(photo):
    areas, flips = [], []
    for seed in range(300):
        drawn = {}
        run(
            RandomCropAndFlip(8, scale=(0.1, 0.5)),
            photo,
            rng=np.random.default_rng(seed),
            view_params_one=drawn,
        )
        drawn = drawn['RandomCropAndFlip']
        areas.append(drawn['height'] * drawn['width'] / photo[..., 0].size)
        flips.append(drawn['flip'])
    assert min(areas) == pytest.approx(0.1, abs=0.02)
    assert max(areas) == pytest.approx(0.5, abs=0.02)
    assert 110 < sum(flips) < 190


@pytest.mark.portable
def test_in_one_view_of_two(photo):
    """It keeps the side that TwoViews gave, and leaves the other view alone."""
    whole = dict(scale=(1.0, 1.0), ratio=(0.75, 0.75), flip_prob=0.0)
    crop = dict(type='simclr_mm.RandomCropAndFlip')
    index = SampleIndex(3, seed=1)
    plain = run(TwoViews(24, **whole), photo, sample_idx=index)['img']
    views = run(TwoViews(24, transforms=[[], [crop]], **whole), photo, sample_idx=index)['img']
    assert np.array_equal(views[0], plain[0])
    assert not np.array_equal(views[1], plain[1])


def test_before_the_views_it_depends_on_seed_epoch_and_image(photo):
    crop = RandomCropAndFlip(16)
    indices = [SampleIndex(*where) for where in ((5, 0, 0), (5, 1, 0), (5, 0, 1), (6, 0, 0))]
    images = [run(crop, photo, sample_idx=index)['img'] for index in indices]
    again = run(crop, photo, sample_idx=indices[0])['img']
    assert np.array_equal(images[0], again)
    assert len({image.tobytes() for image in images}) == 4


def test_before_the_views_it_draws_other_numbers_than_they(photo):
    """And leaves theirs alone."""
    index = SampleIndex(5, seed=1)
    results = RandomCropAndFlip(16)(dict(img=photo, sample_idx=index))
    left_over = {results['rng'].next_word() for _ in range(30)}
    for view in range(3):
        (stream,) = view_streams(1, 0, 5, view, 1)
        assert not left_over & {stream.next_word() for _ in range(42)}
    once, again = (RandomCropAndFlip(16)(dict(results))['img'] for _ in range(2))
    assert not np.array_equal(once, again)  # a second one draws on
    kwargs = dict(flip_prob=0.5, transforms=[dict(type='simclr_mm.RandomRotation')])
    after = run(
        TwoViews(16, **kwargs), results['img'], **{k: results[k] for k in ('sample_idx', 'rng')}
    )
    alone = run(TwoViews(16, **kwargs), results['img'], sample_idx=index)
    assert np.array_equal(after['img'], alone['img'])


@pytest.mark.parametrize(
    'bad', [dict(scale=(0, 1)), dict(ratio=(2, 1)), dict(flip_prob=2), dict(prob=-1)]
)
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match='RandomCropAndFlip: ' + next(iter(bad))):
        RandomCropAndFlip(**bad)
