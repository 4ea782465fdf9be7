_base_ = [
    '_base_/datasets/cifar10_simclr.py',
    '_base_/schedules/adam_100e.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet_CIFAR', depth=18),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.5),
)  # Sec. B.9
train_dataloader = dict(batch_size=256)
