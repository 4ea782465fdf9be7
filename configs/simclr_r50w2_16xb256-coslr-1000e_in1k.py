_base_ = 'simclr_r50_16xb256-coslr-200e_in1k.py'
# Fig. 7 and Table 6. Computed: activations and weights of 25 GB a GPU, 45 GB without with_cp.
model = dict(backbone=dict(type='simclr_mm.GoogleResNet', width=2, with_cp=True))
train_cfg = dict(max_epochs=1000)
