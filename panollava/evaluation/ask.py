"""One question about one panorama."""

from pathlib import Path

import torch

from panollava.data.images import BadImage, read_panorama, unusable
from panollava.errors import BadInput
from panollava.evaluation.answer import cutter_of, load
from panollava.training.data import reading_of
from panollava.training.weights import describe


def ask(checkpoint: Path, image: Path, query: str, max_new_tokens: int, *, partial: bool = False) -> str:
    """The answer as text. `partial` takes an image for a part of a panorama, also where the checkpoint has learned from whole ones only.

    Raises BadInput for a file that is no panorama or no checkpoint.
    """
    if not query.strip():
        raise BadInput("--query is empty.")
    config, _, architecture = describe(checkpoint)
    if partial:
        config = config.model_copy(update={"allow_partial_pano": True})
    cutter = cutter_of(config, architecture.image_size)
    try:
        panorama = read_panorama(image, reading_of(config, cutter))
    except BadImage as error:
        raise BadInput(f"{image}: {error.reason}.") from None
    if reason := unusable(panorama.picture.width, panorama.picture.height, config.allow_partial_pano):
        raise BadInput(f"{image}: {reason}.")
    answerer = load(checkpoint)
    tokens = answerer.encode(torch.from_numpy(cutter(panorama.pixels))[None])
    return answerer.answer(tokens, [query], max_new_tokens)[0]
