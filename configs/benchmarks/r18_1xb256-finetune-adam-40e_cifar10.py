_base_ = 'r18_1xb256-finetune-adam-100e_cifar10.py'
train_cfg = dict(max_epochs=40)  # as published for AVGSimCLR
