import cv2
import numpy as np

from simclr_mm.visualization import plot_report


def test_report_shows_the_views_in_their_colours(tmp_path):
    rng = np.random.default_rng(0)
    views = np.zeros((3, 2, 16, 16, 3), np.uint8)
    views[..., 0] = 255  # red, RGB
    path = tmp_path / 'new' / 'report.png'
    plot_report(
        str(path),
        [dict(step=i, loss=5 - i, chance=6.0) for i in range(4)],
        views,
        features=rng.normal(size=(60, 4)),
        labels=rng.integers(0, 3, 60),
        classes=('a', 'b', 'c'),
        title='a run',
        shown='features',
    )
    picture = cv2.imread(str(path))  # BGR
    assert picture.shape[1] > 1000
    red = (picture == [0, 0, 255]).all(axis=-1)
    assert red.sum() > 0.02 * red.size
