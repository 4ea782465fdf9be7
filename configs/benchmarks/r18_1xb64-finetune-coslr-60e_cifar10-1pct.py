_base_ = [
    '../_base_/datasets/cifar10_linear.py',
    '../_base_/schedules/finetune_coslr_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=512,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # The reference code's zero_init_logits_layer.
        init_cfg=dict(type='Constant', layer='Linear', val=0.0),
    ),
)

# 500 images do not fill a batch of 4096.
train_dataloader = dict(
    batch_size=64,
    drop_last=True,
    dataset=dict(
        _delete_=True,
        type='simclr_mm.LabelSubset',
        share=0.01,
        seed=0,
        dataset=_base_.train_dataloader.dataset,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.05 * 64 / 256))  # as in Sec. B.5
auto_scale_lr = dict(base_batch_size=64)
