_base_ = [
    '../_base_/datasets/digits_linear.py',
    '../_base_/schedules/linear_adam_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)

# There are only 600 steps, so the rate is larger than 3e-4.
optim_wrapper = dict(optimizer=dict(lr=1e-2))
