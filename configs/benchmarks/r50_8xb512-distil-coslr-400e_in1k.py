_base_ = ['../_base_/datasets/in1k_linear.py', '../_base_/default_runtime.py']

# SimCLRv2 (arXiv:2006.10029): a smaller student learns from a larger fine-tuned network,
# --cfg-options model.teacher=PATH. It sees no label.
model = dict(
    type='simclr_mm.Distillation',
    teacher=None,
    temperature=1.0,  # Sec. 3.1: 1 for a smaller student, 0.1 for one like the teacher
    backbone=dict(type='ResNet', depth=50),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=2048, topk=(1, 5)),
)
train_dataloader = dict(drop_last=True, dataset=dict(with_label=False))

# Sec. 3.1: learning rate, decay and batch of pretraining, 400 epochs. That is LARS with
# 0.1 x sqrt(4096), decay 1e-4, and a warm-up over 5 % of the epochs.
optim_wrapper = dict(
    type='simclr_mm.AutocastOptimWrapper',  # bf16 where the device computes with it
    optimizer=dict(type='simclr_mm.LARS', lr=6.4, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,  # the reference code starts at 0, which LinearLR refuses
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=20, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='simclr_mm.EpochBasedTrainLoop', max_epochs=400, val_interval=10)
auto_scale_lr = dict(base_batch_size=4096)
