# LARS, no decay, 90 epochs of cosine decay: mmselfsup's benchmark, 0.1 x 4096 / 256.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='simclr_mm.LARS', lr=1.6, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=90, val_interval=1)
auto_scale_lr = dict(base_batch_size=4096)
custom_hooks = [dict(type='simclr_mm.PretrainedBackboneHook', frozen=True)]
