"""The stages one after the other from a terminal, each from the best checkpoint of the one before, with the user's log files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from panollava import gates, ranks, rundir
from panollava.config import RunConfig
from panollava.errors import BadInput, MissingFile, OutOfMemory
from panollava.stages import Stage
from panollava.training.fellows import Fellows
from panollava.training.stop import Stopped, StopRequest

log = logging.getLogger("panollava")
FORMAT = logging.Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")


@dataclass(frozen=True)
class Start:
    """Where a stage begins: from pretrained weights, from a checkpoint's weights, or where an earlier training stopped."""

    init_from: Path | None = None
    resume: Path | None = None
    finished: Path | None = None
    """The best checkpoint of a stage that needs no training any more."""
    warnings: tuple[str, ...] = ()


def train_chain(
    config: RunConfig, *, resume: str | None, stage_dir: Path | None, fall_back: bool = False, open_gate: bool = False
) -> None:  # fmt: skip
    """Train `config.stage` in order. `resume` is a checkpoint, or `auto`: skip what is finished, continue what was begun.

    With `fall_back` a checkpoint that is damaged gives way to the one before it, as with `auto`; without, it is an error.
    With `open_gate` the first stage starts whatever its gate says.
    """
    if stage_dir and len(config.stage) > 1:
        raise BadInput("--stage-dir names the directory of one stage; with several stages use --output-dir and --name.")
    for csv in (*config.csvs("train"), *config.csvs("valid")):
        if not csv.is_file():
            raise MissingFile(f"{csv}: there is no such file. Name your data with --data-dir, or with --csv-train and --csv-val.")
    best = Path(config.init_from) if config.init_from else None
    with _only_the_first_speaks(), _log_file(config, None if len(config.stage) > 1 else config.stage[0]), Fellows() as fellows:
        for stage in config.stage:
            directory = stage_dir or rundir.stage_dir(config.output_dir, config.name, stage)
            start = _start(config, directory, stage, resume if resume == "auto" or stage == config.stage[0] else None, best, fall_back)
            if start.init_from and not (open_gate and stage == config.stage[0]):
                _pass_gate(config, stage, start.init_from)
            stop = StopRequest(directory)
            best = start.finished or _train(config, stage, directory, start, stop, fellows)
            if stage != config.stage[-1] and any(ranks.anywhere(bool(stop))):
                raise Stopped(f"Stage {stage} is finished and the next was not begun.")


def _train(config: RunConfig, stage: Stage, directory: Path, start: Start, stop: StopRequest, fellows: Fellows) -> Path:
    rundir.make_directory(directory, "--output-dir")
    stop.listen()
    fellows.start(config.devices if config.num_nodes == 1 else 1)
    from panollava.training.fit import train_stage  # torch arrives here: what can be refused has been refused, and a stop is heard
    from panollava.training.job import StageJob

    several = len(config.stage) > 1
    with _log_file(config, stage if several else None, wanted=several):
        log.info(rundir.WHICH_STAGE, stage, directory)
        return train_stage(StageJob(config, stage, directory, start.init_from, start.resume, start.warnings), stop, fellows)


def _start(config: RunConfig, directory: Path, stage: Stage, resume: str | None, best: Path | None, fall_back: bool) -> Start:
    checkpoints = directory / rundir.CHECKPOINTS
    if resume == "auto":
        if (directory / rundir.FINAL).exists():
            _say_finished(config, stage, directory)
            return Start(finished=checkpoints / rundir.BEST)
        last, told = _last_good(checkpoints)
        return Start(resume=last, warnings=told) if last else Start(init_from=best, warnings=told)
    if resume is None:
        _refuse_to_overwrite(directory)
        return Start(init_from=best)
    path = Path(resume)
    if path.suffix == ".safetensors":
        log.info("--resume %s: weights only, because model_final.safetensors keeps no optimizer", path)
        return Start(init_from=path)
    path, told = _whole(path, fall_back)
    theirs = rundir.read_note(path).stage
    if theirs == stage:
        if path.parent.resolve() != checkpoints.resolve():
            _refuse_to_overwrite(directory)
        return Start(resume=path, warnings=told)
    if theirs.number > stage.number:
        raise BadInput(f"{path}: a checkpoint of stage {theirs} cannot start the earlier stage {stage}.")
    log.info("--resume %s: a checkpoint of stage %s, so stage %s starts from its weights", path, theirs, stage)
    _refuse_to_overwrite(directory)
    return Start(init_from=path, warnings=told)


def _pass_gate(config: RunConfig, stage: Stage, start: Path) -> None:
    """Raises BadInput where the stage's gate is closed to the checkpoint that it is to start from. One of the stage itself is past it."""
    note = rundir.read_note(start)
    why = gates.why_closed(config.stages[stage], note.stage, note.metrics.get("val_loss"))
    if why and note.stage is not stage:
        opened = "--open-gate" if stage == config.stage[0] else f"--resume auto --set {stage}.gate_below="
        raise BadInput(f"Stage {stage} does not start: {why}. To start it nevertheless: {opened}")


def _say_finished(config: RunConfig, stage: Stage, directory: Path) -> None:
    """A finished stage is left as it is. What it was trained with and what is asked for now may differ, and that is said."""
    log.info("stage %s is finished already: %s", stage, directory)
    theirs = rundir.read_note(directory / rundir.FINAL).config["stages"][stage]
    ours = config.stages[stage].model_dump(mode="json")
    if changed := [f"{field} was {theirs[field]} and is {ours[field]}" for field in ours if field in theirs and theirs[field] != ours[field]]:
        log.warning("%s. To train on with that: --resume %s", ", ".join(changed), directory / rundir.CHECKPOINTS / rundir.LAST)


def _whole(path: Path, fall_back: bool) -> tuple[Path, tuple[str, ...]]:
    """The checkpoint that was asked for, or the one before it and why. Raises BadInput for a damaged one, naming what could be used instead."""
    try:
        rundir.verify(path)
        return path, ()
    except BadInput as error:
        instead, told = _last_good(path.parent)
        if instead and fall_back:
            return instead, told
        raise BadInput(f"{error} Whole is {instead}." if instead else str(error)) from None


def _last_good(checkpoints: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The furthest checkpoint that is whole, and a word for each damaged one that was passed over."""
    damaged: list[str] = []
    last = rundir.last_good(checkpoints, lambda error: damaged.append(str(error)))
    return last, tuple(f"{each} Continuing from {last.name if last else 'the start'} instead." for each in damaged)


def _refuse_to_overwrite(directory: Path) -> None:
    if any((directory / rundir.CHECKPOINTS).glob("*.ckpt")):
        raise BadInput(
            f"{directory}: holds a training already. Continue it with --resume auto, begin another with --name NAME, or remove the directory."
        )


@contextmanager
def _only_the_first_speaks() -> Iterator[None]:
    """Other ranks stop and fail in silence: the first knows as much, and what it says and leaves with is the training's."""
    if ranks.is_first():
        yield
        return
    logging.getLogger().setLevel(logging.ERROR)
    log.setLevel(logging.ERROR)
    with suppress(Stopped):
        try:
            yield
        except BadInput:
            if ranks.launched_by_torchrun():  # what is wrong on this machine may be right on the first's
                raise
            raise SystemExit(2) from None


@contextmanager
def _log_file(config: RunConfig, stage: Stage | None, *, wanted: bool = True) -> Iterator[None]:
    """What is said goes to the console and to a file at once, whatever becomes of the training."""
    if not (wanted and config.log_dir and ranks.is_first()):
        yield
        return
    path = rundir.log_path(config.log_dir, stage, rundir.now().astimezone())
    rundir.make_directory(path.parent, "--log-dir")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(FORMAT)
    logging.getLogger().addHandler(handler)
    log.info("log file %s", path)
    try:
        yield
    except (BadInput, OutOfMemory, Stopped) as error:
        log.error("%s", str(error) or "stopped")
        raise
    except Exception:
        log.exception("stopped by an error")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
