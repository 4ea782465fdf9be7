_base_ = [
    '_base_/datasets/in1k_simclr.py',
    '_base_/schedules/adam_100e.py',
    '_base_/default_runtime.py',
]

# Views of 128 pixels instead of 224. Evaluation resizes the shorter side in proportion.
_base_.train_dataloader.dataset.pipeline[1].size = 128
_base_.val_dataloader.dataset.pipeline[1].scale = 146
_base_.val_dataloader.dataset.pipeline[2].crop_size = 128
test_dataloader = _base_.val_dataloader

model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet', depth=18),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.1),
)
