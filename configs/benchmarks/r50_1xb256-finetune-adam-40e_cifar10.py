_base_ = 'r18_1xb256-finetune-adam-100e_cifar10.py'
model = dict(backbone=dict(depth=50), head=dict(in_channels=2048))
train_cfg = dict(max_epochs=40)  # as published for AVGSimCLR
