# The reference code's CIFAR-10 command: LARS, learning rate 1.0 x 512 / 256, weight
# decay 1e-4, linear warm-up over 10 epochs, then cosine decay, both per iteration.
optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='simclr_mm.LARS', lr=2.0, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,  # the reference code starts at 0, which LinearLR refuses
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=10, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=512)
