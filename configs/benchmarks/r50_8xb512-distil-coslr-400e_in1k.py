_base_ = [
    '../_base_/datasets/in1k_linear.py',
    '../_base_/schedules/lars_coslr_800e_v2.py',
    '../_base_/default_runtime.py',
]

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

# Sec. 3.1: learning rate, decay, batch and warm-up (5 %) of pretraining, for 400 epochs.
_base_.param_scheduler[0].end = _base_.param_scheduler[1].begin = 20
train_cfg = dict(max_epochs=400)
