_base_ = 'r18_1xb64-finetune-coslr-60e_cifar10-1pct.py'
model = dict(backbone=dict(stem_channels=16, base_channels=16), head=dict(in_channels=128))
train_dataloader = dict(dataset=dict(share=0.1))
train_cfg = dict(max_epochs=30)  # Sec. B.5
