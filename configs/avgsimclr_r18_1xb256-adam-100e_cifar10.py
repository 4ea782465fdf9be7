_base_ = 'simclr_r18_1xb256-adam-100e_cifar10.py'
# Four views. The loss is the average of the two-view loss over all pairs of them.
_base_.train_dataloader.dataset.pipeline[0].num_views = 4
model = dict(head=dict(pairs='separate'))
