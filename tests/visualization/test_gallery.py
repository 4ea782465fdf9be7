"""The gallery shows every image with its rank, similarity and name."""

from unittest.mock import patch

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from simclr_mm.errors import MissingPackageError
from simclr_mm.visualization import gallery
from simclr_mm.visualization.gallery import plot_gallery, seen, thumbnail


def test_thumbnails_keep_shape_and_colour(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    for image in (pixels, str(tmp_path / 'a.png')):
        for side in (20, 160):
            small = thumbnail(image, side)
            assert small.shape == (side // 2, side, 3)
            assert (small == [200, 0, 0]).all()


def test_deep_images_are_stretched(tmp_path):
    """Twelve of 16 bits: their highest eight are nearly black."""
    grey = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), grey)
    shown = seen(str(tmp_path / 'a.png'))
    assert shown.dtype == np.uint8 and shown.min() == 0 and shown.max() == 255
    with patch.object(gallery, 'LoadBands', side_effect=MissingPackageError('needs tifffile')):
        assert seen(str(tmp_path / 'a.png')).max() == 15  # its highest 8 bits
    np.save(tmp_path / 'cube.npy', np.random.default_rng(0).random((16, 16, 16), np.float32))
    assert seen(str(tmp_path / 'cube.npy')).shape == (16, 16, 3)


def test_what_is_written_under_each_image(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, *_, **__: figures.append(self))
    paths = []
    for k in range(4):
        paths.append(str(tmp_path / f'{k}.png'))
        Image.new('RGB', (9, 9 + k)).save(paths[-1])
    long = 'folder/' + 'x' * 15 + '-' * 15 + 'y' * 15 + '.png'
    plot_gallery(
        str(tmp_path / 'out.png'),
        paths[:2],
        [['a/b/c.png', long], ['d.png', 'e.png']],
        [paths[2:], paths[:2]],
        [[0.91234, 0.5], [0.4, -0.25]],
        'title',
    )
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == [
        'query',
        '1.  cos 0.912',
        '2.  cos 0.500',
        'query',
        '1.  cos 0.400',
        '2.  cos -0.250',
    ]
    labels = [axes.get_xlabel() for axes in figures[0].axes]
    assert labels[1] == 'b\nc.png' and labels[4:] == ['d.png', 'e.png']
    assert labels[2] == f'folder\n{"x" * 10}...{"y" * 6}.png'
