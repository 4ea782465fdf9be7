_base_ = 'simclr_r50_16xb256-coslr-200e_in1k.py'
# Fig. 7 and Table 6, for GPUs of 80 GB. Computed: activations and weights of 53 GB a GPU, 95 GB
# without with_cp.
model = dict(backbone=dict(type='simclr_mm.GoogleResNet', width=4, with_cp=True))
train_cfg = dict(max_epochs=1000)
