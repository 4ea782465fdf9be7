"""Every model of this package for ``torch.hub``.

From a clone: ``torch.hub.load('path/of/the/clone', 'simclr_resnet50',
source='local')``. ``simclr_mm.list_models()`` has the names.
"""

from collections.abc import Callable as _Callable

from simclr_mm import get_model as _get_model
from simclr_mm import list_models as _list_models
from simclr_mm.apis.model_zoo import ModelHub as _ModelHub

dependencies = ['torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'sklearn']


def _entry(name: str) -> _Callable:

    def load(pretrained=False, device=None, **kwargs):
        return _get_model(name, pretrained=pretrained, device=device, **kwargs)

    weights = _ModelHub._models_dict[name].weights
    published = f'True for {weights};' if weights else ''
    load.__name__ = name
    load.__doc__ = f"""The model {name}, in eval mode.

    Args:
        pretrained: False for random weights; {published} the path or URL of a
            checkpoint of this model for its weights.
        device: Where to put it. None: the CPU.
        **kwargs: Override keys of the config's ``model`` dict: ``neck=None, head=None``
            leave nothing but the backbone.

    Returns:
        As ``simclr_mm.get_model``: ``extract_feat(images)`` gives (n, C) features for
        images (n, 3, S, S), RGB, normalised with the ``data_preprocessor``'s mean and
        std.
    """
    return load


globals().update({_name: _entry(_name) for _name in _list_models()})
