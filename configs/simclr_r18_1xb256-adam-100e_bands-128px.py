_base_ = [
    '_base_/datasets/bands_simclr.py',
    '_base_/schedules/adam_100e.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet', depth=18, in_channels=12),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.1),
)
