_base_ = 'r18-w16_1xb64-finetune-proj1-coslr-60e_cifar10-1pct.py'
train_dataloader = dict(dataset=dict(share=0.1))
train_cfg = dict(max_epochs=30)
