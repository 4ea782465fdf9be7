"""The picture of views shows what training sees, and says what was drawn."""

import numpy as np
import pytest
from matplotlib.image import imread
from mmengine.config import Config
from PIL import Image

from simclr_mm.commands.browse_views import main
from simclr_mm.commands.evaluate.image_features import training_set
from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import ImageList, ReplaceUnreadable, SampleIndex
from simclr_mm.transforms import UnreadableImage
from simclr_mm.visualization.gallery import thumbnail
from simclr_mm.visualization.views import (
    Views,
    _show_original,
    _show_view,
    describe,
    make_views,
    plot_views,
)

PIPELINE = [
    dict(type='simclr_mm.LoadImageFromFile'),
    dict(
        type='simclr_mm.TwoViews',
        size=8,
        num_views=3,
        transforms=[dict(type='simclr_mm.ColorDistortion', strength=0.5)],
    ),
    dict(type='PackInputs'),
]


def build(folder, pipeline):
    data = dict(type='simclr_mm.ImageFolder', data_root=str(folder), pipeline=pipeline)
    return training_set(Config(dict(train_dataloader=dict(dataset=data))))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight images of coloured noise, 9 x 12 pixels."""
    folder = tmp_path_factory.mktemp('views')
    rng = np.random.default_rng(0)
    for k in range(8):
        pixels = rng.integers(0, 256, (12, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{k}.png')
    return folder


@pytest.fixture(scope='module')
def dataset(folder):
    return build(folder, PIPELINE)


def test_the_views_are_those_of_training(dataset, folder):
    sample = make_views(dataset, 5, seed=1, epoch=2)
    trained = dataset[SampleIndex(5, 1, 2)]['inputs'].numpy()  # (V, 3, S, S) BGR
    assert sample.views.shape == (3, 8, 8, 3)
    for v in range(3):
        for channel in range(3):
            np.testing.assert_array_equal(sample.views[v, ..., channel], trained[v, 2 - channel])
    original = np.asarray(Image.open(folder / '5.png'))
    np.testing.assert_array_equal(sample.original, original)
    top, left, height, width = sample.params[0]['crop']
    assert 0 <= top <= 12 - height and 0 <= left <= 9 - width


def test_views_that_the_device_augments_are_shown_too(dataset, folder):
    pipeline = [dict(transform) for transform in PIPELINE]
    pipeline[1]['augment'] = 'device'
    on_device = build(folder, pipeline)
    shown, expected = (make_views(each, 5, seed=1) for each in (on_device, dataset))
    np.testing.assert_array_equal(shown.views, expected.views)
    assert shown.params == expected.params
    assert isinstance(on_device[SampleIndex(5)]['inputs'], list)  # still left to it


def test_transforms_of_other_packages_draw_as_in_training(folder):
    crop = dict(type='RandomResizedCrop', scale=9)
    pipeline = [PIPELINE[0], crop, *PIPELINE[1:]]
    dataset = build(folder, pipeline)
    sample = make_views(dataset, 5, seed=1, epoch=2)
    trained = ReplaceUnreadable(dataset)[SampleIndex(5, 1, 2)]['inputs'].numpy()
    np.testing.assert_array_equal(sample.views[..., ::-1].transpose(0, 3, 1, 2), trained)


@pytest.mark.parametrize('kind', ['a pack', 'a group'])
def test_views_of_packs_and_of_groups_are_those_of_training(folder, tmp_path, kind):
    if kind == 'a pack':
        pack_folder(str(folder), tmp_path / 'pack', PackSettings('tar'), labelled=False)
        data = dict(type='simclr_mm.TarShards', data_root=str(tmp_path / 'pack'), with_label=False)
    else:
        rows = [f'{folder}/{k}.png,a' for k in range(8)]
        (tmp_path / 'table.csv').write_text('\n'.join(['path,group', *rows]))
        places = [str(tmp_path / 'table.csv')]
        data = dict(type='simclr_mm.ImageList', places=places, positives='group')
    train = dict(dataset=dict(data, pipeline=PIPELINE))
    dataset = training_set(Config(dict(train_dataloader=train)))
    sample = make_views(dataset, 5, seed=1, epoch=2)
    trained = dataset[SampleIndex(5, 1, 2)]['inputs'].numpy()  # (V, 3, S, S) BGR
    np.testing.assert_array_equal(sample.views[..., ::-1].transpose(0, 3, 1, 2), trained)


def test_what_is_said_of_a_view():
    params = dict(
        crop=(3, 16, 11, 14),
        flip=True,
        ColorJitter=dict(hue=-0.125, contrast=1.0, saturation=0.5, brightness=2.0),
        RandomGrayscale={},
        RandomGaussianBlur=None,
        RandomRotation=dict(degrees=90),
    )
    assert describe(params) == [
        'crop 14 x 11 px at (16, 3), flipped',
        'hue -0.12, contrast 1.00',
        'saturation 0.50, brightness 2.00',
        'Grayscale',
        'Rotation degrees 90',
    ]
    assert describe(dict(crop=(0, 0, 1, 1), flip=False, ColorJitter=None)) == [
        'crop 1 x 1 px at (0, 0)',
        'nothing else',
    ]


def test_the_picture(dataset, tmp_path):
    samples = [make_views(dataset, row, seed=0) for row in (0, 1)]
    plot_views(str(tmp_path / 'new' / 'views.png'), samples, 'title')
    height, width = imread(tmp_path / 'new' / 'views.png').shape[:2]
    assert width > 900 and height > 600


def test_what_has_no_views(dataset, folder):
    with pytest.raises(ValueError, match='no image 8: the dataset has images 0 to 7'):
        make_views(dataset, 8, seed=0)
    plain = build(folder, PIPELINE[:1])
    with pytest.raises(ValueError, match='has no simclr_mm.TwoViews'):
        make_views(plain, 0, seed=0)


def test_a_broken_file_is_named_and_another_drawn(folder, tmp_path, capsys):
    data = tmp_path / 'data'
    data.mkdir()
    for k in range(6):
        content = (folder / f'{k}.png').read_bytes()
        (data / f'{k}.png').write_bytes(content[: 40 if k % 2 else None])
    pipeline = [dict(PIPELINE[0], ignore_empty=True), *PIPELINE[1:]]
    with pytest.raises(UnreadableImage, match='image 1 .*1.png'):
        make_views(build(data, pipeline), 1, seed=0)
    config = Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(
                dataset=dict(type='simclr_mm.ImageFolder', data_root=str(data), pipeline=PIPELINE)
            ),
        )
    )
    config.dump(tmp_path / 'config.py')
    main([str(tmp_path / 'config.py'), '--count', '3', '--out', str(tmp_path / 'views.png')])
    said = capsys.readouterr().out
    assert 'views of images ' in said
    shown = said.rsplit('views of images ', 1)[1].rstrip('.\n').split(', ')
    assert set(shown) == {'0', '2', '4'}
    named = [line for line in said.splitlines() if 'is left out' in line]
    assert named and all('.png' in line for line in named)
    with pytest.raises(SystemExit, match='5.png'):
        main([str(tmp_path / 'config.py'), '--index', '5', '--out', str(tmp_path / 'views.png')])


def test_views_that_grow_are_said_to(folder, tmp_path, capsys):
    views = dict(PIPELINE[1], size=[6, 8], milestones=[3])
    pipeline = [PIPELINE[0], views, PIPELINE[2]]
    data = dict(type='simclr_mm.ImageFolder', data_root=str(folder), pipeline=pipeline)
    train = dict(dataset=data)
    config = Config(dict(default_scope='mmpretrain', train_dataloader=train))
    config.dump(tmp_path / 'config.py')
    out = ['--index', '2', '--out', str(tmp_path / 'views.png')]
    main([str(tmp_path / 'config.py'), *out])
    shown, grow = capsys.readouterr().out.splitlines()[-2:]
    assert shown.endswith('shows the views of images 2.')
    assert grow == 'The views grow: those of 8 px begin with --epoch 3.'
    dataset = build(folder, pipeline)
    assert [make_views(dataset, 2, 0, epoch).views.shape[1] for epoch in (2, 3)] == [6, 8]


def test_bands_are_stretched_for_looking_only(tmp_path, capsys):
    """Five bands of 16 bits, of which three are shown between the percentiles of the image."""
    rng = np.random.default_rng(0)
    img = rng.integers(0, 4000, (20, 16, 5)).astype(np.uint16)
    np.save(tmp_path / 'a.npy', img)
    jitter = dict(type='simclr_mm.BandJitter', std=[1000.0] * 5, prob=1.0)
    views = dict(PIPELINE[1], size=16, scale=(1, 1), ratio=(0.8, 0.8), transforms=[jitter])
    pipeline = [dict(type='simclr_mm.LoadBands'), views, PIPELINE[2]]
    dataset = build(tmp_path, pipeline)
    for bands, chosen in ((None, (0, 1, 2)), ((4, 0, 3), (4, 0, 3)), ((1,), (1, 1, 1))):
        sample = make_views(dataset, 0, seed=1, bands=bands)
        assert sample.views.shape == (3, 16, 16, 3) and sample.views.dtype == np.uint8
        trained = dataset[SampleIndex(0, 1, 0)]['inputs'].numpy()  # (V, C, S, S)
        for channel, band in enumerate(chosen):
            low, high = np.percentile(img[..., band], (1, 99))
            for shown, values in (
                (sample.original, img),
                (sample.views[1], trained[1].transpose(1, 2, 0)),
            ):
                expected = np.clip((values[..., band].astype(float) - low) / (high - low), 0, 1)
                assert np.abs(shown[..., channel] - 255 * expected).max() <= 0.5
    assert 'BandJitter' not in describe(sample.params[0])[0]
    assert any(' to ' in line for line in describe(sample.params[0]))
    with pytest.raises(ValueError, match=r'bands \[0, 5, 1\] of an image with 5 band'):
        make_views(dataset, 0, seed=1, bands=(0, 5, 1))
    small = thumbnail(str(tmp_path / 'a.npy'), 40)
    assert small.shape == (40, 32, 3) and small.min() == 0 and small.max() == 255


def test_a_view_of_another_image_has_no_box_on_this_one():
    from matplotlib.figure import Figure

    crop = dict(crop=(0, 0, 4, 4), flip=False)
    original, views = np.zeros((8, 8, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    for others, boxes in ((frozenset(), 2), (frozenset({1}), 1)):
        axes = Figure().subplots(1, 2)
        sample = Views(0, original, views, [crop, crop], others=others)
        _show_original(axes[0], sample)
        _show_view(axes[1], sample, 1)
        assert len(axes[0].patches) == boxes
        assert (', of another image' in axes[1].get_title()) == bool(others)


def test_an_image_alone_in_its_group_is_shown_with_its_own_box(folder, tmp_path):
    files = sorted(folder.rglob('*.png'))[:3]
    rows = [f'{files[0]},a', f'{files[1]},a', f'{files[2]},']
    (tmp_path / 'groups.csv').write_text('\n'.join(['path,group', *rows]))
    steps = [
        dict(type='simclr_mm.LoadImageFromFile'),
        dict(type='simclr_mm.TwoViews', size=8),
        dict(type='PackInputs'),
    ]
    data = ImageList([str(tmp_path / 'groups.csv')], steps, positives='group')
    assert [make_views(data, row, 0).others for row in range(3)] == [{1}, {1}, set()]
