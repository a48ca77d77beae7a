"""The forward path: every view counts, samples do not mix, the loss is the one it says it is."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, SiglipVisionConfig, SiglipVisionModel

from panollava.config import RunConfig
from panollava.model.panollava import Batch, PanoLlava
from panollava.model.parts import Built, build
from panollava.model.text import IGNORE, Prompter


def test_the_loss_is_next_token_cross_entropy_on_the_supervised_positions(built: Built, batch: Batch) -> None:
    model = built.model
    assert model.language is not None
    loss = model(batch)
    images = model.image_tokens(batch.pixels)[batch.image_index]
    logits = model.language(inputs_embeds=model.embed(batch.input_ids, images), attention_mask=batch.attention_mask).logits
    by_hand = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")
    assert loss.total.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss.tokens == int((batch.labels != IGNORE).sum())
    theirs = model.language(inputs_embeds=model.embed(batch.input_ids, images), attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert loss.mean.item() == pytest.approx(theirs.item(), rel=1e-5), "labels are shifted once, as transformers shifts them"


def test_a_batch_without_a_supervised_token_is_an_error_and_not_a_loss_of_zero(built: Built, batch: Batch) -> None:
    with pytest.raises(ValueError, match="No token of this batch is supervised"):
        built.model(replace(batch, labels=torch.full_like(batch.labels, IGNORE)))


def test_every_view_of_every_panorama_reaches_the_loss(built: Built, batch: Batch) -> None:
    pixels = batch.pixels.float().requires_grad_()
    built.model(replace(batch, pixels=pixels)).mean.backward()
    assert pixels.grad is not None
    reached = pixels.grad.abs().flatten(2).sum(-1)  # [U, V]
    assert (reached > 0).all()


def test_a_sample_does_not_depend_on_other_samples_panoramas(built: Built, batch: Batch) -> None:
    def first_loss(pixels: torch.Tensor) -> float:
        only_first = torch.full_like(batch.labels, IGNORE)
        only_first[:2] = batch.labels[:2]
        return float(built.model(replace(batch, pixels=pixels, labels=only_first)).mean)

    others = batch.pixels.clone()
    others[1:] = 255 - others[1:]
    with torch.no_grad():
        assert first_loss(others) == pytest.approx(first_loss(batch.pixels), rel=1e-6)


def test_image_tokens_run_view_by_view_around_the_ring(built: Built, batch: Batch) -> None:
    with torch.no_grad():
        tokens = built.model.image_tokens(batch.pixels)
        turned = built.model.image_tokens(batch.pixels.roll(1, 1))
    assert tokens.shape == (3, 32, 128)
    torch.testing.assert_close(turned, tokens.unflatten(1, (8, 4)).roll(1, 1).flatten(1, 2), rtol=1e-4, atol=1e-5)


def test_a_wrong_number_of_placeholders_is_an_error_and_never_cut_to_fit(built: Built, batch: Batch) -> None:
    with pytest.raises(ValueError, match="needs 31 image placeholders"):
        built.model.embed(batch.input_ids, torch.zeros(len(batch.input_ids), 31, 128))


def test_pixels_are_normalised_as_the_models_own_processor_does_it(built: Built, config: RunConfig, batch: Batch) -> None:
    seen: list[torch.Tensor] = []
    handle = built.model.vision.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True)
    with torch.no_grad():
        built.model.patches(batch.pixels[:1])
    handle.remove()
    assert seen[0].min() >= -1
    assert seen[0].max() <= 1
    processor = AutoImageProcessor.from_pretrained(config.vision_model)
    theirs = processor(images=[view.numpy() for view in batch.pixels[0]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen[0], theirs, rtol=0, atol=1e-6)


def test_an_odd_grid_of_27_by_27_patches_keeps_all_729() -> None:
    vision = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=108, patch_size=4, vision_use_head=False
        )
    )
    model = PanoLlava(vision, torch.nn.Identity(), torch.nn.Identity(), None, image_token=0, mean=(0.5,) * 3, std=(0.5,) * 3)
    with torch.no_grad():
        assert model.patches(torch.zeros(1, 2, 108, 108, 3, dtype=torch.uint8)).shape == (1, 2, 27, 27, 16)


def test_weights_are_float32_whatever_the_checkpoint_holds(built: Built) -> None:
    assert {parameter.dtype for parameter in built.model.parameters()} == {torch.float32}


def test_the_bridge_is_the_same_for_the_same_seed_and_another_for_another(config: RunConfig) -> None:
    one, again, other = (build(config.model_copy(update={"seed": seed}), language=False).model.projection.weight for seed in (0, 0, 1))  # type: ignore[union-attr]
    assert torch.equal(one, again)  # type: ignore[arg-type]
    assert not torch.equal(one, other)  # type: ignore[arg-type]


def test_answers_of_a_batch_are_the_answers_one_by_one(built: Built, batch: Batch, prompter: Prompter) -> None:
    queries = ["objects", "what is behind", "in which direction is the red circle", "describe the object on the right"]
    with torch.inference_mode():
        tokens = built.model.image_tokens(batch.pixels)[[0, 1, 2, 0]]

    def answer(rows: list[int]) -> list[str]:
        ids, mask, _ = prompter.collate([prompter.question(queries[row]) for row in rows])
        return prompter.decode(built.model.generate(tokens[rows], ids, mask, max_new_tokens=16, stop=prompter.stop, pad=prompter.pad))

    assert answer([0, 1, 2, 3]) == [answer([row])[0] for row in range(4)]
