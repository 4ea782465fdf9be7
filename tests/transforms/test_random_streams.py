"""Streams against hashlib and by the distributions of their numbers."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from simclr_mm.transforms.random_streams import (
    RandomStream,
    RandomStreams,
    batch_streams,
    view_streams,
)


def streams(images, seed=5, epoch=2, view=0, step=0):
    n = len(images)
    return batch_streams([seed] * n, [epoch] * n, images, view, step + 1)[step]


def test_words_are_those_of_the_hash():
    """Fixed for ever: a run that is resumed by a later version draws the same views."""
    address = struct.pack('<QQQQ', 5, 2, 70, 1)
    words = struct.unpack('<126I', hashlib.shake_128(address).digest(504))
    for step in range(3):
        stream = view_streams(5, 2, 70, 1, 3)[step]
        assert [stream.next_word() for _ in range(42)] == list(words[42 * step : 42 * step + 42])
    # NIST's test vector of SHAKE-128: hashlib is what its name says.
    assert hashlib.shake_128(b'').hexdigest(8) == '7f9c2ba4e88f827d'


DRAWS = [
    lambda s: s.random(),
    lambda s: s.uniform(0.2, 1.8),
    lambda s: s.integers(7),
    lambda s: s.integers(2**32),
    lambda s: s.permutation(4),
]
SEEDS, PLACES = st.integers(), st.integers(0, 2**64 - 1)
ADDRESSES = st.tuples(SEEDS, PLACES, PLACES)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(ADDRESSES, min_size=1, max_size=4), st.integers(0, 2**32), st.data())
def test_a_batch_draws_what_each_view_draws(addresses, view, data):
    """Also beyond the 42 words of a block, and whatever else is in the batch."""
    step = data.draw(st.integers(0, 3))
    draws = data.draw(st.lists(st.sampled_from(DRAWS), min_size=1, max_size=60))
    batch = batch_streams(*zip(*addresses), view, step + 1)[step]
    single = [view_streams(*address, view, step + 2)[step] for address in addresses]
    assert len(batch) == len(addresses)
    for draw in draws:
        assert np.array_equal(draw(batch), [draw(stream) for stream in single])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(ADDRESSES, ADDRESSES, PLACES, PLACES)
def test_other_addresses_have_other_numbers(first, second, view, other):
    assume((first[0] % 2**64, *first[1:], view) != (second[0] % 2**64, *second[1:], other))
    drawn = [
        [stream.next_word() for stream in view_streams(*address, number, 2)]
        for address, number in ((first, view), (second, other), (first, view))
    ]
    assert drawn[0] == drawn[2] != drawn[1] and drawn[0][0] != drawn[0][1]


def test_bounds_of_whole_numbers_may_differ_in_a_batch():
    highs = [1, 2, 50, 2**32]
    drawn = streams([0, 1, 2, 3]).integers(np.array(highs))
    for image, high in enumerate(highs):
        assert drawn[image] == view_streams(5, 2, image, 0, 1)[0].integers(high)


def test_numbers_are_a_function_of_their_address():
    one = np.stack([s.random() for s in [streams(range(100))] for _ in range(60)])
    assert len(np.unique(one)) == one.size
    drawn = {
        tuple(streams([3], **where).random())
        for where in (
            dict(),
            dict(seed=6),
            dict(seed=5 + 2**32),
            dict(epoch=3),
            dict(view=1),
            dict(step=1),
        )
    }
    assert len(drawn) == 6


def test_seeds_of_any_size_and_type():

    def first(seed, image=3):
        (batch,) = batch_streams([seed], [0], [image], 0, 1)
        (single,) = view_streams(seed, 0, image, 0, 1)
        assert batch.next_word().tolist() == [single.next_word()]
        return single.next_word()

    assert first(-1) == first(2**64 - 1) == first(2**70 - 1) != first(2**63 - 1)
    for kind in (np.int64, np.int32, np.uint64):
        assert first(kind(6), image=kind(9)) == first(6, image=9)
    assert first(np.int64(-1)) == first(-1)


def test_equal_keys_of_a_permutation_keep_their_order():
    """Rare in 32 bits, and not to differ between a view and a batch even then."""
    words = np.random.default_rng(0).integers(0, 3, (5, 42)).astype('<u4')
    orders = RandomStreams(words).permutation(42)
    for row, order in zip(words, orders):
        assert RandomStream(row.tobytes()).permutation(42) == order.tolist()
    assert RandomStream(bytes(168)).permutation(4) == [0, 1, 2, 3]


def test_streams_without_an_address_differ():
    assert len({RandomStream.unseeded().random() for _ in range(50)}) == 50


def test_numpys_generator_goes_on_with_the_stream():
    stream, other = view_streams(0, 0, 0, 0, 1) + view_streams(0, 0, 0, 0, 1)
    words = [other.next_word() for _ in range(5)]
    expected = np.random.default_rng(words[:4]).normal(size=3)
    assert np.array_equal(stream.generator().normal(size=3), expected)
    assert stream.next_word() == words[4]
    with pytest.raises(AttributeError):  # it would be one for the whole batch
        streams([0, 1]).generator()


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
    pairs = [
        (first[1:], first[:-1]),
        (first, second),
        (first, third),
        (first, streams(range(4000), step=1).random()),
        (first, streams(range(4000), epoch=3).random()),
    ]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05  # three standard deviations
