"""One question about one panorama."""

from pathlib import Path

import torch

from panollava.data.images import BadImage, load_panorama, unusable
from panollava.errors import BadInput
from panollava.evaluation.answer import load
from panollava.training.weights import describe


def ask(checkpoint: Path, image: Path, query: str, max_new_tokens: int, *, partial: bool = False) -> str:
    """The answer as text. `partial` takes an image for a part of a panorama, also where the checkpoint has learned from whole ones only.

    Raises BadInput for a file that is no panorama or no checkpoint.
    """
    if not query.strip():
        raise BadInput("--query is empty.")
    partial = partial or describe(checkpoint)[0].allow_partial_pano
    try:
        panorama = load_panorama(image, partial=partial)
    except BadImage as error:
        raise BadInput(f"{image}: {error.reason}.") from None
    if reason := unusable(panorama.shape[1], panorama.shape[0], partial):
        raise BadInput(f"{image}: {reason}.")
    answerer = load(checkpoint)
    tokens = answerer.encode(torch.from_numpy(answerer.cutter(panorama))[None])
    return answerer.answer(tokens, [query], max_new_tokens)[0]
