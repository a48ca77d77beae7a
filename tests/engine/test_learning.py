"""The whole path learns: from pixels through the frozen language model to the exact answers."""

import torch

from panollava.config import RunConfig
from panollava.model.panollava import Batch, freeze
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.stages import RECIPES, Stage
from panollava.training.data import Split


def test_one_batch_is_learned_by_heart_and_answered_greedily(config: RunConfig, batch: Batch, split: Split, prompter: Prompter) -> None:
    model = build(config).model
    freeze(model, RECIPES[Stage.resampler].trains)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=3e-3)
    for _ in range(150):
        loss = model(batch).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.02
    rows = [split.index.rows[row] for row in (0, 1, 4, 5, 8, 9)]
    with torch.inference_mode():
        tokens = model.eval().image_tokens(batch.pixels)[batch.image_index]
    ids, mask, _ = prompter.collate([prompter.question(row.query) for row in rows])
    answers = prompter.decode(model.generate(tokens, ids, mask, max_new_tokens=32, stop=prompter.stop, pad=prompter.pad))
    assert answers == [row.annotation for row in rows]
