# Adam at a constant learning rate for a classifier on the frozen encoder.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=3e-4))
param_scheduler = []
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=100, val_interval=1)
auto_scale_lr = dict(base_batch_size=256)
custom_hooks = [dict(type='simclr_mm.PretrainedBackboneHook', frozen=True)]
