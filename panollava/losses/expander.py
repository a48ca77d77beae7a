"""The throw-away head on which an overlap loss is taken, so that the encoder itself need not become what the loss asks for."""

from torch import nn


def expander(vision_width: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(vision_width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
