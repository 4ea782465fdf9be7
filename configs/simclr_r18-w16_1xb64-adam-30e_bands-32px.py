_base_ = [
    '_base_/datasets/bands_simclr.py',
    '_base_/schedules/adam_100e.py',
    '_base_/default_runtime.py',
]

# Small images, for minutes on a CPU.
_base_.train_dataloader.dataset.pipeline[1].size = 32
_base_.train_dataloader.dataset.pipeline[1].transforms[1].prob = 0.0  # no blur, as in B.9
_base_.val_dataloader.dataset.pipeline[1].scale = 32
_base_.val_dataloader.dataset.pipeline[2].crop_size = 32
test_dataloader = _base_.val_dataloader
train_dataloader = dict(batch_size=64)

# A ResNet-18 with a quarter of the channels.
model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        in_channels=12,
        stem_channels=16,
        base_channels=16,
        # Short runs have too few steps for residual branches that start at zero.
        zero_init_residual=False,
    ),
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=64),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.2),
)

optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=64)
