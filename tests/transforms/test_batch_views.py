"""Views drawn for a batch have the distributions of views drawn one at a time."""
import cv2
import numpy as np
import pytest
from scipy import stats

from simclr_mm.augment import STEP_WIDTH
from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.transforms import TwoViews
from simclr_mm.transforms.crop import sample_crop, sample_crops
from simclr_mm.transforms.random_streams import RandomStreams

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


def streams(n):
    return RandomStreams([1] * n, [0] * n, range(n), 0, 0)


@pytest.mark.parametrize('height,width,scale,ratio', [
    (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
    (20, 60, (0.3, 1.0), (3 / 4, 4 / 3)),
    (24, 24, (0.9, 1.0), (2.0, 3.0)),
    (60, 20, (1.0, 1.0), (3 / 4, 4 / 3)),
])
def test_boxes_are_distributed_as_one_at_a_time(height, width, scale, ratio):
    """Also where most tries, or all of them, do not fit."""
    n = 3000
    boxes = sample_crops(height, width, scale, ratio, streams(n))
    rng = np.random.default_rng(0)
    single = np.array([sample_crop(height, width, scale, ratio, rng) for _ in range(n)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= (height, width)).all()
    for side in range(4):
        table = np.stack(
            [np.bincount(part[:, side], minlength=61) for part in (boxes, single)])
        table = table[:, table.sum(0) >= 10]
        if table.shape[1] > 1:
            assert stats.chi2_contingency(table).pvalue > 0.01 / 16  # Bonferroni
        else:  # the central box
            assert np.array_equal(boxes[:, side], single[:, side])


@pytest.fixture(scope='module')
def both():
    """What was drawn for 1500 images of 24 pixels, in a batch and one at a time."""
    n = 1500
    images = np.zeros((n, 24, 24, 3), np.uint8)
    indices = [SampleIndex(i, seed=3, epoch=1) for i in range(n)]
    batched = TwoViews(24, transforms=ALL, augment='device')
    batched.draw_in_batches()
    made = batched.batch(images, indices)
    single = TwoViews(24, transforms=ALL, augment='device')
    results = [single(dict(img=images[0], sample_idx=index)) for index in indices]
    steps = np.stack([each['img'][1].numpy() for each in results])
    flips = [[view['flip'] for view in each['view_params']] for each in results]
    return made, steps, np.array(flips)


def test_every_number_is_distributed_as_one_at_a_time(both):
    made, single, _ = both
    steps = made.steps.numpy()
    assert steps.shape == single.shape == (1500, 2, 9, STEP_WIDTH)
    pvalues = []
    for t in range(9):
        ours, theirs = steps[:, :, t].reshape(-1, 9), single[:, :, t].reshape(-1, 9)
        counts = [[np.count_nonzero(part[:, 0]),
                   np.count_nonzero(part[:, 0] == 0)] for part in (ours, theirs)]
        if np.min(counts) > 0:
            pvalues.append(stats.chi2_contingency(counts).pvalue)
        ours, theirs = ours[ours[:, 0] > 0], theirs[theirs[:, 0] > 0]
        for column in range(9):
            a, b = ours[:, column], theirs[:, column]
            if len(np.unique(b)) == 1:
                assert np.array_equal(np.unique(a), np.unique(b))
            else:
                pvalues.append(stats.ks_2samp(a, b).pvalue)
    assert len(pvalues) > 20 and min(pvalues) > 0.01 / len(pvalues)  # Bonferroni
    orders = [
        np.unique(
            part[:, :, 0][part[:, :, 0, 0] > 0][:, 5:], axis=0, return_counts=True)
        for part in (steps, single)
    ]
    assert np.array_equal(orders[0][0], orders[1][0]) and len(orders[0][0]) == 24
    assert stats.chi2_contingency([orders[0][1], orders[1][1]]).pvalue > 0.01


def test_flips(both):
    made, _, single = both
    assert stats.binomtest(int(made.flips.sum()), 3000).pvalue > 0.01
    assert stats.binomtest(int(single.sum()), 3000).pvalue > 0.01
    assert abs(np.corrcoef(made.flips.numpy().T)[0, 1]) < 0.08  # of both views


def test_steps_views_and_epochs_are_independent():
    """None of the numbers drawn for an image tells anything about another."""
    n = 2000
    views = TwoViews(
        24,
        augment='device',
        transforms=[
            dict(type='simclr_mm.RandomRotation', degrees=20.0),
            dict(
                type='simclr_mm.ColorJitter',
                brightness=1,
                contrast=1,
                saturation=1,
                hue=0.5),
            dict(type='simclr_mm.RandomGaussianNoise'),
        ])
    views.draw_in_batches()
    numbers = []
    for epoch in (0, 1):
        indices = [SampleIndex(i, seed=3, epoch=epoch) for i in range(n)]
        made = views.batch(np.zeros((n, 24, 24, 3), np.uint8), indices)
        steps = made.steps.flatten(2)[..., [1, 10, 11, 12, 13, 19, 20]]
        area = made.boxes[..., 2] * made.boxes[..., 3]
        drawn = np.concatenate((steps, area[..., None], made.flips[..., None]),
                               axis=2)  # (n, V, 9)
        numbers.append(drawn.reshape(n, -1))
    correlations = np.corrcoef(np.hstack(numbers).T)  # (36, 36)
    others = np.abs(correlations[~np.eye(36, dtype=bool)])
    assert others.max() < 4.5 / np.sqrt(n)  # of 630 pairs


@pytest.fixture(scope='module')
def images():
    noise = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)
    return np.stack(
        [cv2.resize(each, (24, 24), interpolation=cv2.INTER_CUBIC) for each in noise])


def batched(**kwargs):
    views = TwoViews(24, transforms=ALL, **kwargs)
    views.draw_in_batches()
    return views


@pytest.mark.portable
def test_a_view_depends_on_nothing_but_seed_epoch_image_and_view(images):
    indices = [SampleIndex(i, seed=3, epoch=1) for i in range(12)]
    whole = batched().batch(images, indices)
    assert whole.shape == (12, 2, 3, 24, 24)
    some = [7, 2, 11]
    part = batched().batch(images[some], [indices[i] for i in some])
    assert np.array_equal(part, whole[some])
    single = batched()(dict(img=images[5], sample_idx=indices[5]))
    assert np.array_equal(single['img'], whole[5])
    assert not np.array_equal(whole[:, 0], whole[:, 1])
    for other in (SampleIndex(5, 4, 1), SampleIndex(5, 3, 2), SampleIndex(6, 3, 1)):
        made = batched().batch(images[5:6], [other])
        assert not np.array_equal(made[0], whole[5])


def test_params_say_what_was_done(images):
    """The worker's functions, given the written parameters, make the view again."""
    views = batched()
    for image in range(6):
        results = views(dict(img=images[image], sample_idx=SampleIndex(image, 1)))
        for v, params in enumerate(results['view_params']):
            top, left, height, width = params['crop']
            view = images[image][top:top + height, left:left + width]
            view = cv2.resize(view, (24, 24), interpolation=cv2.INTER_LINEAR)
            view = view[:, ::-1] if params['flip'] else view
            if image == 0:
                assert set(params) >= {'crop', 'flip', 'ColorJitter', 'RandomCutout'}
            plain = TwoViews(24)
            plain.draw_in_batches()
            first = plain(dict(img=images[image], sample_idx=SampleIndex(image, 1)))
            # Each step has a stream of its own: the crop is that of crops alone.
            assert np.array_equal(first['img'][v], view.transpose(2, 0, 1))
            assert first['view_params'][v]['crop'] == params['crop']


def test_operations_switched_off_are_left_out(images):
    jitter = dict(brightness=0.4, contrast=0.4, saturation=0, hue=0)
    views = TwoViews(24, transforms=[dict(jitter, type='simclr_mm.ColorJitter')])
    views.draw_in_batches()
    for image in range(12):
        results = views(dict(img=images[image], sample_idx=SampleIndex(image)))
        for params in results['view_params']:
            assert sorted(params['ColorJitter']) == ['brightness', 'contrast']


def test_each_view_may_have_its_own_pipeline(images):
    views = TwoViews(24, num_views=3, transforms=[[COLOR], [], ALL])
    views.draw_in_batches()
    indices = [SampleIndex(i) for i in range(12)]
    made = views.batch(images, indices)
    plain = TwoViews(24, num_views=3)
    plain.draw_in_batches()
    assert np.array_equal(made[:, 1], plain.batch(images, indices)[:, 1])
    assert not np.array_equal(made[:, 0], plain.batch(images, indices)[:, 0])


def test_plain_indices_give_fresh_views(images, caplog):
    views = batched()
    assert not np.array_equal(
        views.batch(images, range(12)), views.batch(images, range(12)))


def test_what_cannot_run_on_batches_is_named():
    views = TwoViews(24, transforms=[COLOR, dict(type='mmpretrain.Solarize', thr=128)])
    with pytest.raises(ValueError, match='Solarize cannot run on whole batches'):
        views.draw_in_batches()
    with pytest.raises(ValueError, match=r'RandomCropAndFlip\(size=16\)'):
        TwoViews(24, transforms=[dict(type='simclr_mm.RandomCropAndFlip', size=16)])
