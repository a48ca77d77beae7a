"""The `config.json` of an exported model: both of its pretrained parts, how a panorama is cut, and the bridge between them.

Settings have the names and the meaning that they have in a run's config.
"""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from panollava import layouts
from panollava.config import RunConfig
from panollava.layouts import Layout
from panollava.resamplers import Sizes

LAYOUT = ("crop_strategy", "fov", "overlap", "view_count", "pitches", "cube_faces")
BRIDGE = ("resampler", "resampler_width", "pool", "resampler_queries", "resampler_layers", "resampler_heads")


class PanoLlavaConfig(PreTrainedConfig):
    """Enough to put the model together without weights, and to feed it."""

    model_type = "panollava"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None

    crop_strategy: str = "e2p"
    fov: float = 90.0
    overlap: float = 0.5
    view_count: int | None = None
    pitches: list[float] | tuple[float, ...] = (-45.0, 0.0, 45.0)
    cube_faces: int = 6
    image_size: int = 224
    """Side of a view in pixels."""
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)

    resampler: str = "mlp"
    resampler_width: int | None = None
    pool: int = 2
    resampler_queries: int = 64
    resampler_layers: int = 2
    resampler_heads: int = 8

    image_token_id: int = 0
    """Marks the places of image tokens in a prompt; what is there is replaced."""
    image_seq_length: int = 0
    """Image tokens of a panorama."""
    max_text_length: int = 128
    end_token_ids: list[int] | tuple[int, ...] = ()
    """Tokens that end a text by the language model's own account."""
    vision_model: str = ""
    language_model: str = ""
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("vision_config", "text_config"):
            value = getattr(self, name)
            if isinstance(value, dict):
                setattr(self, name, AutoConfig.for_model(**value))
        super().__post_init__(**kwargs)

    def run_config(self) -> RunConfig:
        """The same settings as those of a run."""
        return RunConfig(**{name: getattr(self, name) for name in (*LAYOUT, *BRIDGE)})

    def layout(self) -> Layout:
        return layouts.layout(self.run_config())

    def sizes(self) -> Sizes:
        """What the resampler is given."""
        vision: Any = self.vision_config
        return Sizes(layouts.count(self.run_config()), self.image_size // vision.patch_size, vision.hidden_size)


AutoConfig.register(PanoLlavaConfig.model_type, PanoLlavaConfig, exist_ok=True)
