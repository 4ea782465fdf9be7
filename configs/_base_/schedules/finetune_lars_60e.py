# SimCLR v2 (arXiv:2006.10029), Sec. 3.1: LARS, learning rate 0.005 x sqrt(1024) = 0.16, no decay,
# no warm-up. The rate falls as a cosine, per iteration.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='simclr_mm.LARS', lr=0.005 * 1024**0.5, momentum=0.9, weight_decay=0.0),
    # The reference code trains the classifier without layer adaptation.
    paramwise_cfg=dict(custom_keys={'head.': dict(trust_denominator=None)}),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=60, val_interval=5)
auto_scale_lr = dict(base_batch_size=1024, rule='sqrt')
custom_hooks = [dict(type='simclr_mm.PretrainedBackboneHook', frozen=False)]
