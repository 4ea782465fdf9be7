"""Views of a batch are those that each image has by itself."""

import cv2
import numpy as np
import pytest
from scipy import stats

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.transforms import TwoViews
from simclr_mm.transforms.base import RandomTransform
from simclr_mm.transforms.crop import sample_crop, sample_crops
from simclr_mm.transforms.random_streams import batch_streams, view_streams

COLOR = dict(type='simclr_mm.ColorDistortion', strength=0.5)
ALL = [
    COLOR,
    dict(type='simclr_mm.RandomGaussianBlur', prob=0.3),
    dict(type='simclr_mm.RandomRotation', prob=0.6),
    dict(type='simclr_mm.RandomRotation', degrees=20.0),
    dict(type='simclr_mm.RandomCutout', prob=0.7),
    dict(type='simclr_mm.RandomSobel', prob=0.1),
    dict(type='simclr_mm.RandomGaussianNoise', std=(1.0, 4.0)),
    dict(type='simclr_mm.RandomCropAndFlip', prob=0.9),
]


@pytest.mark.parametrize(
    'height,width,scale,ratio',
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (20, 60, (0.3, 1.0), (3 / 4, 4 / 3)),
        (24, 24, (0.9, 1.0), (2.0, 3.0)),
        (60, 20, (1.0, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_boxes_of_a_batch(height, width, scale, ratio):
    """Also where most tries, or all of them, do not fit."""
    n = 300
    (streams,) = batch_streams([1] * n, [0] * n, range(n), 0, 1)
    boxes = sample_crops(height, width, scale, ratio, streams)
    for image in range(n):
        (stream,) = view_streams(1, 0, image, 0, 1)
        assert sample_crop(height, width, scale, ratio, stream) == tuple(boxes[image])


@pytest.fixture(scope='module')
def drawn():
    """For 500 images of 24 pixels, in a batch and one at a time."""
    n = 500
    images = np.zeros((n, 24, 24, 3), np.uint8)
    indices = [SampleIndex(i, seed=3, epoch=1) for i in range(n)]
    views = TwoViews(24, transforms=ALL, augment='device')
    single = [views(dict(img=images[0], sample_idx=index)) for index in indices]
    return views.batch(images, indices), single


def test_what_is_drawn_for_a_batch(drawn):
    made, single = drawn
    assert np.array_equal(made.steps, np.stack([each['img'][2].numpy() for each in single]))
    params = [each['view_params'] for each in single]
    crops = [[[*view['crop'], view['flip'], 24, 0] for view in each] for each in params]
    assert made.crops.tolist() == crops


def test_distributions(drawn):
    """Probabilities, ranges and orders are the configured ones."""
    made, _ = drawn
    steps = made.steps.flatten(0, 1).numpy()  # (1000, 9, 9)
    probs = [0.8, 0.2, 0.3, 0.6, 1, 0.7, 0.1, 1, 0.9]
    for t, prob in enumerate(probs):
        applied = np.count_nonzero(steps[:, t, 0])
        assert stats.binomtest(applied, 1000, prob).pvalue > 0.01 / 9  # Bonferroni
    assert stats.binomtest(int(made.crops[..., 4].sum()), 1000).pvalue > 0.01
    jitter = steps[steps[:, 0, 0] > 0, 0]
    for column, low, high in ((1, 0.6, 1.4), (2, 0.6, 1.4), (3, 0.6, 1.4), (4, -0.1, 0.1)):
        uniform = stats.kstest(jitter[:, column], 'uniform', (low, high - low))
        assert uniform.pvalue > 0.01 / 4
    orders = np.unique(jitter[:, 5:], axis=0, return_counts=True)[1]
    assert len(orders) == 24 and stats.chisquare(orders).pvalue > 0.01
    quarters = np.unique(steps[steps[:, 3, 0] > 0, 3, 1], return_counts=True)
    assert quarters[0].tolist() == [0, 90, 180, 270]
    assert stats.chisquare(quarters[1]).pvalue > 0.01


def test_steps_views_and_epochs_are_independent():
    """None of the numbers drawn for an image tells anything about another."""
    n = 2000
    views = TwoViews(
        24,
        augment='device',
        transforms=[
            dict(type='simclr_mm.RandomRotation', degrees=20.0),
            dict(type='simclr_mm.ColorJitter', brightness=1, contrast=1, saturation=1, hue=0.5),
            dict(type='simclr_mm.RandomGaussianNoise'),
        ],
    )
    numbers = []
    for epoch in (0, 1):
        indices = [SampleIndex(i, seed=3, epoch=epoch) for i in range(n)]
        made = views.batch(np.zeros((n, 24, 24, 3), np.uint8), indices)
        steps = made.steps.flatten(2)[..., [1, 10, 11, 12, 13, 19, 20]]
        area = made.crops[..., 2] * made.crops[..., 3]
        drawn = np.concatenate((steps, area[..., None], made.crops[..., 4:5]), axis=2)  # (n, V, 9)
        numbers.append(drawn.reshape(n, -1))
    correlations = np.corrcoef(np.hstack(numbers).T)  # (36, 36)
    others = np.abs(correlations[~np.eye(36, dtype=bool)])
    assert others.max() < 4.5 / np.sqrt(n)  # of 630 pairs


@pytest.fixture(scope='module')
def images():
    noise = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)
    return np.stack([cv2.resize(each, (24, 24), interpolation=cv2.INTER_CUBIC) for each in noise])


def two_views(**kwargs):
    return TwoViews(24, **{'transforms': ALL, **kwargs})


@pytest.mark.portable
def test_a_view_depends_on_nothing_but_seed_epoch_image_and_view(images):
    indices = [SampleIndex(i, seed=3, epoch=1) for i in range(12)]
    whole = two_views().batch(images, indices)
    assert whole.shape == (12, 2, 3, 24, 24)
    some = [7, 2, 11]
    part = two_views().batch(images[some], [indices[i] for i in some])
    assert np.array_equal(part, whole[some])
    for img, index, made in zip(images, indices, whole):
        single = two_views()(dict(img=img, sample_idx=index))
        assert np.array_equal(single['img'], made)
    assert not np.array_equal(whole[:, 0], whole[:, 1])
    for other in (SampleIndex(5, 4, 1), SampleIndex(5, 3, 2), SampleIndex(6, 3, 1)):
        made = two_views().batch(images[5:6], [other])
        assert not np.array_equal(made[0], whole[5])


def test_other_steps_leave_crops_alone(images):
    """Each step has a stream of its own."""
    for image in range(6):
        sample = dict(img=images[image], sample_idx=SampleIndex(image, 1))
        plain, full = two_views(transforms=[])(dict(sample)), two_views()(dict(sample))
        for v, params in enumerate(full['view_params']):
            top, left, height, width = params['crop']
            view = images[image][top : top + height, left : left + width]
            view = cv2.resize(view, (24, 24), interpolation=cv2.INTER_LINEAR)
            view = view[:, ::-1] if params['flip'] else view
            assert np.array_equal(plain['img'][v], view.transpose(2, 0, 1))
            assert plain['view_params'][v] == dict(crop=params['crop'], flip=params['flip'])


def test_each_view_may_have_its_own_pipeline(images):
    indices = [SampleIndex(i) for i in range(12)]
    made = two_views(num_views=3, transforms=[[COLOR], [], ALL]).batch(images, indices)
    plain = two_views(num_views=3, transforms=[]).batch(images, indices)
    assert np.array_equal(made[:, 1], plain[:, 1])
    assert not np.array_equal(made[:, 0], plain[:, 0])


def test_plain_indices_give_fresh_views(images):
    views = two_views()
    assert not np.array_equal(views.batch(images, range(12)), views.batch(images, range(12)))
    # Also where a sampler gives one index twice, or counts from the end.
    first, second = views.batch(images[[5, 5]], [-7, -7])
    assert not np.array_equal(first, second)


def test_transforms_of_other_packages_in_a_batch(images):
    views = two_views(transforms=[COLOR, dict(type='mmpretrain.ColorJitter', brightness=0.9)])
    indices = [SampleIndex(i, seed=3) for i in range(12)]
    made = views.batch(images, indices)
    assert np.array_equal(made, views.batch(images, indices))
    single = views(dict(img=images[5], sample_idx=indices[5]))
    assert np.array_equal(single['img'], made[5])
    bare = two_views(transforms=[COLOR])(dict(img=images[5], sample_idx=indices[5]))
    assert bare['view_params'] == single['view_params']  # they draw from elsewhere


class Lighten(RandomTransform):
    """As docs/extending.md describes one: without an operation for batches."""

    def apply(self, img, rng):
        least = int(rng.uniform(50, 100)) + rng.integers(9) + rng.permutation(3)[0]
        least += int(rng.generator().normal())
        return np.maximum(img, least), dict(least=least)


class Cut(RandomTransform):
    def apply(self, img, rng):
        return img[1:], {}


def test_a_transform_of_ones_own_in_a_batch(images):
    views = two_views(transforms=[COLOR, dict(type=Lighten, prob=0.7), COLOR])
    indices = [SampleIndex(i, seed=3) for i in range(12)]
    made = views.batch(images, indices)
    drawn = []
    for index, img, expected in zip(indices, images, made):
        single = views(dict(img=img, sample_idx=index))
        assert np.array_equal(single['img'], expected)
        drawn += [view['Lighten'] for view in single['view_params']]
    assert drawn.count(None) in range(1, 15)  # of 24, 0.3 of them
    assert len({each['least'] for each in drawn if each}) > 5
    with pytest.raises(ValueError, match='view 0 made the image 23 x 24 pixels'):
        two_views(transforms=[dict(type=Cut, prob=1)]).batch(images, indices)
    with pytest.raises(ValueError, match='Lighten cannot run on the device'):
        two_views(transforms=[dict(type=Lighten, prob=0.7)], augment='device')


def test_an_image_given_up_in_a_batch(images):
    views = two_views(transforms=[])
    views.pipelines[1] = [lambda view: None if view['sample_idx'] == 4 else view]
    views.foreign[1] = True
    indices = [SampleIndex(i) for i in range(12)]
    views.batch(images[:4], indices[:4])
    with pytest.raises(ValueError, match='returned None for image 4, but a batch.*batched=False'):
        views.batch(images, indices)


def test_a_crop_to_another_size():
    with pytest.raises(ValueError, match=r'RandomCropAndFlip\(size=16\)'):
        TwoViews(24, transforms=[dict(type='simclr_mm.RandomCropAndFlip', size=16)])
