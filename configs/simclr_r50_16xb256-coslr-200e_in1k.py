_base_ = [
    '_base_/datasets/in1k_simclr.py',
    '_base_/schedules/lars_coslr_200e.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet', depth=50),
    # Sec. 4.2: a hidden layer as wide as the features, projected to 128.
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.1),
)
