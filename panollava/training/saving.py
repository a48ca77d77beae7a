"""When checkpoints are written, how they are made whole, and which one is best.

Each lies beside a `.json` note. best.ckpt and last.ckpt are second names of the file they stand for.
"""

import math
import random
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from panollava import rundir
from panollava.events import CheckpointSaved, EventWriter
from panollava.rundir import CheckpointNote, Kind
from panollava.training.module import StageModule
from panollava.training.stop import Stopped, StopRequest
from panollava.training.watching import Watcher
from panollava.training.weights import light_state

STATE = "panollava"
"""Key of our own part of a checkpoint: where the training stands, in plain types."""


class Position:
    """Where a stage's training stands: `batch` steps of epoch `epoch` are done. An epoch is over when its end has been validated."""

    def __init__(self) -> None:
        self.epoch, self.batch = 0, 0
        self.best_file: str | None = None
        self.best_loss = math.inf

    def state(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def restore(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Saver(Watcher):
    """Writes epoch checkpoints after validation, step checkpoints on the way, last.ckpt with each of them and when asked to stop."""

    def __init__(
        self, directory: Path, position: Position, built: rundir.Architecture, events: EventWriter, stop: StopRequest, steps_per_epoch: int
    ) -> None:
        self.directory, self.position, self.architecture = directory, position, built
        self.events, self.stop, self.steps_per_epoch = events, stop, steps_per_epoch
        self.checkpoints = directory / rundir.CHECKPOINTS
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.resumed: dict[str, Any] | None = None
        """The checkpoint whose epoch is being validated before training goes on; there is no optimizer then to save anew."""

    # Lightning's hooks ------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.listen()  # Lightning has just put its own handlers in place

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        module = _ours(pl_module)
        self.position.batch += 1
        every = module.settings.save_every_steps
        if self.stop:
            self._leave(trainer, module)
        elif self.stop.wants_save() or (every and module.step % every == 0):
            self.save(trainer, module, f"step={module.step:06d}.ckpt", "step", {})

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.stop and self.resumed:
            raise Stopped(f"Nothing new since step {_ours(pl_module).step}, from which it was resumed.", _ours(pl_module).step)
        if self.stop:
            self._leave(trainer, _ours(pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = _ours(pl_module)
        loss = module.validation["val_loss"]
        name = f"epoch={self.position.epoch:02d}-val_loss={loss:.3f}.ckpt"
        better = math.isfinite(loss) and loss < self.position.best_loss
        if better:
            self.position.best_file, self.position.best_loss = name, loss
        self.position.epoch, self.position.batch = self.position.epoch + 1, 0
        saved = self.save(trainer, module, name, "epoch", module.validation)
        if better:
            self._alias(saved, rundir.BEST, "best")
        self.resumed = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        module = _ours(pl_module)
        checkpoint["state_dict"] = light_state(checkpoint["state_dict"], module.stage)
        if self.resumed:
            checkpoint |= {part: self.resumed[part] for part in ("optimizer_states", "lr_schedulers")}
        checkpoint["global_step"], checkpoint["epoch"] = module.step, self.position.epoch
        checkpoint[STATE] = {
            "stage": str(module.stage), "step": module.step, "position": self.position.state(),
            "torch_rng": torch.get_rng_state(), "python_rng": _plain(random.getstate()),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }  # fmt: skip

    def bring_best(self, checkpoints: Path) -> None:
        """The best checkpoint so far of the training that is resumed belongs to this directory too, where it goes on in another."""
        name = self.position.best_file
        if name is None:
            return
        if not (checkpoints / name).exists():
            self.position.best_file, self.position.best_loss = None, math.inf
            return
        if checkpoints.resolve() != self.checkpoints.resolve():
            rundir.link_whole(checkpoints / name, self.checkpoints / name)
            rundir.link_whole(rundir.note_path(checkpoints / name), rundir.note_path(self.checkpoints / name))
            self._tell(self.checkpoints / name, rundir.read_note(self.checkpoints / name))
        self._alias(self.checkpoints / name, rundir.BEST, "best")

    # files --------------------------------------------------------------------

    def _leave(self, trainer: pl.Trainer, module: StageModule) -> None:
        path = self.save(trainer, module, f"step={module.step:06d}.ckpt", "step", {})
        raise Stopped(f"Saved at step {module.step}: {path.name}.", module.step)

    def save(self, trainer: pl.Trainer, module: StageModule, name: str, kind: Kind, metrics: dict[str, float]) -> Path:
        """One checkpoint with its note, whole before anybody can see it under its name; last.ckpt follows it."""
        path = self.checkpoints / name
        part = path.with_name(name + ".part")
        trainer.save_checkpoint(part)
        note = self.note(part, module, kind, metrics)
        rundir.write_whole(rundir.note_path(path), note.model_dump_json(indent=1))
        part.replace(path)
        self._tell(path, note)
        self._alias(path, rundir.LAST, "last")
        return path

    def note(self, file: Path, module: StageModule, kind: Kind, metrics: dict[str, float]) -> CheckpointNote:
        """What is to be known of a file that was just written."""
        tensors = light_state(module.state_dict(), module.stage)
        return CheckpointNote(
            stage=module.stage, kind=kind, step=module.step, epoch=self._epochs(), metrics={k: v for k, v in metrics.items() if math.isfinite(v)},
            sha256=rundir.sha256(file), size=file.stat().st_size, created_at=rundir.now(), architecture=self.architecture,
            config=module.config.model_dump(mode="json"), tensors={k: list(v.shape) for k, v in tensors.items()},
        )  # fmt: skip

    def add_note(self, path: Path, module: StageModule, kind: Kind, metrics: dict[str, float]) -> None:
        """The note beside a file that is whole already, and the event that tells of it."""
        note = self.note(path, module, kind, metrics)
        rundir.write_whole(rundir.note_path(path), note.model_dump_json(indent=1))
        self._tell(path, note)

    def _alias(self, path: Path, name: str, kind: Kind) -> None:
        note = rundir.read_note(path).model_copy(update={"kind": kind})
        rundir.link_whole(path, self.checkpoints / name)
        rundir.write_whole(rundir.note_path(self.checkpoints / name), note.model_dump_json(indent=1))
        self._tell(self.checkpoints / name, note)

    def _tell(self, path: Path, note: CheckpointNote) -> None:
        self.events.write(
            CheckpointSaved(
                path=str(path.relative_to(self.directory)),
                kind=note.kind,
                step=note.step,
                epoch=note.epoch,
                metrics=note.metrics,
                sha256=note.sha256,
                size=note.size,
            )
        )

    def _epochs(self) -> float:
        return round(self.position.epoch + self.position.batch / self.steps_per_epoch, 4)


def restore(trainer: pl.Trainer, module: StageModule, checkpoint: dict[str, Any]) -> None:
    """Optimizer, schedule and random numbers as they were. The weights and the position are in place already."""
    trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
    trainer.lr_scheduler_configs[0].scheduler.load_state_dict(checkpoint["lr_schedulers"][0])
    state = checkpoint[STATE]
    torch.set_rng_state(state["torch_rng"])
    random.setstate(_tuples(state["python_rng"]))
    if state["cuda_rng"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _ours(module: pl.LightningModule) -> StageModule:
    assert isinstance(module, StageModule)
    return module
