"""Make the tiny pretrained models that ship in `panollava/demo_models`, from a seed, with a log and a gate.

    python tools/demo_models.py language --out DIR --seed 0    a language model that reads a visual prefix
    python tools/demo_models.py vision   --out DIR --seed 0    a vision encoder that tells colours and shapes apart

The language model stays frozen in every stage, so it must have learned to read image tokens before: it trains on prefixes made
from ground truth, in the product's own prompt. It never sees a picture. The encoder never sees a question. Neither sees a panorama
of the demo's data, and no bridge between them is trained here: that is what the demo's stages do.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer

from panollava import views
from panollava.data import panoshapes as shapes
from panollava.data.panoshapes import Question, Scene
from panollava.metrics import grounding
from panollava.metrics.captions import Prediction
from panollava.model.panollava import PanoLlava
from panollava.model.template import END, TURN
from panollava.model.text import IGNORE, IMAGES, LOOK, LOOKED, Encoded, Prompter

VIEWS, FOV, SIZE, PATCH, POOL = 8, 90.0, 32, 8, 2
GRID = SIZE // PATCH // POOL  # pooled cells per side of a view
TOKENS = VIEWS * GRID * GRID
WIDTH, VISION_WIDTH = 128, 96
TEXT = 64
SCENES, QUESTIONS = 20, 8
"""Scenes of a language model's step, and questions about each."""
FIGURES = {"colour": list(shapes.COLOURS), "shape": list(shapes.SHAPES), "direction": list(shapes.DIRECTIONS)}
NAMES = [(colour, shape) for colour in shapes.COLOURS for shape in shapes.SHAPES]


class Log:
    """Lines for a person and for the record that ships beside the models."""

    def __init__(self, path: Path, **about: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.began = path.open("w"), time.monotonic()
        self(**about)

    def __call__(self, **values: Any) -> None:
        line = json.dumps({"seconds": round(time.monotonic() - self.began, 1), **values})
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


# the language model -------------------------------------------------------------------


def make_tokenizer(directory: Path) -> None:
    """Byte-level BPE with Qwen's own splitting, in which every word of PanoShapes is one token and any other text is bytes."""
    rng = np.random.default_rng(0)
    texts = ["user\n", "assistant\n"]
    for _ in range(3000):
        for question in shapes.every_question(shapes.sample_scene(rng), rng):
            texts += [question.query, *question.references]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    words.train_from_iterator(texts, trainer)
    learned = json.loads(words.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    Qwen2Tokenizer(vocab=learned["vocab"], merges=merges, extra_special_tokens=[TURN, END, LOOK, LOOKED, IMAGES[0]]).save_pretrained(directory)


def make_language(tokenizer: Any) -> Qwen2ForCausalLM:
    end = tokenizer.convert_tokens_to_ids(END)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
            num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
            tie_word_embeddings=True, max_position_embeddings=1024, bos_token_id=None, eos_token_id=end, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


class Prefix:
    """What a good projection could emit: each image token a mixture of the words for what its cell shows, under random distortions."""

    def __init__(self, tokenizer: Any, language: Qwen2ForCausalLM) -> None:
        self.language = language
        self.words = {word: self._token(tokenizer, f" {word}") for figure in ("colour", "shape") for word in FIGURES[figure]}
        self.nothing = self._token(tokenizer, "nothing")

    @staticmethod
    def _token(tokenizer: Any, text: str) -> int:
        (token,) = tokenizer(text, add_special_tokens=False)["input_ids"]
        return int(token)

    def __call__(self, scenes: Sequence[Scene], rng: np.random.Generator, noise: float) -> Tensor:
        """Image tokens [B, N, L]."""
        count = len(scenes)
        table = self.language.get_input_embeddings().weight
        colour, shape = np.zeros((2, count, 4), int)
        for row, scene in enumerate(scenes):
            for thing in scene:
                colour[row, thing.sector], shape[row, thing.sector] = self.words[thing.colour], self.words[thing.shape]
        share = coverage(scenes)  # [B, 4, V, G, G]
        spread = rng.random((count, 1, 1, 1, 1)) < 0.4  # an encoder may share what it sees over the rows
        share = np.where(spread, np.maximum(share, share.mean(-2, keepdims=True)), share)
        share = np.clip(share * np.exp(rng.normal(0.6, 0.5, (count, 1, 1, 1, 1))), 0, 1)
        share = share * (rng.random(share.shape) > 0.1)  # some tokens miss the object
        share = share / np.maximum(share.sum(1, keepdims=True), 1)
        weight = torch.from_numpy(share.astype(np.float32)).to(table.device).reshape(count, 4, TOKENS).transpose(1, 2)  # [B, N, 4]
        objects = table[torch.from_numpy(colour).to(table.device)] + table[torch.from_numpy(shape).to(table.device)]  # [B, 4, L]
        tokens = weight @ objects + (1 - weight.sum(-1, keepdim=True)) * table[self.nothing]
        rms = tokens.detach().pow(2).mean().sqrt()
        gain = torch.from_numpy(np.exp(rng.normal(0, 0.3, (count, 1, 1)))).float().to(table.device)
        level = torch.from_numpy(rng.uniform(0, 2 * noise, (count, 1, 1))).float().to(table.device)
        return tokens * gain + level * rms * torch.randn_like(tokens)


def coverage(scenes: Sequence[Scene]) -> np.ndarray[Any, Any]:
    """Share of each pooled cell that the object of each sector covers, by its bounding box: float32 [B, 4, V, G, G]."""
    yaw, pitch, size = np.zeros((3, len(scenes), 4))
    for row, scene in enumerate(scenes):
        for thing in scene:
            yaw[row, thing.sector], pitch[row, thing.sector], size[row, thing.sector] = thing.yaw, thing.pitch, thing.size
    off = np.radians((yaw[..., None] - 360 / VIEWS * np.arange(VIEWS) + 180) % 360 - 180)  # [B, 4, V] from each view's axis
    x = np.where(np.abs(off) < math.radians(75), np.tan(np.clip(off, -1.3, 1.3)), 9.0)
    y = np.tan(np.radians(pitch))[..., None] / np.cos(np.clip(off, -1.3, 1.3))
    edges = np.linspace(-1, 1, GRID + 1)

    def share(centre: Any, reach: Any) -> Any:
        low, high = np.maximum((centre - reach)[..., None], edges[:-1]), np.minimum((centre + reach)[..., None], edges[1:])
        return np.clip(high - low, 0, None) / (2 / GRID)

    reach = size[..., None] / np.cos(np.clip(off, -1.0, 1.0))
    covered = share(-y, reach)[..., :, None] * share(x, reach)[..., None, :]
    return np.asarray(covered * (size > 0)[..., None, None, None], np.float32)


def train_language(out: Path, seed: int, steps: int, gate: float, device: str) -> None:
    directory = out / "language"
    log = Log(out / "language.log.jsonl", what="language model", seed=seed, steps=steps, gate=gate, device=name_of(device), torch=torch.__version__)
    make_tokenizer(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    language = make_language(tokenizer).to(device)
    prompter = Prompter(tokenizer, TOKENS, TEXT)
    shell = PanoLlava(
        nn.Identity(), nn.Identity(), nn.Identity(), language, pool=POOL, image_token=prompter.image_token, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    prefix, exchange = Prefix(tokenizer, language), lru_cache(None)(prompter.exchange)
    place = nn.Linear(WIDTH, VIEWS).to(device)
    learning = [*language.parameters(), *place.parameters()]
    optimizer, schedule = adamw(learning, 2e-3, steps, warm=0.05)
    view = torch.arange(VIEWS, device=device).repeat_interleave(TOKENS // VIEWS)
    log(parameters=sum(p.numel() for p in language.parameters()), vocabulary=len(tokenizer))
    losses: list[float] = []
    for step in range(1, steps + 1):
        scenes = [shapes.sample_scene(rng, p_object=rng.uniform(0.6, 0.9), p_seam=0.3) for _ in range(SCENES)]
        asked = [[shapes.random_question(scene, rng) for _ in range(QUESTIONS)] for scene in scenes]
        pack = Pack.of(prompter, [[exchange(each.query, each.references[rng.integers(3)]) for each in row] for row in asked])
        ids, labels, positions, bias = (t.to(device) for t in (pack.ids, pack.labels, pack.positions, pack.bias))
        inputs = shell.embed(ids, prefix(scenes, rng, 0.3 * min(1, step / (0.5 * steps))))
        mask = bias.expand(len(ids), 1, -1, -1)
        output = language.model(inputs_embeds=inputs, attention_mask=mask, position_ids=positions.expand_as(ids), output_hidden_states=True)
        kept = labels[:, 1:] != IGNORE
        loss = F.cross_entropy(language.lm_head(output.last_hidden_state[:, :-1][kept]), labels[:, 1:][kept])
        # Telling the place of a thing is learned late and by luck unless image tokens know their own place early: a throw-away
        # head asks the first layer which view each of them belongs to.
        placed = place(output.hidden_states[1][ids == prompter.image_token])
        (loss + 0.3 * F.cross_entropy(placed, view.repeat(len(ids)))).backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            losses.append(float(loss.detach()))
        if step % 250 == 0 or step == steps:
            figures = read_test(shell, prompter, prefix)
            log(step=step, loss=round(float(np.mean(losses[-5:])), 4), **figures)
            if step >= steps // 2 and min(figures.values()) >= gate:
                break
    language.generation_config.eos_token_id = prompter.stop
    language.cpu().save_pretrained(directory)
    passed = min(figures.values()) >= gate
    log(passed=passed)
    if not passed:
        raise SystemExit(f"The gate of {gate} was not reached: {figures}")


@dataclass(frozen=True)
class Pack:
    """Several questions behind one prefix, none of which sees another: what they cost apart, at half the price."""

    ids: Tensor  # [B, T]: the head, then QUESTIONS parts of equal width
    labels: Tensor  # [B, T]
    positions: Tensor  # [T], each part counts on from the head
    bias: Tensor  # [T, T] added to attention scores: 0 where a token may look, else -inf

    @classmethod
    def of(cls, prompter: Prompter, exchanges: Sequence[Sequence[Encoded]]) -> "Pack":
        head, width = len(prompter.head), max(len(each.ids) for row in exchanges for each in row) - len(prompter.head)
        ids = torch.full((len(exchanges), head + QUESTIONS * width), prompter.pad)
        labels = torch.full_like(ids, IGNORE)
        ids[:, :head] = torch.tensor(prompter.head)
        for row, questions in enumerate(exchanges):
            for number, each in enumerate(questions):
                start, length = head + number * width, len(each.ids) - head
                ids[row, start : start + length] = torch.tensor(each.ids[head:])
                labels[row, start : start + length] = torch.tensor(each.labels[head:])
        positions = torch.cat([torch.arange(head), torch.arange(head, head + width).repeat(QUESTIONS)])
        part = torch.cat([torch.zeros(head, dtype=torch.long), torch.arange(1, QUESTIONS + 1).repeat_interleave(width)])
        before = torch.ones(len(part), len(part)).tril().bool()
        sees = before & ((part[:, None] == part) | (part == 0))
        return cls(ids, labels, positions, torch.zeros(sees.shape).masked_fill(~sees, -torch.inf))


@torch.no_grad()
def read_test(shell: PanoLlava, prompter: Prompter, prefix: Prefix, scenes: int = 150) -> dict[str, float]:
    """Accuracy on prefixes of unseen scenes: every figure, and direction across the seam by itself."""
    rng = np.random.default_rng(99)
    drawn = [shapes.sample_scene(rng, p_object=0.8, p_seam=0.9) for _ in range(scenes)]
    asked = [(i, question) for i, scene in enumerate(drawn) for question in shapes.every_question(scene, rng)]
    tokens = prefix(drawn, rng, 0.2)
    answers: list[Prediction] = []
    for start in range(0, len(asked), 256):
        part = asked[start : start + 256]
        ids, mask, _ = (t.to(tokens.device) for t in prompter.collate([prompter.question(q.query) for _, q in part]))
        said = prompter.decode(shell.generate(tokens[[i for i, _ in part]], ids, mask, max_new_tokens=32, stop=prompter.stop, pad=prompter.pad))
        answers += [prediction(str(i), question, text) for (i, question), text in zip(part, said, strict=True)]
    scores = grounding.score(answers, FIGURES)
    exact = sum(answer.prediction in answer.references for answer in answers if answer.kind == "overview") / scenes
    figures = {name: scores[name].accuracy or 0.0 for name in ("colour", "shape", "direction", "nothing")}
    return {
        name: round(value, 4) for name, value in (figures | {"direction_seam": scores["direction"].seam_accuracy or 0.0, "overview": exact}).items()
    }


def prediction(url: str, question: Question, text: str) -> Prediction:
    return Prediction(
        url=url, query=question.query, references=list(question.references), prediction=text, condition="image",
        kind=question.kind, template=question.template, expect=question.expect, seam=question.seam,
    )  # fmt: skip


# the vision encoder -----------------------------------------------------------------------


def train_vision(out: Path, seed: int, steps: int, gate: float, device: str) -> None:
    directory = out / "vision"
    log = Log(out / "vision.log.jsonl", what="vision encoder", seed=seed, steps=steps, gate=gate, device=name_of(device), torch=torch.__version__)
    torch.manual_seed(seed)
    scenes, pixels = render(5000, 1000 + seed)
    held, held_pixels = render(200, 2000 + seed)
    log(rendered=len(scenes) + len(held))
    vision = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=VISION_WIDTH, intermediate_size=2 * VISION_WIDTH, num_hidden_layers=3, num_attention_heads=4,
            image_size=SIZE, patch_size=PATCH, vision_use_head=False,
        )
    )  # fmt: skip
    shell = PanoLlava(vision, nn.Identity(), nn.Identity(), None, pool=POOL, image_token=0, mean=(0.5,) * 3, std=(0.5,) * 3)
    head = nn.Linear(VISION_WIDTH, len(shapes.COLOURS) + len(shapes.SHAPES) + len(NAMES))
    both = nn.ModuleList([shell, head]).to(device)
    pixels, held_pixels, targets, held_targets = (t.to(device) for t in (pixels, held_pixels, seen(scenes), seen(held)))
    optimizer, schedule = adamw(both.parameters(), 1.5e-3, steps, warm=0.1)
    rng = np.random.default_rng(seed)
    for step in range(1, steps + 1):
        drawn = torch.from_numpy(rng.integers(len(scenes), size=32)).to(device)
        views_ = pixels[drawn].float()
        noisy = views_ + 0.03 * 127.5 * torch.randn_like(views_)
        loss = F.binary_cross_entropy_with_logits(head(shell.image_tokens(noisy)), targets[drawn])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps:
            figures = see_test(shell, head, held_pixels, held_targets)
            log(step=step, loss=round(float(loss.detach()), 4), **figures)
    vision.cpu().save_pretrained(directory)
    SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(directory)
    passed = min(figures.values()) >= gate
    log(passed=passed)
    if not passed:
        raise SystemExit(f"The gate of {gate} was not reached: {figures}")


def render(count: int, seed: int) -> tuple[list[Scene], Tensor]:
    """Scenes and their views uint8 [count, V, S, S, 3]."""
    rng, draw, cut = np.random.default_rng(seed), shapes.Renderer(), views.Cutter(views.ring(VIEWS, FOV), SIZE)
    scenes = [shapes.sample_scene(rng, p_seam=0.3) for _ in range(count)]
    return scenes, torch.from_numpy(np.stack([cut(draw(scene, rng)) for scene in scenes]))


def seen(scenes: Sequence[Scene]) -> Tensor:
    """What each pooled cell shows, multi-hot: [B, N, colours + shapes + colour x shape]."""
    shown = coverage(scenes).reshape(len(scenes), 4, TOKENS) > 0.12
    colours, kinds = list(shapes.COLOURS), list(shapes.SHAPES)
    targets = np.zeros((len(scenes), TOKENS, len(colours) + len(kinds) + len(NAMES)), np.float32)
    for row, scene in enumerate(scenes):
        for thing in scene:
            cells = np.flatnonzero(shown[row, thing.sector])
            columns = [
                colours.index(thing.colour),
                len(colours) + kinds.index(thing.shape),
                len(colours) + len(kinds) + NAMES.index((thing.colour, thing.shape)),
            ]
            for column in columns:
                targets[row, cells, column] = 1
    return torch.from_numpy(targets)


@torch.no_grad()
def see_test(shell: PanoLlava, head: nn.Module, pixels: Tensor, targets: Tensor) -> dict[str, float]:
    logits = torch.cat([head(shell.image_tokens(part)) for part in pixels.split(50)])
    colours, end = len(shapes.COLOURS), len(shapes.COLOURS) + len(shapes.SHAPES)
    one = targets[..., :colours].sum(-1) == 1
    parts = {"colour": slice(0, colours), "shape": slice(colours, end)}
    return {name: round(float((logits[..., p].argmax(-1) == targets[..., p].argmax(-1))[one].float().mean()), 4) for name, p in parts.items()}


def adamw(parameters: Any, lr: float, steps: int, warm: float) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    rise = warm * steps
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))
    )


def name_of(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["language", "vision"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "panollava" / "demo_models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--gate", type=float, default=0.98)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.what == "language":
        train_language(args.out, args.seed, args.steps or 3500, args.gate, args.device)
    else:
        train_vision(args.out, args.seed, args.steps or 3500, args.gate, args.device)


if __name__ == "__main__":
    main()
