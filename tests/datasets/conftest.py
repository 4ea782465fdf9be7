"""Photographs that were never taken, in class folders."""

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """26 JPEGs of several sizes in ``<class>/``, smooth so that they compress."""
    root = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for i in range(26):
        height, width = 60 + i, 90 - i
        noise = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        # The class folders are not in the order in which they are written.
        path = root / ('dog', 'cat', 'a bird')[i % 3] / f'photo {i:02d}.JPEG'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode('.jpg', image)[1].tobytes())
    return root
