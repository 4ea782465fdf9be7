_base_ = 'r18-w16_1xb64-finetune-proj1-coslr-60e_cifar10-1pct.py'
model = dict(neck=dict(until=0))
