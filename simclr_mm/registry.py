"""Child registries of MMEngine's root registries, under scope ``simclr_mm``.

A config names a type of this package as ``simclr_mm.X``. MMEngine imports this module
when it meets the scope.
"""

from mmengine import registry as root
from mmengine.registry import Registry

_SCOPE = 'simclr_mm'


def _child(parent: Registry, *modules: str) -> Registry:
    return Registry(
        parent.name,
        parent=parent,
        scope=_SCOPE,
        locations=[f'{_SCOPE}.{module}' for module in modules],
    )


RUNNERS = _child(root.RUNNERS, 'engine')
LOOPS = _child(root.LOOPS, 'engine')
HOOKS = _child(root.HOOKS, 'engine')
OPTIMIZERS = _child(root.OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'engine')
DATASETS = _child(root.DATASETS, 'datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'datasets')
FUNCTIONS = _child(root.FUNCTIONS, 'datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'transforms')
MODELS = _child(root.MODELS, 'models')
METRICS = _child(root.METRICS, 'evaluation')


def type_name(of: object) -> str:
    """The class name of a config's part, in every form that a config allows.

    Args:
        of: A dict with the key ``type``, a type, or a name such as ``'simclr_mm.SimCLR'``
            (in a dumped config with its module).

    Returns:
        The name without scope and module; '' if there is none.
    """
    if isinstance(of, dict):
        of = of.get('type')
    if of is None:
        return ''
    return str(getattr(of, '__name__', of)).rpartition('.')[2]
