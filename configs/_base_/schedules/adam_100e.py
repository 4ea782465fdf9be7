# Adam at a constant learning rate.
optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='Adam', lr=3e-4, weight_decay=1e-6),
)
param_scheduler = []
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=256)
