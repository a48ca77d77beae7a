"""What maps pooled vision features to the width in which the projection reads them. A new one is one class and one line."""

from torch import nn


class MlpResampler(nn.Sequential):
    """Linear, LayerNorm, GELU, Linear on every token by itself: [*, D] -> [*, width]."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__(nn.Linear(vision_width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))


RESAMPLERS = {"mlp": MlpResampler}
