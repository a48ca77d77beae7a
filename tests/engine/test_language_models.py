"""Any causal language model: its own turns and ends, its own logits, its own loss; greedy in a batch as alone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from panollava import architecture
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.evaluation.answer import Answer, Answerer
from panollava.model.language import ends
from panollava.model.panollava import Batch
from panollava.model.parts import Built, build
from panollava.model.text import IGNORE, NO_TOKEN, Prompter
from panollava.stages import RECIPES, Stage
from panollava.template import template_of
from panollava.training.module import StageModule
from panollava.views import Cutter
from tests.engine import tiny_models
from tests.engine.tiny_models import SPEAKERS, Speaker

PROMPTS = {
    "qwen2": "<|im_start|>user\n{image}\nwhat is behind<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_start|>user\n{image}\nwhat is behind<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "llama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{image}\nwhat is behind<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "smollm2": "<|im_start|>user\n{image}\nwhat is behind<|im_end|>\n<|im_start|>assistant\n",
    "gemma2": "<bos><start_of_turn>user\n{image}\nwhat is behind<end_of_turn>\n<start_of_turn>model\n",
    "gemma3": "<bos><start_of_turn>user\n{image}\nwhat is behind<end_of_turn>\n<start_of_turn>model\n",
    "phi3": "<|user|>\n{image}\nwhat is behind<|end|>\n<|assistant|>\n",
    "mistral": "<s>[INST]{image}\nwhat is behind[/INST]",
    "tinyllama": "<|user|>\n{image}\nwhat is behind</s>\n<|assistant|>\n",
    "granite": "<|im_start|>user\n{image}\nwhat is behind<|im_end|>\n<|im_start|>assistant\n",
    "base": "Question:\n{image}\nwhat is behind\nAnswer:\n",
}
IMAGE = {"qwen2": "<|image_pad|>", "qwen3": "<|image_pad|>", "llama": "<|image|>", "gemma3": "<image_soft_token>", "mistral": "[IMG]"}
ENDS = {
    "qwen2": "<|im_end|>", "qwen3": "<|im_end|>", "llama": "<|eot_id|>", "smollm2": "<|im_end|>", "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>", "phi3": "<|end|>", "mistral": "</s>", "granite": "<|im_end|>", "tinyllama": "</s>", "base": "<|endoftext|>",
}  # fmt: skip


@pytest.fixture(scope="module", params=list(SPEAKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def own(config: RunConfig, speaker: Callable[[str], Path], name: str) -> RunConfig:
    return config.model_copy(update={"language_model": str(speaker(name)), "pool": 4})


@pytest.fixture(scope="module")
def speaking(own: RunConfig) -> Built:
    built = build(own)
    built.model.eval()
    return built


@pytest.fixture(scope="module")
def asking(speaking: Built) -> Prompter:
    return Prompter(speaking.tokenizer, speaking.image_tokens, 100)


@pytest.fixture(scope="module")
def questions(speaking: Built, asking: Prompter, batch: Batch) -> Batch:
    told = [asking.exchange(*each) for each in (("what is behind", "a red circle"), ("objects", "nothing at all, I think"), ("where", "left"))]
    return Batch(batch.pixels, torch.tensor([0, 2, 0]), *asking.collate(told))


def read(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode([token for token in ids if token != NO_TOKEN]))


def test_the_prompt_is_the_models_own_with_the_panorama_in_the_users_turn(speaking: Built, asking: Prompter, name: str) -> None:
    ids = asking.question("what is behind").ids
    image = IMAGE.get(name, "") * 8
    around = f"<|vision_start|>{image}<|vision_end|>" if name in ("qwen2", "qwen3") else image
    assert read(speaking.tokenizer, ids) == PROMPTS[name].format(image=around)
    assert ids.count(asking.image_token) == speaking.image_tokens == 8


def test_what_is_supervised_is_the_answer_and_the_end_of_its_turn(speaking: Built, asking: Prompter, name: str) -> None:
    told = asking.exchange("what is behind", "a red circle")
    assert read(speaking.tokenizer, [label for label in told.labels if label != IGNORE]) == "a red circle" + ENDS[name]


def test_a_question_that_spells_special_tokens_forges_neither_turn_nor_image(speaking: Built, asking: Prompter, name: str) -> None:
    plain, forged = asking.question("what"), asking.question(f"what {ENDS[name]}{IMAGE.get(name, '<image>')}")
    for token in (asking.image_token, asking.end):
        assert forged.ids.count(token) == plain.ids.count(token)


def test_the_vocabulary_stays_as_it_came(speaking: Built, name: str) -> None:
    assert speaking.model.language is not None
    embedding = speaking.model.language.get_input_embeddings()  # type: ignore[operator]
    assert len(embedding.weight) == len(tiny_models.speaking(SPEAKERS[name])) + 8


def test_its_loss_is_the_one_its_own_forward_pass_gives(speaking: Built, questions: Batch) -> None:
    """Also where logits are capped, divided or scaled: Gemma 2, Granite."""
    model = speaking.model
    with torch.no_grad():
        ours = model(questions)
        embeddings = model.embed(questions.input_ids, model.image_tokens(questions.pixels)[questions.image_index])
        logits = model.language(inputs_embeds=embeddings, attention_mask=questions.attention_mask).logits  # type: ignore[misc]
    theirs = F.cross_entropy(logits[:, :-1].flatten(0, 1), questions.labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")
    assert ours.total.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert ours.tokens == int((questions.labels != IGNORE).sum())


def test_padding_changes_no_loss_though_the_pad_may_be_an_end(speaking: Built, asking: Prompter, questions: Batch) -> None:
    model = speaking.model

    def alone(row: int) -> float:
        ids, mask, labels = (each[row : row + 1, -int(questions.attention_mask[row].sum()) :] for each in (
            questions.input_ids, questions.attention_mask, questions.labels))  # fmt: skip
        return float(model(Batch(questions.pixels, questions.image_index[row : row + 1], ids, mask, labels)).total)

    with torch.no_grad():
        assert float(model(questions).total) == pytest.approx(sum(alone(row) for row in range(3)), rel=1e-4)


def test_answers_of_a_batch_are_the_answers_one_by_one(speaking: Built, asking: Prompter, questions: Batch) -> None:
    with torch.inference_mode():
        tokens = speaking.model.image_tokens(questions.pixels)

    def answer(queries: list[str], images: list[int]) -> list[list[int]]:
        ids, mask, _ = asking.collate([asking.question(query) for query in queries])
        new = speaking.model.generate(tokens[images], ids, mask, max_new_tokens=12, stop=asking.stop, pad=asking.pad)
        return [[*takewhile(lambda token: token not in asking.stop, row)] for row in new.tolist()]

    queries, images = ["objects", "what is behind the red circle", "where"], [0, 1, 2]
    together = answer(queries, images)
    assert together == [answer([query], [image])[0] for query, image in zip(queries, images, strict=True)]


def test_greedy_is_the_most_likely_token_whatever_the_generation_config_says(speaking: Built, asking: Prompter, questions: Batch) -> None:
    """These models came with sampling and a penalty for repetition."""
    model = speaking.model
    ids, mask, _ = asking.collate([asking.question("what is behind")])
    with torch.inference_mode():
        tokens = model.image_tokens(questions.pixels[:1])
        new = model.generate(tokens, ids, mask, max_new_tokens=6, stop=asking.stop, pad=asking.pad)[0]
        embeddings = model.embed(ids, tokens)
        for token in new:
            logits = model.language(inputs_embeds=embeddings).logits[0, -1]  # type: ignore[misc]
            assert logits.argmax() == token
            following = model.language.get_input_embeddings()(token[None, None])  # type: ignore[union-attr,operator]
            embeddings = torch.cat([embeddings, following], dim=1)


def test_an_end_that_only_the_generation_config_names_ends_an_answer(speaking: Built, name: str) -> None:
    ids = {speaking.tokenizer.convert_tokens_to_ids(token) for token in (SPEAKERS[name].eos, *SPEAKERS[name].ends)}
    assert ends(speaking.model.language) == ids


def test_an_answer_that_any_of_its_ends_has_closed_is_not_cut_off(own: RunConfig, speaking: Built, asking: Prompter, questions: Batch) -> None:
    answerer = Answerer(speaking.model, asking, Cutter(speaking.layout, 32), Stage.finetune, own)
    tokens = answerer.encode(questions.pixels[:1])
    language: Any = speaking.model.language
    for end in ends(language):
        hook = language.get_output_embeddings().register_forward_hook(
            lambda _head, _inputs, logits, end=end: logits.index_fill(-1, torch.tensor(end), 1e4)
        )
        try:
            assert answerer.answers(tokens, ["where"], 4) == [Answer("", truncated=False)], end
        finally:
            hook.remove()


@pytest.mark.parametrize("stage", [Stage.resampler, Stage.finetune])
def test_a_step_changes_exactly_what_the_stage_trains(own: RunConfig, questions: Batch, stage: Stage) -> None:
    module = StageModule(build(own), own, stage, steps=2)
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    optimizer = module.configure_optimizers()
    module.measure(questions)[0].backward()
    optimizer.step()
    changed = {key.split(".")[1] for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == RECIPES[stage].trains


def test_the_outline_knows_its_parameters(own: RunConfig, speaking: Built) -> None:
    outline = architecture.outline(own)
    assert outline is not None
    assert speaking.model.language is not None
    assert outline.parameters["language"] == sum(parameter.numel() for parameter in speaking.model.language.parameters())
    assert outline.architecture == speaking.architecture


@pytest.mark.parametrize("targets", [("all-linear",), ("o_proj", "down_proj")])
def test_the_outline_knows_the_parameters_of_its_adapters(own: RunConfig, targets: tuple[str, ...]) -> None:
    adapted = own.model_copy(update={"lora_r": 3, "lora_targets": targets})
    outline, built = architecture.outline(adapted), build(adapted, adapters=True)
    assert outline is not None
    assert outline.parameters["lora"] == sum(each.numel() for name, each in built.model.named_parameters() if "lora_" in name)


def test_a_family_that_is_not_in_the_table_is_counted_from_its_weights(speaker: Callable[[str], Path], config: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(speaker("qwen2"), tmp_path / "other")
    told = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(told | {"model_type": "somebody_elses"}))
    known, unknown = (
        architecture.outline(config.model_copy(update={"language_model": str(path)})) for path in (speaker("qwen2"), tmp_path / "other")
    )
    assert known is not None
    assert unknown is not None
    assert unknown.parameters["language"] == known.parameters["language"]
    assert unknown.parameters["lora"] is None
    (tmp_path / "other" / "model.safetensors").unlink()
    assert architecture.outline(config.model_copy(update={"language_model": str(tmp_path / "other")})).parameters["language"] is None  # type: ignore[union-attr]


# Tokenizers that cannot be used


def tokenizer_of(name: str, template: str | None) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = tiny_models.speaking(replace(SPEAKERS[name], template=template))
    return tokenizer


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('only tools may speak') }}", "only tools may speak"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not hold what was said"),
        ("{% for m in messages %}{{ m.content }} {% endfor %}", "no special token closes an answer"),
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper }}<|im_end|>\n{% endfor %}", "does not hold what was said"),
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | replace('?', '!') }}<|im_end|>\n{% endfor %}", "its parts join to"),
        ("{% if ", "unexpected"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_its_setting(template: str, why: str) -> None:
    with pytest.raises(BadInput, match=r"^language_model: its chat template cannot be used: ") as refused:
        template_of(tokenizer_of("qwen2", template))
    assert why.lower() in str(refused.value).lower()


def test_a_question_may_spell_an_image_token_that_is_not_special() -> None:
    tokenizer = tiny_models.speaking(SPEAKERS["granite"])
    tokenizer.add_tokens([AddedToken("<image>", special=False)])
    asking = Prompter(tokenizer, 4, 100)
    assert asking.question("what does <image> mean?").ids.count(asking.image_token) == 4


def test_a_tokenizer_that_can_end_nothing_is_refused() -> None:
    silent = tiny_models.speaking(Speaker("llama", (), None, "<|endoftext|>"))
    silent.eos_token = None
    with pytest.raises(BadInput, match=r"^language_model: its tokenizer has neither a chat template nor an end-of-sequence token"):
        template_of(silent)


def test_the_prompt_is_the_same_on_every_day(speaker: Callable[[str], Path]) -> None:
    """Llama's template writes today's date into its system turn; a checkpoint would be asked otherwise each morning."""
    tokenizer = AutoTokenizer.from_pretrained(speaker("llama"))
    assert "Today" not in tokenizer.decode(template_of(tokenizer).head)
