# The reference code's CIFAR-10 command: SGD with Nesterov momentum, learning rate
# 0.1 x 512 / 256, no decay, no warm-up, cosine decay per iteration.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=100, val_interval=1)
auto_scale_lr = dict(base_batch_size=512)
custom_hooks = [dict(type='simclr_mm.PretrainedBackboneHook', frozen=True)]
