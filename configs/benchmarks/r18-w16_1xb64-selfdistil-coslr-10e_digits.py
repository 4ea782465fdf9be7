_base_ = ['../_base_/datasets/digits_linear.py', '../_base_/default_runtime.py']

# As r18-w16_1xb256-selfdistil-coslr-3e_cifar10.py, for seconds on a CPU.
model = dict(
    type='simclr_mm.Distillation',
    teacher=None,
    temperature=0.1,
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, topk=(1, 5)),
)
custom_hooks = [dict(type='simclr_mm.PretrainedBackboneHook', frozen=False)]
train_dataloader = dict(batch_size=64, drop_last=True, dataset=dict(with_label=False))

optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='SGD', lr=0.05 * 64 / 256 / 0.1, momentum=0.9, nesterov=True),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=10, val_interval=10)
auto_scale_lr = dict(base_batch_size=64)
