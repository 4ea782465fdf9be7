"""Results of several processes, in the order of the dataset."""

import os

import torch
from helpers.processes import free_port, launched, run_ranks
from mmengine.evaluator import BaseMetric

from simclr_mm.evaluation import gather
from simclr_mm.evaluation.gather import gather_results, install_gathering

RANKS = 3


class Everything(BaseMetric):
    default_prefix = 'all'

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(results=results)


def _dealt(size: int, rank: int) -> list:
    """What MMEngine's sampler deals to a rank: round and round, some images twice."""
    rounds = -(-size // RANKS)
    return [(rank + RANKS * place) % size for place in range(rounds)]


def _rank(rank: int, port: int) -> None:
    os.environ.update(launched(rank, RANKS, port))
    os.chdir('/proc')  # where nothing can be written
    torch.distributed.init_process_group('gloo')
    gather._AT_ONCE = 4
    install_gathering()
    for size in (1, 3, 13, 24):
        # An entry may be None, as those of gallery images are.
        mine = [None if index % 5 == 1 else index for index in _dealt(size, rank)]
        expected = [None if index % 5 == 1 else index for index in range(size)]
        assert gather_results(mine, size) == (expected if rank == 0 else None)
        metric = Everything()
        metric.process(None, mine)
        assert metric.evaluate(size) == {'all/results': expected}
    uneven = list(range(rank * 5))  # 0, 5 and 10 results
    together = gather_results(uneven, 15)
    assert rank != 0 or sorted(together) == sorted([*range(5), *range(10)])


def test_the_order_of_the_dataset_without_files():
    run_ranks(_rank, RANKS, free_port())


def test_one_process_has_them_all():
    assert gather_results([1, 2, 3], 2) == [1, 2]


def test_a_metric_that_is_told_how_to_gather(monkeypatch):
    called = []
    monkeypatch.setattr(gather.dist, 'collect_results', lambda *args: called.append(args))
    gather._collect_results([1], 1, 'gpu')
    gather._collect_results([1], 1, 'cpu', 'folder')
    assert called == [([1], 1, 'gpu', None), ([1], 1, 'cpu', 'folder')]
