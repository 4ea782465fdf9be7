"""What the runner makes of a dataloader's config."""

import pytest
from mmengine.registry import DefaultScope

from simclr_mm.engine import Runner

OF_WORKERS = dict(persistent_workers=True, prefetch_factor=3, multiprocessing_context='fork')


@pytest.mark.portable
@pytest.mark.parametrize('workers', [0, 1, None])
def test_settings_of_workers_count_only_with_workers(workers):
    """PyTorch refuses each of them where num_workers is 0, which is its default."""
    config = dict(
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='simclr_mm.Digits', split='test', pipeline=[]),
        **OF_WORKERS,
    )
    if workers is not None:
        config['num_workers'] = workers
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(config, seed=0)
    assert loader.num_workers == (workers or 0)
    assert loader.persistent_workers == bool(workers)
    assert loader.prefetch_factor == (3 if workers else None)
    assert config['persistent_workers']  # the user's config stays as it is
