"""The index streams of all ranks against a permutation cut by hand."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from simclr_mm.datasets import ResumableSampler, SampleIndex
from simclr_mm.datasets import sampler as module
from simclr_mm.errors import UserError

IMAGES, BATCH = 103, 4


def streams(
    monkeypatch, world_size, epoch, start=0, images=IMAGES, batch=BATCH, dealt=None, drop_last=True
):
    result = []
    for rank in range(world_size):
        monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world_size))
        sampler = ResumableSampler(range(images), seed=7)
        if dealt is not None:
            sampler.deal_as(*dealt)
        sampler.set_epoch(epoch, start)
        loader = DataLoader(
            range(images),
            batch,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=lambda batch: [int(i) for i in batch],
        )
        result.append(list(loader))
    return result


def test_length_does_not_depend_on_start():
    sampler = ResumableSampler(range(IMAGES), seed=0)
    sampler.set_epoch(0, start=50)
    assert len(sampler) == IMAGES


def test_indices_say_seed_and_epoch_and_survive_the_way_to_a_worker():
    sampler = ResumableSampler(range(IMAGES), shuffle=False, seed=11)
    sampler.set_epoch(4)
    index = pickle.loads(pickle.dumps(list(sampler)[9]))
    assert (index, index.seed, index.epoch) == (9, 11, 4)
    assert index.place == 9
    for member, number in ((index - 2, 7), (index % 5, 4), (index.at(1), 1)):
        member = pickle.loads(pickle.dumps(member))
        assert (member, member.seed, member.epoch) == (number, 11, 4)
        assert isinstance(member, SampleIndex) and member.place == 9


def test_fewer_images_than_processes(monkeypatch):
    monkeypatch.setattr(module, 'get_dist_info', lambda: (0, 4))
    with pytest.raises(ValueError, match='3 images for 4 processes'):
        ResumableSampler(range(3), seed=0)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 300),
    batch=st.integers(1, 40),
    world_size=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    position=st.integers(0, 300),
)
def test_any_job_deals_one_permutation_and_goes_on_anywhere(
    images, batch, world_size, seed, epoch, position
):
    """Whole global batches of one permutation, dealt in turn; a start is a place in them."""
    if images < world_size:
        return

    def stream(rank, start=0):
        sampler = ResumableSampler(range(images), seed=seed)
        sampler.rank, sampler.world_size = rank, world_size
        sampler.set_epoch(epoch, start)
        return [int(index) for index in sampler]

    steps = images // world_size // batch  # what drop_last leaves
    whole = [stream(rank) for rank in range(world_size)]
    assert {len(each) for each in whole} == {images // world_size}
    batches = [each[: steps * batch] for each in whole]
    dealt = [index for place in zip(*batches) for index in place]  # rank by rank
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed + epoch))
    assert dealt == order[: steps * batch * world_size].tolist()
    assert images - len(dealt) < batch * world_size  # less than one global batch is left out
    assert len(set(dealt)) == len(dealt)
    start = min(position, images // world_size)
    assert [stream(rank, start) for rank in range(world_size)] == [each[start:] for each in whole]


class Grouped:
    """60 images: groups of 20, 6 and 4, and 30 images in no group."""

    numbers = np.array([7] * 20 + [2**62] * 6 + [5] * 4 + [-1] * 30)

    def __len__(self):
        return 60

    def groups_of_images(self):
        return self.numbers


def orders(groups, **kwargs):
    sampler = ResumableSampler(Grouped(), seed=3, groups=groups)
    for epoch in range(20):
        sampler.set_epoch(epoch, **kwargs)
        yield [int(index) for index in sampler]


def test_groups_apart_come_at_even_distances():
    seen = set()
    for order in orders('apart'):
        assert sorted(order) == list(range(60))
        seen.add(tuple(order))
        for number, most in ((7, 6), (2**62, 2), (5, 2)):
            members = Grouped.numbers[order] == number
            # A part w of an epoch has 60 w - 4 images at least, and k w + 1 of a group at most.
            # So 12 images are at most 16 / 60 of the epoch.
            assert max(members[start : start + 12].sum() for start in range(0, 60, 12)) <= most
    assert len(seen) == 20


def test_groups_together_follow_each_other():
    firsts = set()
    for order in orders('together'):
        assert sorted(order) == list(range(60))
        for number in (7, 2**62, 5):
            places = np.flatnonzero(Grouped.numbers[order] == number)
            assert (np.diff(places) == 1).all()
            firsts.add((number, int(places[0])))
    assert len(firsts) > 30


@pytest.mark.parametrize('groups', ['apart', 'together'])
def test_an_order_of_groups_goes_on_anywhere(groups):
    whole = list(orders(groups))
    assert [order[17:] for order in whole] == list(orders(groups, start=17))


def test_groups_that_cannot_be():
    for dataset, kwargs, match in (
        (Grouped(), dict(groups='near'), "write 'apart' or 'together'"),
        (Grouped(), dict(groups='apart', shuffle=False), 'with shuffle=True'),
        (range(60), dict(groups='apart'), 'the images of this dataset have no groups'),
    ):
        with pytest.raises(UserError, match=match):
            ResumableSampler(dataset, **kwargs)


@pytest.mark.parametrize('ranks', [1, 3, 4, 6])
@pytest.mark.parametrize('start', [0, 2])
def test_other_ranks_share_the_batches_of_before(monkeypatch, ranks, start):
    """Each step has the images of the same step on two ranks, in the order of ranks."""
    before = streams(monkeypatch, 2, epoch=3, batch=6)
    expected = [[i for rank in step for i in rank] for step in zip(*before)][start:]
    size = 12 // ranks
    after = streams(monkeypatch, ranks, 3, start * size, batch=size, dealt=(2, 6))
    assert [[i for rank in step for i in rank] for step in zip(*after)] == expected
    assert {len(step) for rank in after for step in rank} == {size}


def test_other_ranks_share_the_last_smaller_batch(monkeypatch):
    before = streams(monkeypatch, 2, epoch=3, images=IMAGES + 1, batch=6, drop_last=False)
    last = [i for rank in before for i in rank[-1]]
    assert len(last) == 8
    after = streams(monkeypatch, 4, 3, 0, IMAGES + 1, batch=3, dealt=(2, 6), drop_last=False)
    assert [i for rank in after for i in rank[-1]] == last
