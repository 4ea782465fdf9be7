_base_ = 'r50_8xb128-finetune-proj1-coslr-60e_in1k-1pct.py'
# Computed: activations and weights of 27 GB a GPU, 54 GB without with_cp.
model = dict(
    backbone=dict(depth=152, width=3, selective_kernels=True, with_cp=True),
    neck=dict(in_channels=6144),
    head=dict(in_channels=6144),
)
train_dataloader = dict(dataset=dict(list_file='data/imagenet/10percent.txt'))
train_cfg = dict(max_epochs=30)  # Sec. 3.1
