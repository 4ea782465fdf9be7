_base_ = [
    '../_base_/datasets/cifar10_linear.py',
    '../_base_/schedules/finetune_lars_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    # SimCLR v2 starts with few labels from the first layer of the projection head.
    neck=dict(type='simclr_mm.ProjectionNeck', in_channels=128, until=1),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # The reference code's zero_init_logits_layer.
        init_cfg=dict(type='Constant', layer='Linear', val=0.0),
    ),
)

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
optim_wrapper = dict(optimizer=dict(lr=0.005 * 64**0.5))  # by the paper's rule
auto_scale_lr = dict(base_batch_size=64)
