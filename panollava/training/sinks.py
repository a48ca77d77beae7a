"""Where metrics go besides events.jsonl. Weights & Biases is used when a project is named and it can be reached or told to stay offline."""

from collections.abc import Callable

from panollava.config import RunConfig
from panollava.events import Note, Say
from panollava.stages import Stage


def wandb_sink(config: RunConfig, stage: Stage, events: Say) -> Callable[[int, dict[str, float]], None] | None:
    """A function that logs to the named project, or None with a note that says why not. No key is read, asked for or stored by us."""
    if config.wandb_project is None:
        return None
    try:
        import wandb
    except ImportError:
        events.write(Note(level="warning", text="wandb_project is set, but wandb is not installed: pip install 'panollava[wandb]'."))
        return None
    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
        events.write(Note(level="warning", text="wandb_project is set, but there is no login: run `wandb login`, or set WANDB_MODE=offline."))
        return None
    try:
        run = wandb.init(project=config.wandb_project, name=f"{config.name}_{stage}", config=config.model_dump(mode="json"), reinit="finish_previous")
    except wandb.Error as error:
        events.write(Note(level="warning", text=f"wandb_project is set, but Weights & Biases cannot be used: {error}"))
        return None
    return lambda step, values: run.log(values, step=step)
