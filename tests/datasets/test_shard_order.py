"""The order that reads shards nearly one after another, dealt to the ranks."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from simclr_mm.datasets import ResumableSampler
from simclr_mm.datasets import sampler as module
from simclr_mm.engine.dataloaders import data_layout

SIZES = [40, 25, 33, 1, 60, 17, 40, 40, 40, 29, 40, 40]
BATCH = 4


class Shards:
    """Each image is its index; images of one shard do not lie together."""

    is_remote = False

    def __init__(self):
        shards = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
        generator = torch.Generator().manual_seed(1)
        self.shards = shards[torch.randperm(len(shards), generator=generator)].tolist()

    def __len__(self):
        return len(self.shards)

    def __getitem__(self, index):
        return int(index)

    def shards_of_images(self):
        return torch.tensor(self.shards).numpy() * 10  # numbers with gaps


class Remote(Shards):
    is_remote = True


def samplers(monkeypatch, world_size, at_once=3, data=None, **kwargs):
    result = []
    for rank in range(world_size):
        monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world_size))
        result.append(ResumableSampler(data or Shards(), seed=5, shards_at_once=at_once, **kwargs))
    return result


def batches(sampler, epoch, start=0, size=BATCH):
    sampler.set_epoch(epoch, start)
    return list(DataLoader(Shards(), size, sampler=sampler, drop_last=True, collate_fn=list))


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_one_permutation_cut_to_whole_global_batches(monkeypatch, world_size):
    left_out = []
    for epoch in (0, 1):
        ranks = [batches(each, epoch) for each in samplers(monkeypatch, world_size)]
        steps = sum(SIZES) // world_size // BATCH
        assert {len(rank) for rank in ranks} == {steps}
        used = [i for rank in ranks for batch in rank for i in batch]
        assert len(set(used)) == len(used) == steps * BATCH * world_size
        left_out.append(set(range(sum(SIZES))) - set(used))
        assert len(left_out[-1]) < BATCH * world_size
    assert left_out[0] != left_out[1]


@pytest.mark.parametrize('world_size', [1, 3])
def test_start_continues_where_the_epoch_was_left(monkeypatch, world_size):
    for sampler in samplers(monkeypatch, world_size):
        assert batches(sampler, 2, 5 * BATCH) == batches(sampler, 2)[5:]


@pytest.mark.parametrize('world_size', [1, 4])
def test_other_ranks_share_the_arcs_of_before(monkeypatch, world_size):
    before = [batches(each, 1) for each in samplers(monkeypatch, 2)]
    after = []
    for sampler in samplers(monkeypatch, world_size):
        sampler.deal_as(2, BATCH)
        after.append(batches(sampler, 1, size=2 * BATCH // world_size))
    assert [sum(step, []) for step in zip(*after)] == [sum(step, []) for step in zip(*before)]


def test_a_run_in_another_order_is_another_run(monkeypatch):
    layouts = set()
    for at_once in (None, 3, 4):
        [sampler] = samplers(monkeypatch, 1, at_once)
        loader = DataLoader(Shards(), BATCH, sampler=sampler)
        runner = SimpleNamespace(train_dataloader=loader, world_size=1)
        layouts.add(data_layout(runner))
    assert len(layouts) == 3


def test_few_shards_are_read_at_a_time(monkeypatch):
    [sampler] = samplers(monkeypatch, 1, at_once=3)
    shards = Shards().shards
    sampler.set_epoch(0)
    order = [shards[i] for i in sampler]
    spans = {}
    for place, shard in enumerate(order):
        spans.setdefault(shard, []).append(place)
    # Drawn within three steps of the circle of 12: a quarter of the epoch, or its two
    # ends where the circle closes.
    closing = [k for k, span in spans.items() if span[-1] - span[0] > 0.6 * len(order)]
    assert 1 <= len(closing) <= 3
    for place in range(0, len(order), 10):
        open_now = [
            k for k, span in spans.items() if k not in closing and span[0] <= place <= span[-1]
        ]
        assert len(open_now) <= 4
    # And mixed: no long run of one shard.
    runs = [len(set(order[i : i + 12])) for i in range(0, len(order) - 12, 12)]
    assert min(runs) >= 2


def test_each_rank_reads_its_share_of_the_shards(monkeypatch):
    shards = Shards().shards
    for sampler in samplers(monkeypatch, 3, at_once=2):
        sampler.set_epoch(1)
        # 12 / 3 shards, two more where its arc begins, and unequal sizes.
        assert len({shards[i] for i in sampler}) <= 8


def test_as_many_at_once_as_there_are_is_any_order(monkeypatch):
    [sampler] = samplers(monkeypatch, 1, at_once=50)
    shards = Shards().shards
    sampler.set_epoch(0)
    tenth = [shards[i] for i in sampler][: sum(SIZES) // 10]
    assert len(set(tenth)) >= 9


def test_a_shard_of_the_web_is_thought_of_before_it_is_needed(monkeypatch):
    [sampler] = samplers(monkeypatch, 1, data=Remote())
    shards = Shards().shards
    sampler.set_epoch(0)
    seen, thought_of = [], []
    for index in sampler:
        shard = shards[index] * 10
        if shard not in seen:
            if len(seen) >= 2:
                assert shard in thought_of
            seen.append(shard)
        if index.ahead is not None:
            assert index.ahead not in seen
            thought_of.append(index.ahead)
    assert len(seen) == len(SIZES) and len(thought_of) == len(SIZES) - 2


@pytest.mark.parametrize(
    'data, kwargs, message',
    [
        (Shards, dict(at_once=0), 'shards_at_once = 0: give a number from 1'),
        (Shards, dict(shuffle=False), 'with shuffle=True'),
        (lambda: range(9), {}, 'is for simclr_mm.TarShards'),
        (Remote, dict(at_once=None), 'sampler.shards_at_once=16'),
    ],
)
def test_mistakes(monkeypatch, data, kwargs, message):
    with pytest.raises(ValueError, match=message):
        samplers(monkeypatch, 1, data=data(), **kwargs)
