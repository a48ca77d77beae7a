"""Lightning's Trainer for a config: which devices, in which precision, and how many processes share a step."""

import logging
import os
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.strategies import DDPStrategy

from panollava import ranks
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.training.files import WholeFiles
from panollava.training.watching import Unprofiled


def trainer_of(config: RunConfig) -> pl.Trainer:
    """Quiet and without callbacks. On several devices the other processes are started here, and all know each other afterwards."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    _check_devices(config)
    is_shared = config.strategy == "ddp" or config.devices * config.num_nodes > 1
    trainer = pl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu", devices=config.devices, num_nodes=config.num_nodes,
        strategy=DDPStrategy(broadcast_buffers=False) if is_shared else "auto", plugins=[precision_of(config), WholeFiles()], max_epochs=-1,
        logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        profiler=Unprofiled(), num_sanity_val_steps=0, use_distributed_sampler=False, reload_dataloaders_every_n_epochs=1,
    )  # fmt: skip
    if is_shared and trainer.strategy.launcher:
        trainer.strategy.launcher.launch(trainer.strategy.setup_environment)
    return trainer


def _check_devices(config: RunConfig) -> None:
    found = torch.cuda.device_count()
    if found and config.devices > found:
        why = f"{found} GPUs can be seen here."
        raise BadInput(f"devices is {config.devices}, and {why}", [("devices", why)])
    if config.num_nodes > 1 and not ranks.launched_by_torchrun():
        raise BadInput(f"num_nodes is {config.num_nodes}: start it on each machine with torchrun --nnodes {config.num_nodes} -m panollava train.")
    wanted, given = config.devices * config.num_nodes, int(os.environ.get("WORLD_SIZE", "0"))
    if ranks.launched_by_torchrun() and given != wanted:
        raise BadInput(f"torchrun started {given} processes, and devices x num_nodes is {wanted}.")
    if ranks.launched_by_torchrun() and ranks.local() >= config.devices:
        raise BadInput(
            f"torchrun started more than {config.devices} processes on this machine, and devices, which counts for each machine, is {config.devices}."
        )


def memory_held(device: torch.device) -> int | None:
    """Bytes that this process has taken from a GPU; None on a CPU, whose memory is the machine's."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None


def precision_of(config: RunConfig) -> Precision:
    """Weights stay fp32; what changes is the arithmetic of the forward pass."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    kinds: dict[str, Any] = {"fp32": None, "bf16": "bf16-mixed", "fp16": "16-mixed", "auto": "bf16-mixed" if has_bf16 else None}
    kind = kinds[config.precision]
    return MixedPrecision(kind, device) if kind else Precision()
