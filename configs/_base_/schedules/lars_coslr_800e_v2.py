# SimCLR v2 (arXiv:2006.10029), Sec. 3.1: LARS, learning rate 0.1 x sqrt(4096) = 6.4, weight
# decay 1e-4, linear warm-up over 5 % of 800 epochs, then cosine decay, both per iteration.
optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='simclr_mm.LARS', lr=0.1 * 4096**0.5, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,  # the reference code starts at 0, which LinearLR refuses
        by_epoch=True,
        begin=0,
        end=40,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=40, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=800, val_interval=10)
auto_scale_lr = dict(base_batch_size=4096, rule='sqrt')
