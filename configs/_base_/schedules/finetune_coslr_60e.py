# Sec. B.5: SGD with Nesterov momentum, learning rate 0.05 x 4096 / 256, no warm-up, no
# decay. The paper does not say how the rate falls. Its code has only the cosine, per
# iteration.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.8, momentum=0.9, nesterov=True, weight_decay=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=60, val_interval=5)
auto_scale_lr = dict(base_batch_size=4096)
custom_hooks = [dict(type='simclr_mm.PretrainedBackboneHook', frozen=False)]
