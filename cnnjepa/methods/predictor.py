"""The convolutional predictor (paper III-C; docs/sources.md#predictor-layers)."""

from torch import Tensor, nn

from cnnjepa.schemas.predictor import PredictorConfig


class Predictor(nn.Module):
    """Predicts target features from the filled context features [B, C, rows, columns]; same shape.

    The network is depth x [convolution → batch norm → ReLU], the last ReLU included. A separable convolution is a
    depthwise kxk and then a pointwise 1x1 convolution, both with bias (docs/sources.md#predictor-layers).
    """

    def __init__(self, dim: int, config: PredictorConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[_layer(dim, config) for _ in range(config.depth)])

    def forward(self, features_BCGG: Tensor) -> Tensor:
        """Return predictions of the same shape."""
        predicted: Tensor = self.layers(features_BCGG)
        return predicted


def _layer(dim: int, config: PredictorConfig) -> nn.Sequential:
    k = config.kernel_size
    if config.conv == "dense":
        convolution = [nn.Conv2d(dim, dim, k, padding=k // 2)]
    else:
        convolution = [nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim), nn.Conv2d(dim, dim, 1)]
    return nn.Sequential(*convolution, nn.BatchNorm2d(dim), nn.ReLU(inplace=True))
