"""Write the training checkpoint of this folder for the environment it runs in.

The distributions exclude one another, so each file comes from an environment of its
own: run this in one with mmengine or onedl-mmengine and the NumPy in question.
"""

from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 1)

    def forward(self, *images, mode: str):
        return dict(loss=self.fc(torch.stack(images)).pow(2).mean())


class Points(Dataset):
    metainfo = dict(classes=('a', 'b'), mean=np.array([0.5, 1.5]), size=np.int64(8))

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int):
        return torch.tensor([index / 8, 1.0])


def runner(folder: str, epochs: int, **kwargs) -> Runner:
    return Runner(
        model=Model(),
        work_dir=folder,
        train_dataloader=dict(dataset=Points(), batch_size=4, sampler=dict(type='DefaultSampler')),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=2),
        **kwargs,
    )


def main() -> None:
    names = [d.metadata['Name'] for d in distributions()]
    name = next(n for n in names if n in ('mmengine', 'onedl-mmengine'))
    with TemporaryDirectory() as folder:
        runner(folder, 2).train()
        file = Path(folder) / 'epoch_2.pth'
        file.rename(Path(__file__).with_name(f'{name}_numpy{np.__version__[0]}.ckpt'))


if __name__ == '__main__':
    main()
