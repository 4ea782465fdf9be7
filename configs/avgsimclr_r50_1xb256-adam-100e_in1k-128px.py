_base_ = 'simclr_r18_1xb256-adam-100e_in1k-128px.py'
# Four views. The loss is the average of the two-view loss over all pairs of them.
_base_.train_dataloader.dataset.pipeline[1].num_views = 4
model = dict(backbone=dict(depth=50), head=dict(pairs='separate'))
