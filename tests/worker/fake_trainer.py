"""A trainer without a model: the real command line, events, checkpoints' notes, stop and save files and exit codes, and a script.

The run's name is the script: a row of SCRIPTS, so that one worker can be given trainers that behave differently.
    python -m tests.worker.fake_trainer train --config job.json --stage resampler --stage-dir DIR [--init-from F] [--resume F]
    python -m tests.worker.fake_trainer evaluate --config job.json --output-dir DIR
    python -m tests.worker.fake_trainer export CHECKPOINT DIR --job-dir DIR
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panollava import causes, rundir
from panollava.events import EVENTS_FILE, CheckpointSaved, Event, EventWriter, Metric, Progress, StageEvent
from panollava.stages import Stage
from panollava.training.stop import EXIT_STOPPED, StopRequest

SAVE_EVERY = 5
DEFAULT_STEPS = 20


@dataclass(frozen=True)
class Script:
    """What goes differently from a training that succeeds."""

    seconds_per_step: float = 0.0
    """In an attempt that does not resume; one that does has been waited for long enough."""
    heeds: bool = True
    """Whether it looks for the stop file, SIGTERM and its lease."""
    seconds_of_imports: float = 0.0
    """Before it hears anything or says a word, in an attempt that does not resume."""
    ends_at: int | None = None
    """The step at which `end` happens, in an attempt that does not resume."""
    end: str = "succeed"
    weight: int = 0
    """Bytes that a checkpoint is longer."""


SCRIPTS = {
    "steady": Script(),
    "slow": Script(seconds_per_step=0.02),
    "imports": Script(seconds_of_imports=3600),
    "hangs": Script(seconds_per_step=3600, heeds=False),
    "deaf": Script(seconds_per_step=0.02, heeds=False),
    "bad-input": Script(ends_at=0, end="bad_input"),
    "broken": Script(ends_at=7, end="raise"),
    "killed": Script(ends_at=7, end="sigkill"),
    "dies": Script(ends_at=0, end="sigkill"),
    "bus": Script(ends_at=7, end="sigbus"),
    "aborts": Script(ends_at=7, end="sigabrt"),
    "silent": Script(ends_at=7, end="exit_0"),
    "torn": Script(ends_at=7, end="torn_line"),
    "second": Script(seconds_per_step=0.05),
    "calm": Script(seconds_per_step=0.1),
    "half-saved": Script(ends_at=12, end="half_checkpoint"),
    "untold": Script(ends_at=12, end="untold_checkpoint"),
    "fat": Script(seconds_per_step=0.02, weight=64 * 1024),
    "lacks-a-file": Script(ends_at=7, end="open"),
    "takes-all-memory": Script(ends_at=7, end="allocate"),
    "asks-the-hub": Script(ends_at=0, end="download"),
}


class Fake:
    def __init__(self, script: Script, directory: Path, stage: str, steps: int) -> None:
        self.script, self.directory, self.stage, self.steps = script, directory, stage, steps
        self.events = EventWriter(directory / EVENTS_FILE)
        self.stop = StopRequest(directory)
        self.stop.listen()

    def say(self, event: Event) -> None:
        self.events.write(event)

    def train(self, config: dict[str, Any], resume: str | None) -> int:
        first = rundir.read_note(Path(resume)).step if resume else 0
        self.say(StageEvent(name=self.stage, status="resumed" if resume else "started", step=first))
        for step in range(first, self.steps):
            if not resume and step == self.script.ends_at:
                return ENDS[self.script.end](self)
            if self.script.heeds and self.stop:
                self.save("last.ckpt", "last", step, config)
                self.say(StageEvent(name=self.stage, status="stopped", step=step, reason=self.stop.reason))
                return EXIT_STOPPED
            self.one_step(step + 1, config)
            time.sleep(0 if resume else self.script.seconds_per_step)
        best = self.save(f"epoch=00-val_loss={1 / self.steps:.3f}.ckpt", "epoch", self.steps, config)
        for kind in ("best", "last"):
            self.save(f"{kind}.ckpt", kind, self.steps, config)
        self.say(StageEvent(name=self.stage, status="succeeded", step=self.steps, best=best))
        return 0

    def one_step(self, step: int, config: dict[str, Any]) -> None:
        loss = float("nan") if step == 3 else 1 / step
        self.say(Metric(step=step, epoch=step / self.steps, values={"train_loss": loss, "lr": 1e-4}))
        self.say(Progress(done=step, total=self.steps, unit="steps", epoch=step / self.steps))
        print(f"step {step} of {self.steps}: loss {loss:.4f} – 360°")
        if step % (SAVE_EVERY if step <= 100 else 100) == 0:
            self.save(f"step={step:06d}.ckpt", "step", step, config)
        if self.stop.wants_save():
            self.save("asked.ckpt", "step", step, config)

    def save(self, name: str, kind: rundir.Kind, step: int, config: dict[str, Any]) -> str:
        path = self.directory / rundir.CHECKPOINTS / name
        rundir.write_whole(path, f"weights of {self.stage} at step {step}".encode() + bytes(self.script.weight))
        sha256, size, metrics = rundir.sha256(path), path.stat().st_size, {"val_loss": 1 / max(step, 1)}
        note = rundir.CheckpointNote(
            stage=Stage(self.stage), kind=kind, step=step, epoch=step / self.steps, metrics=metrics, sha256=sha256, size=size,
            created_at=rundir.now(), architecture=ARCHITECTURE, config=config, tensors={},
        )  # fmt: skip
        rundir.write_whole(rundir.note_path(path), note.model_dump_json())
        relative = f"{rundir.CHECKPOINTS}/{name}"
        self.say(CheckpointSaved(path=relative, kind=kind, step=step, epoch=step / self.steps, metrics=metrics, sha256=sha256, size=size))
        return relative

    def evaluate(self) -> int:
        self.say(StageEvent(name="evaluate", status="started"))
        for done in range(1, 6):
            self.say(Progress(done=done, total=5, unit="answers"))
        answer = {"url": "a.jpg", "query": "What?", "references": ["this"], "prediction": "this"}
        rundir.write_whole(self.directory / "predictions.jsonl", json.dumps(answer) + "\n")
        rundir.write_whole(self.directory / "metrics.json", json.dumps({"bleu_4": 1.0}))
        self.say(StageEvent(name="evaluate", status="succeeded"))
        return 0

    def export(self, checkpoint: Path, model: Path) -> int:
        """Files in two levels, one of them big, in a directory that is there when all of them are."""
        rundir.verify(checkpoint)
        part = model.with_name(f"{model.name}.part")
        (part / "assets").mkdir(parents=True)
        (part / "model.safetensors").write_bytes(checkpoint.read_bytes() * 10_000)
        for name in ("config.json", "tokenizer.json", "assets/card.txt"):
            (part / name).write_text(json.dumps({"name": name}))
        part.replace(model)
        self.say(StageEvent(name="export", status="succeeded"))
        return 0

    def bad_input(self) -> int:
        message = "train.csv: row 2: there is no column annotation."
        print(message, file=sys.stderr)
        self.say(StageEvent(name=self.stage, status="failed", reason="bad_input", detail=message))
        return 2

    def torn_line(self) -> int:
        """The power went in the middle of a line."""
        with (self.directory / EVENTS_FILE).open("ab") as file:
            file.write(b'{"type":"metric","step":8,"epo')
        return die(signal.SIGKILL)

    def half_checkpoint(self) -> int:
        """Killed while it wrote one, on a file system that also lost the end of the one before."""
        (self.directory / rundir.CHECKPOINTS / "step=000012.ckpt.part").write_bytes(b"weights of")
        whole = self.directory / rundir.CHECKPOINTS / "step=000010.ckpt"
        whole.write_bytes(whole.read_bytes()[:10])
        return die(signal.SIGKILL)

    def untold_checkpoint(self) -> int:
        """Killed between the name of a whole one and the event that tells of it."""
        before, path = (self.directory / rundir.CHECKPOINTS / f"step={step:06d}.ckpt" for step in (10, 12))
        rundir.write_whole(rundir.note_path(path), rundir.read_note(before).model_copy(update={"step": 12}).model_dump_json())
        rundir.link_whole(before, path)
        return die(signal.SIGKILL)

    def explode(self) -> int:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def failing(self, act: Callable[[], object]) -> int:
        """As a trainer does that still can say what has happened."""
        try:
            act()
        except Exception as error:
            self.say(StageEvent(name=self.stage, status="failed", reason=causes.word(error), detail=causes.said(error)))
            raise
        return 0


def download() -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download("nobody/no-such-model", "config.json")


def die(number: signal.Signals) -> int:
    os.kill(os.getpid(), number)
    return 1


ENDS = {
    "bad_input": Fake.bad_input,
    "raise": Fake.explode,
    "torn_line": Fake.torn_line,
    "half_checkpoint": Fake.half_checkpoint,
    "untold_checkpoint": Fake.untold_checkpoint,
    "open": lambda fake: fake.failing(Path("/no/such/panorama.jpg").read_bytes),
    "allocate": lambda fake: fake.failing(lambda: bytearray(1 << 60)),
    "download": lambda fake: fake.failing(download),
    "exit_0": lambda fake: 0,
    "sigkill": lambda fake: die(signal.SIGKILL),
    "sigbus": lambda fake: die(signal.SIGBUS),
    "sigabrt": lambda fake: die(signal.SIGABRT),
}
ARCHITECTURE = rundir.Architecture(
    vision_model="tiny", vision_type="siglip", vision_width=32, vision_layers=2, image_size=32, patch_size=16,
    language_model="tiny", language_type="qwen2", language_width=32, language_layers=2, resampler="mlp", resampler_width=32, pool=1, views=8,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "evaluate", "export"])
    parser.add_argument("paths", nargs="*", type=Path)
    for flag in ("--config", "--stage", "--stage-dir", "--output-dir", "--init-from", "--resume", "--log-dir", "--job-dir"):
        parser.add_argument(flag)
    for flag in ("--fall-back", "--open-gate"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    if given.verb == "export":
        return Fake(SCRIPTS["steady"], Path(given.job_dir), "export", 0).export(*given.paths)
    config = json.loads(Path(given.config).read_text())
    if start := config.get("checkpoint") or given.init_from:
        rundir.verify(Path(start))
    if given.verb == "evaluate":
        return Fake(SCRIPTS["steady"], Path(given.output_dir), "evaluate", 0).evaluate()
    steps = config["stages"][given.stage]["max_steps"] or DEFAULT_STEPS
    script = SCRIPTS[config["name"]]
    time.sleep(0 if given.resume else script.seconds_of_imports)
    return Fake(script, Path(given.stage_dir), given.stage, steps).train(config, given.resume)


if __name__ == "__main__":
    sys.exit(main())
