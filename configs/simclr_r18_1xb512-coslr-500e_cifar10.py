_base_ = 'simclr_r18_1xb512-coslr-100e_cifar10.py'
train_cfg = dict(max_epochs=500)
