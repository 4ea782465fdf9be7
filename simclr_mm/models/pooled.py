from collections.abc import Sequence

from torch import Tensor, nn


def pooled(features: Tensor | Sequence[Tensor], model: nn.Module | None = None) -> Tensor:
    """Average the output of a backbone or of ``extract_feat`` over positions.

    Args:
        features: (n, C), a map (n, C, H, W), tokens (n, L, C), or several stages, of
            which the last is used. Of a model of timm that says NHWC, a map is (n, H, W, C).
            Tokens include the class token if the backbone returns it among them
            (``out_type='raw'``).
        model: The backbone or a model that has one. Its ``embed_dims`` tells the
            (n, C, L) of MlpMixer from tokens.

    Returns:
        (n, C).
    """
    if not isinstance(features, Tensor):
        features = features[-1]
    backbone = getattr(model, 'backbone', model)
    if features.ndim == 4:
        of_timm = getattr(backbone, 'timm_model', None)
        last = getattr(of_timm, 'output_fmt', None) == 'NHWC'
        return features.mean((1, 2) if last else (2, 3))  # (n, C)
    if features.ndim == 3:
        width = getattr(backbone, 'embed_dims', features.shape[2])
        return features.mean(1 if features.shape[2] == width else 2)
    return features
