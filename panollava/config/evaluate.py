"""What an evaluation depends on."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Control = Literal["blank", "shuffled", "rolled", "untrained", "query_swap"]


class EvaluateConfig(BaseModel):
    """One evaluation: behind `panollava evaluate`, `POST /evaluations` and the job's `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str = Field(description="Checkpoint to evaluate: .ckpt, or .safetensors of a finished stage.")
    csv: str = Field(description="Questions: CSV with url, query, annotation; rows of one (url, query) are references of one question.")
    image_root: str | None = Field(None, description="Where relative image paths start, before the CSV's own directory.")
    allow_partial_pano: bool = Field(
        False,
        description="Take an image more than 10 % off 2:1 for a part of a panorama, as a checkpoint does that has learned from such.",
    )
    max_bad_frac: float = Field(0.0, ge=0, lt=1, description="Share of rows that may be unusable; the metrics say how many were left out.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, in tokens.")
    batch_size: int = Field(32, ge=1, description="Questions answered at once; halved, and said so, where they do not fit into memory.")
    limit: int | None = Field(None, ge=1, description="Only the first so many panoramas.")
    controls: tuple[Control, ...] = Field(
        (),
        description="Also ask with a grey image, another panorama's, one rolled by 90 degrees, an untrained resampler, or another question.",
    )
    seed: int = Field(0, ge=0, description="Seed of the untrained resampler.")
    allow_remote: bool = Field(False, description="Download images whose url starts with http:// or https://, once each, into the cache directory.")
    cache: Literal["auto", "views", "off"] = Field(
        "auto",
        description="What is kept on disk for later runs: auto = views of panoramas, and what the vision encoder sees in them; views = views only; "
        "off = nothing, so that each panorama is decoded whenever it is shown.",
    )
    cache_dir: str | None = Field(None, description="Where the cache lies, shared by all runs. Default ~/.cache/panollava.")
    cache_gb: float = Field(50.0, gt=0, description="Largest size of the cache; what was used longest ago is removed first.")
    resume: str | None = Field(
        None, description="Directory of an interrupted evaluation with the same settings, whose answers are kept; output_dir's own are kept anyway."
    )
    output_dir: str | None = Field(None, description="Where predictions.jsonl and metrics.json go; beside the checkpoint if not set.")
