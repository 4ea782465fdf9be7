_base_ = ['../_base_/datasets/cifar10_linear.py', '../_base_/default_runtime.py']

# SimCLRv2 (arXiv:2006.10029): a student like its teacher, the fine-tuned network, learns
# from it without labels, --cfg-options model.teacher=PATH. It starts from the encoder, and
# not from random weights as for 400 epochs of ImageNet: three epochs are too few for that.
model = dict(
    type='simclr_mm.Distillation',
    teacher=None,
    temperature=0.1,  # Sec. 3.1
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

# No workers: on two cores they would cost more time than they save.
train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    dataset=dict(with_label=False),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)

# The rate for fine-tuning, 0.05 x 256 / 256 (SimCLR, Sec. B.5), divided by the temperature,
# because the gradient is about that many times smaller.
optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='SGD', lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=3, val_interval=1)
auto_scale_lr = dict(base_batch_size=256)
