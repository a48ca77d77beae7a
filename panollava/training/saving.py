"""When checkpoints are written, how they are made whole, and which one is best.

Each lies beside a `.json` note. best.ckpt and last.ckpt are second names of the file they stand for.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from panollava import ranks, rundir
from panollava.events import CheckpointRemoved, CheckpointSaved, Note, Say
from panollava.rundir import CheckpointNote, Kind, Trained
from panollava.stages import RECIPES
from panollava.training.module import StageModule
from panollava.training.position import STATE, Position, state_of
from panollava.training.stop import Stopped, StopRequest
from panollava.training.watching import Watcher
from panollava.training.weights import light_state


class Saver(Watcher):
    """Writes epoch checkpoints after validation, step checkpoints on the way, last.ckpt with each of them and when asked to stop."""

    def __init__(
        self, directory: Path, position: Position, built: rundir.Architecture, events: Say, stop: StopRequest, steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.directory, self.position, self.architecture = directory, position, built
        self.events, self.stop, self.steps_per_epoch = events, stop, steps_per_epoch
        self._clock, self._saved_at = clock, clock()
        self.checkpoints = directory / rundir.CHECKPOINTS
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        if ranks.is_first():
            rundir.clear_parts(self.checkpoints)
        self.before: tuple[Trained, ...] = ()
        """The stages that the weights had been through when this one began."""
        self.beside: dict[str, str] = {}
        """Fingerprints of what the weights learn beside (`beside.py`)."""
        self.resumed: dict[str, Any] | None = None
        """The checkpoint whose epoch is being validated before training goes on; there is no optimizer then to save anew."""

    # Lightning's hooks ------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.listen()  # Lightning has just put its own handlers in place

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        module = _ours(pl_module)
        self.position.step()
        stop, asked, due = ranks.anywhere(bool(self.stop), self.stop.wants_save(), self._is_due(module))
        if stop:
            self._leave(trainer, module)
        elif asked or due:
            self._save_step(trainer, module, is_regular=not asked)

    def _is_due(self, module: StageModule) -> bool:
        steps, minutes = module.settings.save_every_steps, module.settings.save_every_minutes
        return bool((steps and module.step % steps == 0) or (minutes and self._clock() - self._saved_at >= minutes * 60))

    def _save_step(self, trainer: pl.Trainer, module: StageModule, *, is_regular: bool) -> None:
        name = f"step={module.step:06d}.ckpt"
        removed = self.position.push(name, module.settings.keep_step_checkpoints) if is_regular else []
        self.save(trainer, module, name, "step", {})
        for old in removed:
            self._remove(self.checkpoints / old)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        (stop,) = ranks.anywhere(bool(self.stop))
        if stop and self.resumed:
            raise Stopped(f"Nothing new since step {_ours(pl_module).step}, from which it was resumed.", _ours(pl_module).step)
        if stop:
            self._leave(trainer, _ours(pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = _ours(pl_module)
        loss = module.validation["val_loss"]
        name = f"epoch={self.position.epoch:02d}-val_loss={loss:.3f}.ckpt"
        is_whole = self.position.batch == self.steps_per_epoch
        better = self.position.end_epoch(name, loss, module.settings.patience, is_whole=is_whole)
        saved = self.save(trainer, module, name, "epoch", module.validation)
        if better:
            self._alias(saved, rundir.BEST, "best")
        self.resumed = None
        if self.position.is_over:
            trainer.should_stop = True
            self.events.write(Note(level="info", text=self.position.why_over()))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        module = _ours(pl_module)
        checkpoint["state_dict"] = light_state(checkpoint["state_dict"], module.stage)
        if self.resumed:
            checkpoint["optimizer_states"] = self.resumed["optimizer_states"]
        checkpoint["global_step"], checkpoint["epoch"] = module.step, self.position.epoch
        checkpoint[STATE] = state_of(module, self.position)
        if self.resumed:
            checkpoint[STATE] |= {part: self.resumed[STATE][part] for part in ("scaler", "random")}

    def bring_best(self, checkpoints: Path) -> None:
        """The best checkpoint so far of the training that is resumed belongs to this directory too, where it goes on in another."""
        name = self.position.best_file
        if name is None:
            return
        if not (checkpoints / name).exists():
            self.position.best_file, self.position.best_loss = None, math.inf
            return
        if not ranks.is_first():
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
        self._saved_at = self._clock()
        if ranks.is_first():
            self._publish(part, path, module, kind, metrics)
        ranks.wait()
        return path

    def _publish(self, part: Path, path: Path, module: StageModule, kind: Kind, metrics: dict[str, float]) -> None:
        note = self.note(part, module, kind, metrics)
        rundir.write_whole(rundir.note_path(path), note.model_dump_json(indent=1))
        part.replace(path)
        self._tell(path, note)
        self._alias(path, rundir.LAST, "last")

    def _remove(self, path: Path) -> None:
        if ranks.is_first() and rundir.make_room(path):
            self.events.write(CheckpointRemoved(path=str(path.relative_to(self.directory))))

    def note(self, file: Path, module: StageModule, kind: Kind, metrics: dict[str, float]) -> CheckpointNote:
        """What is to be known of a file that was just written."""
        tensors = light_state(module.state_dict(), module.stage)
        return CheckpointNote(
            stage=module.stage, kind=kind, step=module.step, epoch=self._epochs(), metrics={k: v for k, v in metrics.items() if math.isfinite(v)},
            sha256=rundir.sha256(file), size=file.stat().st_size, created_at=rundir.now(), architecture=self.architecture,
            config=module.config.model_dump(mode="json"), tensors={k: list(v.shape) for k, v in tensors.items()},
            beside=self.beside, history=self.history(module),
        )  # fmt: skip

    def history(self, module: StageModule) -> tuple[Trained, ...]:
        config, settings = module.config, module.settings
        adapters = config.lora_r if "lora" in RECIPES[module.stage].optional else 0
        this = Trained(
            stage=module.stage, step=module.step, epoch=self._epochs(), loss=config.loss(module.stage), batch_size=settings.batch_size,
            lr=settings.lr, lora_r=adapters,
        )  # fmt: skip
        return (*self.before, this)

    def add_note(self, path: Path, module: StageModule, kind: Kind, metrics: dict[str, float]) -> None:
        """The note beside a file that is whole already, and the event that tells of it."""
        note = self.note(path, module, kind, metrics)
        rundir.write_whole(rundir.note_path(path), note.model_dump_json(indent=1))
        self._tell(path, note)

    def _alias(self, path: Path, name: str, kind: Kind) -> None:
        if not ranks.is_first():
            return
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


def _ours(module: pl.LightningModule) -> StageModule:
    assert isinstance(module, StageModule)
    return module
