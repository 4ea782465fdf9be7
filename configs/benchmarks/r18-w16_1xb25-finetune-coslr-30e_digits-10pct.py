_base_ = 'r18-w16_1xb25-finetune-coslr-60e_digits-5perclass.py'
train_dataloader = dict(dataset=dict(per_class=None, share=0.1))
train_cfg = dict(max_epochs=30)  # Sec. B.5
