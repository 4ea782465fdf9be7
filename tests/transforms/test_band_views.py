"""Views of images with any number of bands, uint8 or float32, against calculations band by band."""

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.datasets.transforms import PackInputs
from PIL import Image
from scipy import ndimage

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS
from simclr_mm.transforms import LoadBands, LoadImageFromFile, TwoViews
from simclr_mm.transforms.batched import ViewsToMake
from simclr_mm.transforms.crop import resized_crop

BLUR = dict(type='simclr_mm.RandomGaussianBlur', kernel=5)
TURN = dict(type='simclr_mm.RandomRotation', degrees=20.0, prob=0.7)
QUARTER = dict(type='simclr_mm.RandomRotation')
CROP = dict(type='simclr_mm.RandomCropAndFlip', prob=0.5)
GEOMETRY = [QUARTER, TURN, CROP, BLUR]
KINDS = [(bands, dtype) for bands in (1, 2, 4, 12) for dtype in ('uint8', 'float32')]


def image(bands, dtype, height=21, width=34, seed=0):
    """16-bit values in float32, with negative ones."""
    rng = np.random.default_rng(seed)
    if dtype == 'uint8':
        return rng.integers(0, 256, (height, width, bands)).astype(np.uint8)
    return rng.integers(-1000, 65536, (height, width, bands)).astype(np.float32)


def index(i):
    return SampleIndex(i, seed=3, epoch=1)


def restored(results):
    return ViewsToMake.restored(default_collate([PackInputs()(each) for each in results])['inputs'])


def on_device(drawn):
    """(n, V, C, S, S), bands in the order of the images."""
    images = drawn.images.flatten(0, -4).permute(0, 3, 1, 2).flip(1)
    return drawn.make(images.contiguous()).flip(1).unflatten(0, drawn.steps.shape[:2])


@pytest.mark.parametrize('bands,dtype', KINDS)
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_a_crop_is_that_of_pillow_band_by_band(bands, dtype, interpolation):
    img = image(bands, dtype)
    how = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)
    for box, size in (((2, 3, 18, 30), 8), ((4, 5, 6, 9), 16), ((0, 0, 21, 34), 20)):
        top, left, h, w = box
        ours = resized_crop(img, box, size, interpolation, flip=True)
        assert ours.shape == (size, size, bands) and ours.dtype == dtype
        for band in range(bands):
            cut = img[top : top + h, left : left + w, band]
            theirs = Image.fromarray(cut).resize((size, size), how[interpolation])
            wrong = np.abs(ours[:, ::-1, band].astype(float) - np.asarray(theirs))
            # Half a level each, or a millionth of the largest value.
            assert wrong.max() <= (1 if dtype == 'uint8' else 0.1)


def float64_view(img, params, size):
    """The steps of GEOMETRY in float64, from what was drawn."""
    side = np.arange(size)
    top, left, h, w = params['crop']
    bands = []
    for band in np.moveaxis(img, 2, 0):
        cut = Image.fromarray(band[top : top + h, left : left + w])
        view = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR), np.float64)
        if params['flip']:
            view = view[:, ::-1]
        turn = params['RandomRotation']
        if turn is not None:
            angle, centre = np.deg2rad(turn['degrees']), (size - 1) / 2
            y, x = np.meshgrid(side - centre, side - centre, indexing='ij')
            rows = x * np.sin(angle) + y * np.cos(angle) + centre
            columns = x * np.cos(angle) - y * np.sin(angle) + centre
            view = ndimage.map_coordinates(view, [rows, columns], order=1, mode='nearest')
        blur = params['RandomGaussianBlur']
        if blur is not None:
            distance = np.arange(-2, 3)
            distance = distance[np.abs(distance) <= np.ceil(4 * blur['sigma'])]
            taps = np.exp(-0.5 * (distance / blur['sigma']) ** 2)
            for axis in (0, 1):
                view = ndimage.correlate1d(view, taps / taps.sum(), axis, mode='mirror')
        bands.append(view)
    return np.stack(bands)  # (C, S, S)


@pytest.mark.parametrize('bands', [1, 12])
def test_float32_views_are_not_rounded_or_clipped(bands):
    views = TwoViews(16, transforms=[TURN, BLUR])
    for i in range(8):
        img = image(bands, 'float32', seed=i)
        results = views(dict(img=img, sample_idx=index(i)))
        for view, params in zip(results['img'], results['view_params']):
            expected = float64_view(img, params, 16)
            assert view.dtype == np.float32
            assert np.abs(view - expected).max() < 0.5  # 1e-5 of the range


@pytest.mark.parametrize('bands,dtype', KINDS)
def test_one_view_by_four_ways(bands, dtype):
    """Worker or device, an image alone or in a batch."""
    n, size = 6, 16
    images = np.stack([image(bands, dtype, seed=i) for i in range(n)])
    worker, device = (TwoViews(size, transforms=GEOMETRY, augment=a) for a in ('worker', 'device'))
    singles = [dict(img=img, sample_idx=index(i)) for i, img in enumerate(images)]
    alone = restored([worker(dict(single)) for single in singles])
    assert alone.shape == (n, 2, bands, size, size) and str(alone.dtype) == f'torch.{dtype}'
    indices = [index(i) for i in range(n)]
    assert torch.equal(worker.batch(images, indices), alone)
    carrier = restored([device(dict(single)) for single in singles])
    assert type(carrier) is ViewsToMake
    made, whole = on_device(carrier), on_device(device.batch(images, indices))
    if dtype == 'uint8':
        assert torch.equal(made, alone)
        # The crop of a whole batch may round one value in another way.
        assert (whole.float() - alone.float()).abs().mean() < 0.05
    else:
        assert (made - alone).abs().max() < 0.2  # 3e-6 of the range
        assert (whole - alone).abs().max() < 0.5


def test_each_band_is_made_as_a_colour():
    """Twelve bands of uint8 are four colour images. The angles of OpenCV are less exact."""
    img = image(12, 'uint8', 40, 40)
    views = TwoViews(16, transforms=[QUARTER, BLUR])
    together = views(dict(img=img, sample_idx=index(0)))['img']
    for k in range(0, 12, 3):
        colour = np.ascontiguousarray(img[..., k : k + 3])
        alone = views(dict(img=colour, sample_idx=index(0)))['img']
        wrong = np.abs(alone.astype(int) - together[:, k : k + 3])
        assert wrong.max() <= 1 and wrong.mean() < 0.05


COLOURS = [
    (dict(type='simclr_mm.ColorDistortion'), 'ColorJitter needs .*: write simclr_mm.BandJitter'),
    (dict(type='simclr_mm.RandomGrayscale'), 'RandomGrayscale needs'),
    (dict(type='simclr_mm.RandomSobel'), 'RandomSobel needs .*: leave it out'),
    (dict(type='simclr_mm.RandomCutout'), 'RandomCutout needs'),
    (dict(type='simclr_mm.RandomGaussianNoise'), 'RandomGaussianNoise .*: write .*BandNoise'),
    (
        dict(type='mmpretrain.Solarize', thr=128, prob=1.0),
        'Solarize needs .*: write simclr_mm.BandJitter',
    ),
    (dict(type='mmpretrain.ColorJitter', hue=0.1), 'ColorJitter needs'),
]


@pytest.mark.parametrize('transform,message', COLOURS)
@pytest.mark.parametrize('bands,dtype', [(4, 'uint8'), (3, 'float32')])
def test_operations_on_colours_refuse_other_images_by_name(transform, message, bands, dtype):
    views = TwoViews(16, transforms=[transform])
    for make in (
        lambda img: views(dict(img=img, sample_idx=index(0))),
        lambda img: views.batch(img[None], [index(0)]),
    ):
        with pytest.raises(ValueError, match=f'{message}') as caught:
            make(image(bands, dtype))
        assert f'{bands} of {dtype}' in str(caught.value) and '\n' not in str(caught.value)
    views(dict(img=image(3, 'uint8'), sample_idx=index(0)))  # these it takes


@pytest.mark.parametrize('scope', ['simclr_mm', 'mmpretrain'])
def test_three_bands_in_the_order_of_a_file_are_no_colours(scope, tmp_path):
    jitter = dict(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1)
    views = TwoViews(16, transforms=[dict(type=f'{scope}.ColorJitter', **jitter)])
    Image.fromarray(image(3, 'uint8')).save(tmp_path / 'a.png')
    for loading in (LoadImageFromFile(), LoadBands()):
        results = loading(dict(img_path=str(tmp_path / 'a.png'), sample_idx=index(0)))
        if isinstance(loading, LoadBands):
            with pytest.raises(UserError, match='ColorJitter needs BGR, and simclr_mm.LoadBands'):
                views(results)
        else:
            views(results)


@pytest.mark.parametrize('bands,dtype', [(1, 'float32'), (4, 'uint8'), (12, 'float32')])
def test_an_edge_is_resized_as_by_pillow(bands, dtype):
    img = image(bands, dtype, 21, 34)
    resize = TRANSFORMS.build(dict(type='simclr_mm.ResizeEdge', scale=10, interpolation='bicubic'))
    results = resize(dict(img=img))
    assert results['img'].shape == (10, 16, bands) and results['img'].dtype == dtype
    assert results['img_shape'] == (10, 16) and results['scale'] == (16, 10)
    for band in range(bands):
        theirs = Image.fromarray(img[..., band]).resize((16, 10), Image.Resampling.BICUBIC)
        wrong = np.abs(results['img'][..., band].astype(float) - np.asarray(theirs))
        assert wrong.max() <= (1 if dtype == 'uint8' else 0.1)
    area = TRANSFORMS.build(dict(type='simclr_mm.ResizeEdge', scale=10, interpolation='area'))
    with pytest.raises(ValueError, match="one of .*'bicubic'.*, not 'area'"):
        area(dict(img=img))
    colours = image(3, 'uint8', 21, 34)
    ours, theirs = (
        TRANSFORMS.build(dict(type=f'{scope}.ResizeEdge', scale=10, backend='pillow'))
        for scope in ('simclr_mm', 'mmpretrain')
    )
    assert np.array_equal(ours(dict(img=colours))['img'], theirs(dict(img=colours))['img'])


def test_images_of_one_sample_must_be_alike():
    images = dict(img=image(4, 'uint8'), imgs=[None, image(3, 'uint8')], sample_idx=index(0))
    with pytest.raises(ValueError, match='two images of one sample must have one type and number'):
        TwoViews(16)(images)


def test_alone_a_step_takes_squares_and_a_crop_takes_all():
    img = image(4, 'float32')
    blur, crop = map(TRANSFORMS.build, (dict(BLUR, prob=1), dict(CROP, size=9, prob=1)))
    with pytest.raises(ValueError, match='must be a square here, got 21 x 34'):
        blur(dict(img=img))
    assert crop(dict(img=img))['img'].shape == (9, 9, 4)
    constant = np.full((9, 9, 2), (70000.5, -3.25), np.float32)
    assert np.allclose(blur(dict(img=constant))['img'], constant, rtol=1e-6)
