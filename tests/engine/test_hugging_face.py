"""A trained model is one of transformers' own: the directory and the single file stand alone, and say what the checkpoint says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as pil
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from panollava import rundir
from panollava.cli import app
from panollava.config import EvaluateConfig, RunConfig, merge, parse
from panollava.data.images import read_panorama
from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer, load
from panollava.evaluation.ask import ask
from panollava.evaluation.evaluate import evaluate
from panollava.hf import export as exporting
from panollava.hf.describe import self_description
from panollava.hf.export import export
from panollava.model.parts import build
from panollava.stages import Stage
from panollava.training.data import reading_of
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import EXIT_STOPPED, StopRequest
from panollava.training.weights import final_metadata, save_final
from tests.engine.tiny_models import ENCODERS, SPEAKERS

QUERY = "what is behind me?"
FRESH = """
import json, sys
import panollava
from transformers import pipeline

directory, image, query, final = sys.argv[1:]
chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": query}]}]
asking = pipeline("image-text-to-text", model=directory)
said = asking(text=chat, return_full_text=False, max_new_tokens=12)[0]["generated_text"]
inputs = asking.processor.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)
logits = asking.model(**inputs).logits[0, -1].tolist()
from pathlib import Path
from panollava.evaluation.ask import ask
print(json.dumps({"pipeline": said, "logits": logits, "ids": inputs["input_ids"][0].tolist(), "alone": ask(Path(final), Path(image), query, 12)}))
"""


@dataclass(frozen=True)
class Trained:
    """A finetune with adapters whose pretrained models lie where they can be taken away."""

    models: Path
    run: Path

    @property
    def best(self) -> Path:
        return self.run / "checkpoints" / "best.ckpt"

    @property
    def final(self) -> Path:
        return self.run / "model_final.safetensors"


@pytest.fixture(scope="module")
def trained(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("hf")
    for name in ("vision_model", "language_model"):
        shutil.copytree(getattr(config, name), home / "models" / name)
    here = {name: str(home / "models" / name) for name in ("vision_model", "language_model")}
    own = parse(merge(config.model_dump(), here | {"lora_r": 4, "stage": "finetune", "stages": {"finetune": {"lr": 0.01}}}))
    train_stage(StageJob(own, Stage.finetune, home / "run"), StopRequest(home / "run"))
    return Trained(home / "models", home / "run")


@pytest.fixture(scope="module")
def exported(trained: Trained) -> Path:
    return export(trained.best, trained.run / "exported")


@pytest.fixture(scope="module")
def panorama(demo_data: Path) -> Path:
    return next(iter(sorted((demo_data / "images").glob("test_*"))))


def logits(answerer: Answerer, panorama: Path, query: str = QUERY) -> torch.Tensor:
    """By the trainer's own forward path, without transformers' classes of ours. [T, C]"""
    inputs = answerer.prompter.collate([answerer.prompter.question(query)])
    views = torch.from_numpy(answerer.cutter(np.asarray(pil.open(panorama))))[None]
    with torch.no_grad():
        embeddings = answerer.model.embed(inputs[0], answerer.encode(views).clone())
        found: torch.Tensor = answerer.model.language(inputs_embeds=embeddings, attention_mask=inputs[1]).logits[0]  # type: ignore[misc]
    return found


def test_a_fresh_process_that_only_imports_panollava_says_the_same_without_the_pretrained_models(
    trained: Trained, exported: Path, panorama: Path
) -> None:
    answerer = load(trained.best)
    said, expected = ask(trained.best, panorama, QUERY, 12), logits(answerer, panorama)[-1]
    away = trained.models.rename(trained.models.with_name("away"))
    try:
        words = [sys.executable, "-c", FRESH, str(exported), str(panorama), QUERY, str(trained.final)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    finally:
        away.rename(trained.models)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ids"] == answerer.prompter.question(QUERY).ids
    assert torch.tensor(told["logits"]).allclose(expected, atol=1e-5)
    assert told["pipeline"] == told["alone"] == said != ""


def test_transformers_knows_the_model_in_either_order_of_imports() -> None:
    """The other order is the fresh process's above."""
    code = "from transformers import AutoConfig; import panollava; print(AutoConfig.for_model('panollava').model_type)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "panollava", done.stderr


def final_of(config: RunConfig, path: Path) -> Path:
    """The complete file of a model that has learned nothing."""
    built = build(config)
    save_final(built.model, path, final_metadata(config, Stage.finetune, built.architecture) | self_description(built, config, Stage.finetune))
    return path


def same(final: Path, directory: Path, panorama: Path) -> None:
    """A single file and what is exported of it: ids, logits and greedy text."""
    answerer = load(final)
    export(final, directory)
    model, processor = AutoModelForImageTextToText.from_pretrained(directory), AutoProcessor.from_pretrained(directory)
    inputs = processor(images=str(panorama), text=QUERY)
    assert inputs["input_ids"][0].tolist() == answerer.prompter.question(QUERY).ids
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits[0], logits(answerer, panorama), atol=1e-5, rtol=0)
    new = model.generate(**inputs, max_new_tokens=6)[:, inputs["input_ids"].shape[1] :]
    assert processor.post_process_image_text_to_text(new)[0].strip() == ask(final, panorama, QUERY, 6)


@pytest.mark.parametrize("name", SPEAKERS)
def test_every_kind_of_language_model_goes_out_and_in(
    config: RunConfig, speaker: Callable[[str], Path], name: str, tmp_path: Path, panorama: Path
) -> None:
    own = config.model_copy(update={"language_model": str(speaker(name)), "pool": 4})
    same(final_of(own, tmp_path / "model_final.safetensors"), tmp_path / "out", panorama)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_kind_of_vision_encoder_goes_out_and_in(
    config: RunConfig, encoder: Callable[[str], Path], name: str, tmp_path: Path, panorama: Path
) -> None:
    own = config.model_copy(update={"vision_model": str(encoder(name)), "pool": 4})
    same(final_of(own, tmp_path / "model_final.safetensors"), tmp_path / "out", panorama)


@pytest.mark.parametrize(
    "values",
    [
        {"resampler": "perceiver", "pool": 2, "resampler_queries": 5},
        {"resampler": "qformer", "pool": 2, "resampler_layers": 1},
        {"resampler": "avgpool", "resampler_width": None},
        {"crop_strategy": "anyres_e2p", "pitches": (-30.0, 30.0)},
        {"crop_strategy": "cubemap", "overlap": 0.5, "cube_faces": 4, "view_size": 64},
    ],
)
def test_every_bridge_and_layout_goes_out_and_in(config: RunConfig, values: dict[str, Any], tmp_path: Path, panorama: Path) -> None:
    same(final_of(config.model_copy(update=values), tmp_path / "model_final.safetensors"), tmp_path / "out", panorama)


def test_a_model_that_has_learned_from_small_decoding_sees_the_same_wherever_it_is_asked(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = tmp_path / "large.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    pil.fromarray(noise).save(photograph)
    final = final_of(config.model_copy(update={"fast_decode": True}), tmp_path / "model_final.safetensors")
    answerer = load(final)
    learned = answerer.cutter(read_panorama(photograph, reading_of(answerer.config, answerer.cutter)).pixels)
    processor = AutoProcessor.from_pretrained(export(final, tmp_path / "out"))
    assert np.array_equal(processor(images=str(photograph), text=QUERY)["pixel_values"][0], learned)
    shown: list[Any] = []
    monkeypatch.setattr(Answerer, "encode", lambda self, views: shown.append(views) or answerer.model.image_tokens(views))
    ask(final, photograph, QUERY, 1)
    assert np.array_equal(shown[0][0], learned)


def test_it_loads_in_half_precision_too(exported: Path, panorama: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    inputs = AutoProcessor.from_pretrained(exported)(images=str(panorama), text=QUERY)
    exact = AutoModelForImageTextToText.from_pretrained(exported)(**inputs).logits
    assert torch.corrcoef(torch.stack([exact.flatten(), model(**inputs).logits.float().flatten()]))[0, 1] > 0.99


def test_an_export_is_saved_again_as_it_is_and_can_be_trained(exported: Path, panorama: Path, tmp_path: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(exported), AutoProcessor.from_pretrained(exported)
    for each in (model, processor):
        each.save_pretrained(tmp_path)
    again, inputs = AutoModelForImageTextToText.from_pretrained(tmp_path), processor(images=str(panorama), text=QUERY)
    assert AutoProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(float(part.weight.grad.abs().sum()) > 0 for part in (model.model.projection, model.get_input_embeddings()))


def test_a_batch_answers_as_each_alone_and_both_steps_of_a_chat_are_one(exported: Path, demo_data: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(exported), AutoProcessor.from_pretrained(exported)
    images, queries = sorted((demo_data / "images").glob("test_*"))[:2], [QUERY, "and the blue one on the left side, what is it?"]
    chats = [
        [{"role": "user", "content": [{"type": "image", "path": str(image)}, {"type": "text", "text": query}]}]
        for image, query in zip(images, queries, strict=True)
    ]  # fmt: skip
    assert processor.apply_chat_template(chats) == queries
    together = processor.apply_chat_template(chats, tokenize=True, return_dict=True)
    said = processor.post_process_image_text_to_text(model.generate(**together, max_new_tokens=6))
    for chat, image, query, each in zip(chats, images, queries, said, strict=True):
        alone = processor(images=pil.open(image), text=processor.apply_chat_template(chat, add_generation_prompt=True))
        assert torch.equal(alone["input_ids"], processor.apply_chat_template(chat, tokenize=True))
        assert processor.post_process_image_text_to_text(model.generate(**alone, max_new_tokens=6))[0] == each, query


@pytest.mark.parametrize(
    "chat",
    [
        [{"role": "user", "content": "no image"}],
        [{"role": "user", "content": [{"type": "text", "text": "no image"}]}],
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "image", "path": "a"}, {"type": "text", "text": "q"}]}],
        [{"role": "user", "content": [{"type": "image", "path": "a"}, {"type": "image", "path": "b"}, {"type": "text", "text": "q"}]}],
    ],
)
def test_what_the_model_was_not_trained_on_is_refused(exported: Path, chat: Any) -> None:
    with pytest.raises(ValueError, match="answers single questions"):
        AutoProcessor.from_pretrained(exported).apply_chat_template(chat, tokenize=True)


def test_a_photograph_is_no_panorama(exported: Path) -> None:
    with pytest.raises(BadInput, match="640 x 480 pixels are no panorama"):
        AutoProcessor.from_pretrained(exported)(images=np.zeros((480, 640, 3), np.uint8), text=QUERY)


def test_an_array_of_other_numbers_than_bytes_is_refused_and_not_seen_as_black(exported: Path) -> None:
    processor = AutoProcessor.from_pretrained(exported)
    for pixels in (np.ones((64, 128, 3), np.float32), np.ones((3, 64, 128), np.uint8)):
        with pytest.raises(BadInput, match=r"uint8 \[H, W, 3\]"):
            processor(images=pixels, text=QUERY)


def test_an_export_does_not_tell_where_the_pretrained_models_lay(trained: Trained, exported: Path) -> None:
    assert [path.name for path in exported.iterdir() if str(trained.models.parent).encode() in path.read_bytes()] == []


def test_a_directory_that_holds_something_is_refused_and_an_empty_one_is_not(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(trained.final, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    done = CliRunner().invoke(app, ["export", str(trained.final), str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "holds something already" in done.output + done.stderr
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_an_export_that_fails_leaves_nothing(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: Any, **_more: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(exporting.PanoLlavaProcessor, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        export(trained.final, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def told(directory: Path) -> list[tuple[str, str | None]]:
    """How an export says that it began and ended."""
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    return [(each["status"], each.get("reason")) for each in lines]


def test_an_export_for_a_worker_tells_how_it_ends(trained: Trained, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(trained.final), str(tmp_path / "model"), "--job-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "model" / "config.json").is_file()
    assert told(tmp_path) == [("started", None), ("succeeded", None)]
    assert CliRunner().invoke(app, ["export", str(trained.final), str(tmp_path / "model"), "--job-dir", str(tmp_path)]).exit_code == 2
    assert told(tmp_path)[-1] == ("failed", "bad_input")


@pytest.mark.parametrize("when", ["at once", "while it writes"])
def test_an_export_that_is_stopped_leaves_nothing_and_says_so(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    honest = exporting.PanoLlavaProcessor.save_pretrained

    def asked_to_stop(self: Any, *words: Any, **more: Any) -> Any:
        (tmp_path / "stop").touch()
        return honest(self, *words, **more)

    if when == "at once":
        (tmp_path / "stop").touch()
    monkeypatch.setattr(exporting.PanoLlavaProcessor, "save_pretrained", asked_to_stop)
    done = CliRunner().invoke(app, ["export", str(trained.final), str(tmp_path / "model"), "--job-dir", str(tmp_path)])
    assert done.exit_code == EXIT_STOPPED
    assert told(tmp_path)[-1] == ("stopped", "stop_requested")
    assert {path.name for path in tmp_path.iterdir()} == {"events.jsonl", "stop"}


def test_a_file_that_lacks_a_tensor_or_whose_description_is_torn_is_refused(trained: Trained, tmp_path: Path) -> None:
    with safe_open(trained.final, framework="pt") as file:
        told = dict(file.metadata())
    tensors = load_file(trained.final)
    lost = "language.model.norm.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, tmp_path / "lacking.safetensors", told)
    with pytest.raises(BadInput, match=f"lacks 1 of its tensors, such as {lost}"):
        load(tmp_path / "lacking.safetensors")
    save_file(tensors, tmp_path / "torn.safetensors", told | {"tokenizer": told["tokenizer"][:-40]})
    with pytest.raises(BadInput, match="its description of the model cannot be read"):
        load(tmp_path / "torn.safetensors")


def test_the_card_says_what_was_trained_on_what_and_how_well_it_does(trained: Trained, demo_data: Path, tmp_path: Path) -> None:
    (trained.run / "data.json").write_text(json.dumps({"splits": {"train": {"sha256": "abc", "rows": 160, "images": 40, "tables": {}}}}))
    settings = EvaluateConfig(
        checkpoint=str(trained.best), csv=str(demo_data / "test.csv"), limit=3, max_new_tokens=4, output_dir=str(tmp_path / "e")
    )
    evaluate(settings)
    card = (export(trained.best, tmp_path / "out", tmp_path / "e") / "README.md").read_text()
    assert "pipeline_tag: image-text-to-text" in card
    assert "train.csv: 160 rows, 40 panoramas, sha256 `abc`" in card
    step = rundir.read_note(trained.best).step
    assert f"| Stage finetune | autoregressive; {step} steps of" in card
    assert "with LoRA adapters of rank" in card
    assert "Stage vision" not in card, "it was not trained"
    for name in ("cider", "direction"):
        assert " to " in next(line for line in card.splitlines() if line.startswith(f"| {name} |")), name
    with pytest.raises(BadInput, match="an evaluation of another file"):
        export(trained.final, tmp_path / "other", tmp_path / "e")
    assert not (tmp_path / "other").exists()
