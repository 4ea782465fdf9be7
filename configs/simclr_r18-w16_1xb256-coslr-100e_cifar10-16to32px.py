_base_ = 'simclr_r18-w16_1xb256-coslr-10e_cifar10.py'

# Views that grow: 40 epochs at 16 px, 30 at 24, 30 at 32.
_base_.train_dataloader.dataset.pipeline[0].size = [16, 24, 32]
_base_.train_dataloader.dataset.pipeline[0].milestones = [40, 70]
train_cfg = dict(max_epochs=100, val_interval=10)
