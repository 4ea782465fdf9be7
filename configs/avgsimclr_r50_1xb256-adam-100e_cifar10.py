_base_ = 'simclr_r18_1xb256-adam-100e_cifar10.py'
# Four views; the two-view loss of every pair of them, averaged.
_base_.train_dataloader.dataset.pipeline[0].num_views = 4
model = dict(backbone=dict(depth=50), head=dict(pairs='separate'))
