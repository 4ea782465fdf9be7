_base_ = ['_base_/datasets/digits_simclr.py', '_base_/default_runtime.py']

# A ResNet-18 with a quarter of the channels: an epoch takes seconds on a CPU.
model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        # 600 steps are too few for residual branches that start at zero.
        zero_init_residual=False,
    ),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=64),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.2),
)

optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='Adam', lr=2e-3, weight_decay=1e-6),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        by_epoch=True,
        begin=0,
        end=3,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=3, convert_to_iter_based=True),
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=30, val_interval=10)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=10))
