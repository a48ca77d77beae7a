"""The figures of a plan as words: what a terminal prints, and the pieces of it that a page shows."""

from datetime import timedelta

from panollava.estimate import Memory
from panollava.preflight import Part, StageFigures

UNKNOWN = "not known yet"
PARTS = ("vision", "resampler", "projection", "language", "lora", "expander")


def rows(stages: list[StageFigures]) -> list[list[str]]:
    """One column a stage, the first row the heading."""
    described = [described_stage(stage) for stage in stages]
    lines = [[name, *(each[name] for each in described)] for name in described[0]]
    return [["", *(str(stage.stage) for stage in stages)], *(line for line in lines if any(line[1:]))]


def described_stage(figures: StageFigures) -> dict[str, str]:
    """A stage's figures by what they are of; empty where it has no such thing."""
    return {
        "minimises": figures.loss,
        "learns": share(figures),
        **{f"  {name}": _part(figures.parts.get(name)) for name in PARTS},
        "image tokens": f"{count(figures.image_tokens)} of {figures.views} views",
        "text tokens": text_tokens(figures),
        "samples": count(figures.samples),
        "steps": steps(figures),
        "batch": batch(figures),
        "memory": memory(figures),
        **{f"  {name}": gigabytes(getattr(figures.memory, name)) if figures.memory else "" for name in Memory.model_fields},
        "FLOPs a sample": UNKNOWN if figures.flops_per_sample is None else f"{figures.flops_per_sample / 1e9:,.4g} G",
        "time": UNKNOWN if figures.seconds is None else f"about {duration(figures.seconds)}",
    }


def count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def share(figures: StageFigures) -> str:
    if figures.learning is None or figures.parameters is None:
        return UNKNOWN
    return f"{figures.learning:,} of {figures.parameters:,} parameters"


def text_tokens(figures: StageFigures) -> str:
    if figures.text_tokens is None:
        return ""
    turns = "" if figures.turn_tokens is None else f", {figures.turn_tokens} of them the model's turns"
    return f"at most {figures.text_tokens}{turns}"


def steps(figures: StageFigures) -> str:
    return UNKNOWN if figures.steps is None else f"{figures.steps:,}, {figures.steps_per_epoch:,} an epoch"


def batch(figures: StageFigures) -> str:
    """`16 samples x 2 micro-batches x 1 device`"""
    devices = f"{figures.devices} {figures.device if figures.device == 'CPU' else figures.device + ('s' if figures.devices > 1 else '')}"
    return f"{figures.micro_batch} x {figures.accumulation} micro-batch{'es' if figures.accumulation > 1 else ''} x {devices}"


def memory(figures: StageFigures) -> str:
    return UNKNOWN if figures.memory is None else f"about {gigabytes(figures.memory.total)} on each {figures.device}"


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _part(part: Part | None) -> str:
    return "" if part is None else f"{count(part.parameters)}{', learns' if part.learns else ''}"
