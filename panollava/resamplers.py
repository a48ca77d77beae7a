"""The resamplers by name: where each one's module is, which settings it reads, and its image tokens and parameters before anything is loaded.

Torch-free. A new resampler is one file with its module and one line here. Its module is made as `Module(config, sizes)` and maps patch
grids [U, V, G, G, D] to [U, N, width].
Legend: V views, G patches a side, D vision width, N image tokens, Q queries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from panollava.errors import BadInput

if TYPE_CHECKING:
    from panollava.config import RunConfig


@dataclass(frozen=True)
class Sizes:
    """What a resampler is given: `views` grids of `grid` x `grid` patches of `vision_width`."""

    views: int
    grid: int
    vision_width: int


Count = Callable[["RunConfig", Sizes], int]
POOL, WIDTH = "pool", "resampler_width"
QUERIES, LAYERS, HEADS = "resampler_queries", "resampler_layers", "resampler_heads"


@dataclass(frozen=True)
class Resampler:
    """One line of the table. `options` are the settings that count for it; the others are refused."""

    module: str
    options: tuple[str, ...]
    tokens: Count
    parameters: Count


def width(config: "RunConfig", sizes: Sizes) -> int:
    """Width of what the projection reads: the vision encoder's if none is set."""
    return config.resampler_width or sizes.vision_width


def _pooled(config: "RunConfig", sizes: Sizes) -> int:
    return sizes.views * (sizes.grid // config.pool) ** 2


def _queries(config: "RunConfig", _sizes: Sizes) -> int:
    return config.resampler_queries


def _linear(config: "RunConfig", sizes: Sizes) -> int:
    return (sizes.vision_width + 1) * width(config, sizes)


def _mlp(config: "RunConfig", sizes: Sizes) -> int:
    w = width(config, sizes)
    return _linear(config, sizes) + 2 * w + (w + 1) * w


def _perceiver(config: "RunConfig", sizes: Sizes) -> int:
    w = width(config, sizes)
    layer = 4 * w * w + 8 * w * w + 6 * w  # attention and feed-forward without biases, three norms
    return _linear(config, sizes) + _places(config, sizes) + config.resampler_queries * w + config.resampler_layers * layer + 2 * w


def _qformer(config: "RunConfig", sizes: Sizes) -> int:
    w = width(config, sizes)
    attention = 4 * (w + 1) * w + 2 * w
    feed_forward = (w + 1) * 4 * w + (4 * w + 1) * w + 2 * w
    layer = 2 * attention + feed_forward
    return _linear(config, sizes) + _places(config, sizes) + config.resampler_queries * w + 2 * w + config.resampler_layers * layer


def _places(config: "RunConfig", sizes: Sizes) -> int:
    return (sizes.views + sizes.grid**2) * width(config, sizes)


RESAMPLERS = {
    "mlp": Resampler("panollava.model.pooling:MlpResampler", (POOL, WIDTH), _pooled, _mlp),
    "linear": Resampler("panollava.model.pooling:LinearResampler", (POOL, WIDTH), _pooled, _linear),
    "avgpool": Resampler("panollava.model.pooling:AveragePool", (POOL,), _pooled, lambda _config, _sizes: 0),
    "perceiver": Resampler("panollava.model.perceiver:PerceiverResampler", (WIDTH, QUERIES, LAYERS, HEADS), _queries, _perceiver),
    "qformer": Resampler("panollava.model.qformer:QFormerResampler", (WIDTH, QUERIES, LAYERS, HEADS), _queries, _qformer),
}


def known(name: str) -> str:
    """The name, if it is one. Raises ValueError naming those there are."""
    if name not in RESAMPLERS:
        raise ValueError(f"there is no resampler {name!r}; there are {', '.join(RESAMPLERS)}")
    return name


def having(option: str) -> tuple[str, ...]:
    """The resamplers for which a setting counts."""
    return tuple(name for name, resampler in RESAMPLERS.items() if option in resampler.options)


def check(config: "RunConfig", sizes: Sizes) -> None:
    """Refuse sizes that do not divide. Raises BadInput naming the field."""
    options = RESAMPLERS[config.resampler].options
    if POOL in options and sizes.grid % config.pool:
        raise BadInput(f"pool is {config.pool}, which does not divide {config.vision_model}'s grid of {sizes.grid} x {sizes.grid} patches.")
    if HEADS in options and (w := width(config, sizes)) % config.resampler_heads:
        raise BadInput(f"resampler_heads is {config.resampler_heads}, which does not divide the resampler's width of {w}.")


def image_tokens(config: "RunConfig", sizes: Sizes) -> int:
    """Image tokens that the language model is given of every panorama."""
    return RESAMPLERS[config.resampler].tokens(config, sizes)


def parameters(config: "RunConfig", sizes: Sizes) -> int:
    """Parameters of the resampler, without the projection that follows it."""
    return RESAMPLERS[config.resampler].parameters(config, sizes)


def make(config: "RunConfig", sizes: Sizes) -> Any:
    """The module itself. Imports torch."""
    module, name = RESAMPLERS[config.resampler].module.split(":")
    return getattr(import_module(module), name)(config, sizes)
