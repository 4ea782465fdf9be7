from collections.abc import Sequence

from torch import Tensor, nn


def pooled(features: Tensor | Sequence[Tensor], model: nn.Module | None = None) -> Tensor:
    """Average the output of a backbone or of ``extract_feat`` over positions.

    Args:
        features: (n, C), a map (n, C, H, W), tokens (n, L, C), or several stages, of
            which the last is used. Tokens include the class token if the backbone returns
            it among them (``out_type='raw'``).
        model: The backbone or a model that has one. Its ``embed_dims`` tells the
            (n, C, L) of MlpMixer from tokens.

    Returns:
        (n, C).
    """
    if not isinstance(features, Tensor):
        features = features[-1]
    if features.ndim == 4:
        return features.mean((2, 3))  # (n, C, H, W) -> (n, C)
    if features.ndim == 3:
        backbone = getattr(model, 'backbone', model)
        width = getattr(backbone, 'embed_dims', features.shape[2])
        return features.mean(1 if features.shape[2] == width else 2)
    return features
