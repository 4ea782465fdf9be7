import numpy as np
import pytest
from scipy import stats

from simclr_mm.transforms.random_streams import RandomStreams, philox4x32

WORDS = 2**32 - 1


# The known answers that the authors' library Random123 ships with philox4x32-10.
@pytest.mark.parametrize('counter,key,expected', [
    ([0] * 4, [0] * 2, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
    ([WORDS] * 4, [WORDS] * 2, [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
    ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344
      ], [0xa4093822, 0x299f31d0], [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]),
])
def test_known_answers(counter, key, expected):
    counters = np.array([[0, word] for word in counter], np.uint64)
    keys = np.array([[7, word] for word in key], np.uint64)
    assert philox4x32(counters, keys)[:, 1].tolist() == expected


def streams(images, seed=5, epoch=2, view=0, step=0):
    return RandomStreams([seed] * len(images), [epoch] * len(images), images, view,
                         step)


def test_numbers_are_a_function_of_their_address():
    numbers = np.stack([s.random() for s in [streams(range(100))] for _ in range(30)])
    few = streams([70, 3])
    again = np.stack([few.random() for _ in range(30)])
    assert np.array_equal(again, numbers[:, [70, 3]])
    drawn = {
        tuple(streams([3], **where).random())
        for where in (dict(), dict(seed=6), dict(seed=5 + 2**32), dict(epoch=3),
                      dict(view=1), dict(step=1))
    }
    assert len(drawn) == 6
    assert len(np.unique(numbers)) == numbers.size


def test_some_streams_go_on_where_all_were():
    whole, chosen = streams(range(9)), np.arange(9) % 2 == 0
    for drawn_before in range(14):  # in the middle of a block and at its end
        some = whole.of(chosen)
        assert np.array_equal(some.random(), whole.random()[chosen]), drawn_before
    assert len(some) == 5


def test_distributions():
    many = streams(range(4000))
    numbers = np.concatenate([many.uniform(-2, 3) for _ in range(5)])
    assert stats.kstest(numbers, 'uniform', (-2, 5)).pvalue > 0.01
    faces = np.bincount(many.integers(6), minlength=6)
    assert stats.chisquare(faces).pvalue > 0.01
    highs = np.tile([1, 2, 2**32], 1400)[:4000]
    numbers = many.integers(highs)
    assert (numbers[::3] == 0).all() and set(numbers[1::3]) == {0, 1}
    assert stats.kstest(numbers[2::3] / 2**32, 'uniform').pvalue > 0.01
    orders = many.permutation(4)
    assert (np.sort(orders) == range(4)).all()
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 0.01


def test_neighbours_are_independent():
    """Of images, draws, views and steps, whose addresses differ by little."""
    one, other = streams(range(4000)), streams(range(4000), view=1)
    first, second, third = one.random(), one.random(), other.random()
    pairs = [(first[1:], first[:-1]), (first, second), (first, third),
             (first, streams(range(4000), step=1).random()),
             (first, streams(range(4000), epoch=3).random())]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05  # three standard deviations
