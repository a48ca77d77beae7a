"""The gate of a stage: it is to start only if the stage before it has come so far. Torch-free."""

from panollava.config import StageConfig
from panollava.stages import Stage


def why_closed(settings: StageConfig, before: Stage, val_loss: float | None) -> str | None:
    """`resampler reached val_loss 2.34, the gate asks for below 2.1`; None where there is no gate, or it is open.

    `val_loss` is that of the checkpoint which the stage before hands over; None if it has none that is finite.
    """
    if settings.gate_below is None or (val_loss is not None and val_loss < settings.gate_below):
        return None
    if val_loss is None:
        return f"{before} handed over a checkpoint without a val_loss, the gate asks for below {settings.gate_below:g}"
    return f"{before} reached val_loss {val_loss:.4g}, the gate asks for below {settings.gate_below:g}"
