_base_ = 'simclr_r18-w16_1xb256-coslr-10e_cifar10.py'

# Four views of each image, which grow. docs/small_images.md has the measurements.
_base_.train_dataloader.dataset.pipeline[0].num_views = 4
_base_.train_dataloader.dataset.pipeline[0].size = [16, 24]
_base_.train_dataloader.dataset.pipeline[0].milestones = [20]
train_cfg = dict(max_epochs=100, val_interval=10)
