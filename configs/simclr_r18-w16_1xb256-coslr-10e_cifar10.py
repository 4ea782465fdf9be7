_base_ = ['_base_/datasets/cifar10_simclr.py', '_base_/default_runtime.py']

# A ResNet-18 with a quarter of the channels, for ten minutes or so on two CPU cores.
model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    # The paper has 0.5. A run as short as this one learns faster with 0.2.
    head=dict(type='simclr_mm.NTXentHead', temperature=0.2),
)

# No workers: on two cores they would cost more time than they save.
train_dataloader = dict(batch_size=256, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)

optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=1e-4),
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
