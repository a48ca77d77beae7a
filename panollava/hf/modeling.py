"""The model as transformers calls it: PanoLlava inside, its forward path and no other.

The parts of the house are imported where they are used: this module is imported while transformers is still importing itself.
Legend: B samples, V views, S view side, T tokens, C vocabulary, N image tokens, L language width.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers import initialization as init

from panollava.hf.config import PanoLlavaConfig

if TYPE_CHECKING:
    from panollava.model.panollava import PanoLlava


class PanoLlavaForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """One panorama and one question a sample. `pixel_values` are its views as bytes; they are normalised inside."""

    config: PanoLlavaConfig
    model: Any
    config_class = PanoLlavaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: PanoLlavaConfig, model: "PanoLlava | None" = None) -> None:
        """`model`: what the config describes, where it is at hand."""
        from panollava.model.assemble import assemble

        super().__init__(config)
        inner: Any = assemble(config) if model is None else model
        self.model = inner
        if model is not None:
            _keep(model)
        # transformers collects tied weights from children that are its own models, and looks no deeper.
        tied: dict[str, str] = inner.language.all_tied_weights_keys
        inner.all_tied_weights_keys = {f"language.{name}": f"language.{source}" for name, source in tied.items()}
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Buffers that are in no file; from_pretrained leaves them empty."""
        super()._init_weights(module)
        if module is self.model:
            init.copy_(module.mean, torch.tensor(self.config.image_mean).view(3, 1, 1))
            init.copy_(module.std, torch.tensor(self.config.image_std).view(3, 1, 1))

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.model.language.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.model.language.get_output_embeddings()
        return head

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """uint8 views [B, V, S, S, 3] -> image tokens [B, N, L]."""
        tokens: Tensor = self.model.image_tokens(pixel_values)
        return tokens

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """Token ids [B, T] with N placeholders each and uint8 views [B, V, S, S, 3] -> what the language model gives, logits [B, T, C] in it."""
        if pixel_values is not None:
            inputs_embeds, input_ids = self.model.embed(input_ids, self.get_image_features(pixel_values)), None
        return self.model.language(
            input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, logits_to_keep=logits_to_keep, **kwargs
        )


def _keep(model: nn.Module) -> None:
    """transformers draws the weights of whatever it did not load itself anew, unless they are marked."""
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]


AutoModelForImageTextToText.register(PanoLlavaConfig, PanoLlavaForConditionalGeneration, exist_ok=True)
