"""Jitter, noise and drop of bands, against float64 loops over bands, and by four ways."""

import numpy as np
import pytest
import torch
from scipy import stats

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.models import ViewsPreprocessor
from simclr_mm.transforms import BandDrop, BandJitter, BandNoise, TwoViews

KINDS = [(1, 'float32'), (2, 'uint8'), (3, 'uint8'), (12, 'float32'), (200, 'float32')]


def images_of(bands, dtype, n=6, side=17):
    rng = np.random.default_rng(bands)
    levels = 256 if dtype == 'uint8' else 65536
    return rng.integers(0, levels, (n, side, side, bands)).astype(dtype)


def steps_of(bands, dtype):
    std = [5.0 + band * (1 if dtype == 'uint8' else 1000) for band in range(bands)]
    steps = [
        dict(type='simclr_mm.BandJitter', std=std, brightness=0.8, contrast=0.5, gain=0.2),
        dict(type='simclr_mm.BandJitter', std=std, shared=True, prob=0.5),
    ]
    if bands > 1:
        fill = [float(band) for band in range(bands)]
        most = max(1, bands // 2)
        steps.append(dict(type='simclr_mm.BandDrop', fill=fill, count=(1, most), prob=0.7))
    return steps


def levels(values, dtype):
    return np.clip(np.floor(values + 0.5), 0, 255) if dtype == 'uint8' else values


def float64_view(img, params, dtype):
    """(C, S, S) of the steps of ``steps_of``, from what was drawn for a view that is not cropped.

    ``params`` has the last of two steps of one class, so the first is given by itself.
    """
    view = img[:, ::-1] if params['flip'] else img
    made = []
    for band in range(img.shape[2]):
        x = view[..., band].astype(np.float64)
        jitter = params['BandJitter']
        if jitter is not None:
            g, c, b = (jitter[key][band] for key in ('gain', 'contrast', 'brightness'))
            x = levels(g * (x.mean() + c * (x - x.mean())) + b, dtype)
        drop = params.get('BandDrop')
        if drop is not None and drop['dropped'][band]:
            x = np.full_like(x, drop['fill'][band])
        made.append(x)
    return np.stack(made)


@pytest.mark.parametrize('bands,dtype', KINDS)
def test_bands_by_four_ways_and_by_hand(bands, dtype):
    """Worker or device, an image alone or in a batch. Nothing is resized."""
    images = images_of(bands, dtype)
    n, side = images.shape[:2]
    indices = [SampleIndex(i, seed=2) for i in range(n)]
    plain = ViewsPreprocessor([0.0] * bands, [1.0] * bands, to_rgb=False)
    first, *others = steps_of(bands, dtype)
    for steps in ([first, *others[1:]], [others[0]]):
        made = {}
        for where in ('worker', 'device'):
            views = TwoViews(side, scale=(1, 1), ratio=(1, 1), transforms=steps, augment=where)
            batch = views.batch(images, indices)
            made[where] = plain(dict(inputs=batch))['inputs']
        singles = [views.transform(dict(img=images[i], sample_idx=indices[i])) for i in range(n)]
        largest = float(made['worker'].abs().max())
        assert (made['worker'] - made['device']).abs().max() <= 1e-6 * largest * (dtype != 'uint8')
        applied = 0
        for i, single in enumerate(singles):
            for v, params in enumerate(single['view_params']):
                applied += params['BandJitter'] is not None
                expected = float64_view(images[i], params, dtype)
                ours = made['worker'][i, v].numpy().astype(np.float64)
                wrong = np.abs(ours - expected)
                # uint8: a value within float32's error of a half may fall to the other side.
                assert (wrong.mean() < 1e-2) if dtype == 'uint8' else (wrong.max() < 1e-6 * largest)
        assert 0 < applied
        views = TwoViews(side, scale=(1, 1), ratio=(1, 1), transforms=steps)
        for i in range(n):
            alone = views(dict(img=images[i], sample_idx=indices[i]))['img']
            assert alone.dtype == dtype
            assert np.array_equal(made['worker'][i].numpy(), alone.astype(np.float32))


def test_what_is_drawn():
    """Ranges, shares and numbers of bands are the configured ones; shared ones are equal."""
    std = [1.0, 10.0, 100.0]
    jitter = dict(type='simclr_mm.BandJitter', std=std, brightness=0.5, contrast=0.2, gain=0.1)
    drop = dict(type='simclr_mm.BandDrop', fill=[0.0] * 3, count=(1, 2), prob=1)
    views = TwoViews(4, transforms=[[dict(jitter, prob=1)], [dict(jitter, shared=True), drop]])
    img = np.zeros((4, 4, 3), np.float32)
    drawn = [views(dict(img=img, sample_idx=SampleIndex(i)))['view_params'] for i in range(600)]
    own = [params[0]['BandJitter'] for params in drawn]
    for key, low, high in (('gain', 0.9, 1.1), ('contrast', 0.8, 1.2), ('brightness', -0.5, 0.5)):
        values = np.array([each[key] for each in own]) / (std if key == 'brightness' else 1)
        for band in range(3):
            assert stats.kstest(values[:, band], 'uniform', (low, high - low)).pvalue > 0.003
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.15
    shared = [params[1]['BandJitter'] for params in drawn if params[1]['BandJitter']]
    assert stats.binomtest(len(shared), 600, 0.8).pvalue > 0.01
    for each in shared:
        assert len(set(each['gain'])) == len(set(each['contrast'])) == 1
        assert np.allclose(np.array(each['brightness']) / std, each['brightness'][0])
    dropped = np.array([params[1]['BandDrop']['dropped'] for params in drawn])  # (600, 3)
    counts = np.bincount(dropped.sum(1), minlength=4)
    assert counts[0] == counts[3] == 0
    assert stats.binomtest(int(counts[1]), 600, 0.5).pvalue > 0.01
    assert stats.chisquare(dropped.sum(0)).pvalue > 0.01


def test_noise_is_as_strong_as_each_band_asks():
    std, n, side = [2.0, 2000.0], 8, 64
    noise = dict(type='simclr_mm.BandNoise', std=std, strength=(0.1, 0.5), prob=1.0)
    images = np.full((n, side, side, 2), 30000, np.float32)
    indices = [SampleIndex(i) for i in range(n)]
    worker = TwoViews(side, scale=(1, 1), ratio=(1, 1), transforms=[noise])
    made = worker.batch(images, indices).numpy() - 30000  # (n, V, C, S, S)
    for i in range(n):
        alone = worker(dict(img=images[i], sample_idx=indices[i]))
        assert np.array_equal(alone['img'] - np.float32(30000), made[i])
        for v, params in enumerate(alone['view_params']):
            for band in range(2):
                drawn, found = params['BandNoise']['std'][band], made[i, v, band].std()
                assert 0.1 * std[band] <= drawn < 0.5 * std[band]
                assert abs(found / drawn - 1) < 0.05  # 4096 values: 1.1 % is one sigma
    flat = made.reshape(n * 4, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(n * 4)).max() < 0.08
    device = TwoViews(side, scale=(1, 1), ratio=(1, 1), transforms=[noise], augment='device')
    levels = ViewsPreprocessor([30000.0] * 2, [1.0] * 2, to_rgb=False)
    there = levels(dict(inputs=device.batch(images, indices)))['inputs'].numpy()
    assert np.allclose(there.std((3, 4)) / made.std((3, 4)), 1, atol=0.08)


def test_colours_are_bgr_on_the_device_too():
    """Numbers for blue, green and red reach them, though the device has RGB."""
    img = np.zeros((1, 4, 4, 3), np.uint8)
    drop = dict(type='simclr_mm.BandDrop', fill=[10.0, 20.0, 30.0], count=(2, 2), prob=1.0)
    gray = dict(type='simclr_mm.ColorJitter', brightness=0, contrast=0, saturation=0, hue=0)
    index = [SampleIndex(5)]
    made = []
    for where in ('worker', 'device'):
        views = TwoViews(4, transforms=[gray, drop], augment=where)
        inputs = dict(inputs=views.batch(img, index))
        made.append(ViewsPreprocessor([0.0] * 3, [1.0] * 3)(inputs)['inputs'])
    assert torch.equal(*made)
    dropped = views(dict(img=img[0], sample_idx=index[0]))['view_params'][0]['BandDrop']['dropped']
    expected = [value * bool(gone) for value, gone in zip((30, 20, 10), dropped[::-1])]
    assert made[0][0, 0, :, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    'make,message',
    [
        (lambda: BandJitter([]), r'std must be a list of finite numbers, .* got \[\]'),
        (lambda: BandJitter(3.0), 'one for each band, got 3.0'),
        (lambda: BandJitter([1.0, 0.0]), 'std must be above 0'),
        (lambda: BandJitter([1.0], contrast=-1), 'contrast must be >= 0, got -1'),
        (lambda: BandNoise([1.0], strength=0.1), 'strength must be a pair'),
        (lambda: BandDrop([0.0, float('nan')]), 'fill must be a list of finite numbers'),
        (lambda: BandDrop([0.0, 0.0], count=(1, 2)), 'count must be a pair .* <= 1'),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_number_of_bands_is_named():
    views = TwoViews(8, transforms=[dict(type='simclr_mm.BandJitter', std=[1.0] * 12)])
    with pytest.raises(ValueError, match='std has 12 numbers, but the image has 4 band'):
        views(dict(img=np.zeros((8, 8, 4), np.float32), sample_idx=SampleIndex(0)))
