"""SimCLR for OpenMMLab: pretraining, evaluation and features from one config."""

from .requirements_check import check_openmmlab, check_system, import_quietly, wait_passively

check_system()
wait_passively()
check_openmmlab()
import_quietly()

from .apis import SimCLREncoder, get_model, inference_model, list_models  # noqa: E402
from .apis.model_zoo import register  # noqa: E402
from .version import __version__  # noqa: E402

register()

__all__ = ['SimCLREncoder', '__version__', 'get_model', 'inference_model', 'list_models']
