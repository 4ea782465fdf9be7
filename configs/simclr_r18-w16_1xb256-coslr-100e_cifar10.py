_base_ = 'simclr_r18-w16_1xb256-coslr-10e_cifar10.py'

train_cfg = dict(max_epochs=100, val_interval=10)
