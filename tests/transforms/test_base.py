"""What all random transforms share: image checks and where randomness comes from."""

import numpy as np
import pytest

from simclr_mm.transforms import ColorDistortion, RandomGaussianBlur, RandomSobel

IMG = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    'img,message',
    [
        (IMG[..., 0], r'RandomSobel: .* got uint8 of shape \(16, 16\).*COLOR_GRAY2BGR'),
        (IMG.astype(np.float32), r'must be uint8 BGR .* got float32'),
        (np.dstack([IMG, IMG[..., :1]]), r'shape \(16, 16, 4\)'),
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


def test_nothing_is_recorded_unless_asked():
    assert set(RandomSobel()(dict(img=IMG))) == {'img', 'img_shape'}
