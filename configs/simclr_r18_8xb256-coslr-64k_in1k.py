_base_ = [
    '_base_/datasets/in1k_simclr.py',
    '_base_/schedules/lars_coslr_64k.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='simclr_mm.SimCLR',
    backbone=dict(type='ResNet', depth=18),
    # Sec. 4.2: a hidden layer as wide as the features, projected to 128.
    neck=dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128),
    head=dict(type='simclr_mm.NTXentHead', temperature=0.1),
    # Trained along with the encoder. Its accuracies are those published for this recipe.
    online_probe=dict(num_classes=1000),
)
train_dataloader = dict(dataset=dict(with_label=True))

# The reference code trains the probe without layer adaptation.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'probe.': dict(trust_denominator=None)}))

val_evaluator = [
    dict(type='simclr_mm.KNNAccuracy'),
    dict(type='simclr_mm.ProbeAccuracy', topk=(1, 5)),
    dict(type='simclr_mm.LabelFreeMetrics'),
]
test_evaluator = val_evaluator

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=4_000), logger=dict(log_metric_by_epoch=False)
)
