# Batch 2048; learning rate 0.3 x 2048 / 256 (Sec. 2.2). Iterations throughout.
# The reference trained in fp16, which is --amp. bf16 needs no loss scaler.
optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='simclr_mm.LARS', lr=2.4, momentum=0.9, weight_decay=1e-6),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,  # the reference code starts at 0, which LinearLR refuses
        by_epoch=False,
        begin=0,
        end=6_250,
    ),  # 10 epochs of 1,281,167 images / 2048
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=6_250),
]
train_cfg = dict(type='simclr_mm.IterBasedTrainLoop', max_iters=64_000, val_interval=8_000)
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(base_batch_size=2048)
