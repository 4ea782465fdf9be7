_base_ = 'simclr_r18_1xb512-coslr-100e_cifar10.py'
train_dataloader = dict(dataset=dict(type='simclr_mm.CIFAR100', data_root='data/cifar100'))
val_dataloader = dict(
    dataset=dict(
        gallery=dict(type='simclr_mm.CIFAR100', data_root='data/cifar100'),
        query=dict(type='simclr_mm.CIFAR100', data_root='data/cifar100'),
    )
)
test_dataloader = val_dataloader
