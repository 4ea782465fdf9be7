"""The transform of docs/extending.md, as it stands there."""

import re
from pathlib import Path

import numpy as np
import torch

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.models import ViewsPreprocessor
from simclr_mm.transforms import TwoViews
from simclr_mm.transforms.base import DeviceTransform

PAGE = Path(__file__).parents[2] / 'docs' / 'extending.md'


def test_the_transform_of_the_page_runs_in_workers_and_on_the_device(tmp_path, monkeypatch):
    (code,) = (
        block
        for block in re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
        if block.startswith('# solarize.py')
    )
    (tmp_path / 'solarize.py').write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import solarize

    assert issubclass(solarize.RandomSolarize, DeviceTransform)
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    indices = [SampleIndex(i, seed=3) for i in range(20)]
    transforms = [dict(type='simclr_mm.RandomSolarize', prob=0.5)]
    levels = ViewsPreprocessor([0.0] * 3, [1.0] * 3, to_rgb=False)
    made = {}
    for side in ('worker', 'device'):
        views = TwoViews(16, scale=(1, 1), ratio=(1, 1), transforms=transforms, augment=side)
        made[side] = levels(dict(inputs=views.batch(images, indices)))['inputs']
    assert torch.equal(made['worker'], made['device'])  # nothing to resize: to the last bit
    drawn = [views(dict(img=images[i], sample_idx=indices[i]))['view_params'] for i in range(20)]
    thresholds = [view['RandomSolarize'] for each in drawn for view in each]
    assert 5 < sum(params is not None for params in thresholds) < 35
    for v, params in enumerate(drawn[4]):
        expected = images[4][:, ::-1] if params['flip'] else images[4]
        if params['RandomSolarize'] is not None:
            least = params['RandomSolarize']['threshold']
            assert 100 <= least <= 200
            expected = np.array([255 - x if x >= least else x for x in expected.flat])
        assert np.array_equal(made['worker'][4, v], expected.reshape(16, 16, 3).transpose(2, 0, 1))
