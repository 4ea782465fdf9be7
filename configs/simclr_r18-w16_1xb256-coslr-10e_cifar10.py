_base_ = ['_base_/datasets/cifar10_simclr.py', '_base_/default_runtime.py']

# For two CPU cores and 40 minutes: a ResNet-18 a quarter as wide.
model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    # 0.2: so short a run learns faster than with the paper's 0.5.
    head=dict(type='simclr_mm.NTXentHead', temperature=0.2),
)

# No workers: they would take from the two cores more time than they save.
train_dataloader = dict(batch_size=256, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=10, val_interval=10)
auto_scale_lr = dict(base_batch_size=256)
