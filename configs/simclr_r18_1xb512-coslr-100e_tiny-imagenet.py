_base_ = [
    '_base_/datasets/tiny-imagenet_simclr.py',
    '_base_/schedules/lars_coslr_100e_b512.py',
    '_base_/default_runtime.py',
]

# As for CIFAR-10 (Sec. B.9): a 3x3 stem of stride 1 without max-pooling.
model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet_CIFAR', depth=18),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.5),
)
