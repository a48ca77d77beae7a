"""One question about one panorama."""

from pathlib import Path

import torch

from panollava.data.images import BadImage, load_panorama, unusable
from panollava.errors import BadInput
from panollava.evaluation.answer import load


def ask(checkpoint: Path, image: Path, query: str, max_new_tokens: int) -> str:
    """The answer as text. Raises BadInput for a file that is no panorama or no checkpoint."""
    if not query.strip():
        raise BadInput("--query is empty.")
    try:
        panorama = load_panorama(image)
    except BadImage as error:
        raise BadInput(f"{image}: {error.reason}.") from None
    if reason := unusable(panorama.shape[1], panorama.shape[0]):
        raise BadInput(f"{image}: {reason}.")
    answerer = load(checkpoint)
    tokens = answerer.encode(torch.from_numpy(answerer.cutter(panorama))[None])
    return answerer.answer(tokens, [query], max_new_tokens)[0]
