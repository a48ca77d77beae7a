"""The trainer's commands: `python -m panollava`, and part of `panollava`. Nothing heavy is imported before it is needed.

Flags of `train` and `evaluate` are made from the config's fields, so a new field is a new flag.
"""

import inspect
import logging
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from panollava import config as configs
from panollava.config import EvaluateConfig, RunConfig, StageConfig, validated
from panollava.errors import BadInput, OutOfMemory
from panollava.presets import PRESETS

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Train and evaluate panoramic vision-language models."
)
data_app = typer.Typer(no_args_is_help=True, help="Check data, or make some.")
app.add_typer(data_app, name="data")


@contextmanager
def exit_codes() -> Iterator[None]:
    """Translate once, at the edge: 2 for what the user can mend, 1 for memory that ran out, 75 for a training that was asked to stop."""
    from panollava.training.stop import EXIT_STOPPED, Stopped

    try:
        yield
    except BadInput as error:
        print(f"panollava: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OutOfMemory as error:
        print(f"panollava: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Stopped as stopped:
        print(f"panollava: stopped. {stopped}", file=sys.stderr)
        raise SystemExit(EXIT_STOPPED) from None


Command = TypeVar("Command", bound=Callable[..., Any])

# flags from fields ------------------------------------------------------------


def _plain_type(annotation: Any) -> Any:
    """What a terminal can spell: `float | None` -> float, Literal[1, 2] -> int, a tuple -> str (comma-separated)."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain_type(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    return annotation if annotation in (int, float, str, bool) else str


def _parameter(name: str, field: FieldInfo, note: str) -> inspect.Parameter:
    kind, flag = _plain_type(field.annotation), name.replace("_", "-")
    option = typer.Option(f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}", help=f"{field.description}{note}", show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return "" if field.is_required() or default in (None, ()) else f" [default: {shown}]"


def with_flags(*models: tuple[type[BaseModel], set[str], bool]) -> Callable[[Command], Command]:
    """Give a command one flag per field of each model, except the named ones; the values arrive in its keyword arguments."""

    def decorate(command: Command) -> Command:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        flags = [
            _parameter(name, field, _default(field) if show else " [each stage has its own default]")
            for model, skipped, show in models for name, field in model.model_fields.items() if name not in skipped
        ]  # fmt: skip
        command.__signature__ = inspect.Signature(own + flags)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in own + flags}
        return command

    return decorate


# commands ----------------------------------------------------------------------

ConfigFile = Annotated[Path | None, typer.Option("--config", help=f"TOML or JSON file; {configs.CONFIG_FILE} in the working directory if not given.")]


@app.command()
@with_flags((RunConfig, {"stages"}, True), (StageConfig, set(), False))
def train(
    *,
    config: ConfigFile = None,
    preset: Annotated[str | None, typer.Option(help=f"Start from a preset: {', '.join(PRESETS)}.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as vision.lr=1e-4; no value unsets it. May be repeated.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Checkpoint to continue, or auto. One of an earlier stage gives its weights.")] = None,
    fall_back: Annotated[bool, typer.Option(help="Where the checkpoint to resume is damaged, continue from the one before it.")] = False,
    open_gate: Annotated[bool, typer.Option("--open-gate", help="Start the first stage although its gate is closed.")] = False,
    stage_dir: Annotated[Path | None, typer.Option(help="Directory of the one stage, instead of OUTPUT_DIR/NAME_STAGE.")] = None,
    **flags: Any,
) -> None:
    """Train one stage, or several in a chain, from CSV files to checkpoints."""
    with exit_codes():
        run = resolve(config, preset, settings or [], flags)
        _log_to_console()
        from panollava.training.chain import train_chain

        train_chain(run, resume=resume, stage_dir=stage_dir, fall_back=fall_back, open_gate=open_gate)


@app.command()
@with_flags((RunConfig, {"stages"}, True), (StageConfig, set(), False))
def plan(
    *,
    config: ConfigFile = None,
    preset: Annotated[str | None, typer.Option(help=f"Start from a preset: {', '.join(PRESETS)}.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as vision.lr=1e-4; no value unsets it. May be repeated.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Checkpoint that `train` would continue, or auto.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    **flags: Any,
) -> None:
    """What `train` with these settings would take, and all that speaks against it; exit status 2 if anything does. Nothing is loaded."""
    with exit_codes():
        from panollava.plan import planned

        told = planned(lambda: validated(RunConfig, values_of(config, preset, settings or [], flags)), resume)
        if as_json:
            print(told.model_dump_json(indent=1))
        else:
            if told.stages:
                from panollava.plan_text import rows

                print_table(rows(told.stages))
            for refusal in told.refusals:
                print(f"panollava: {refusal.field}: {refusal.message}", file=sys.stderr)
        if told.refusals:
            raise SystemExit(2)


def resolve(config: Path | None, preset: str | None, settings: list[str], flags: dict[str, Any]) -> RunConfig:
    """The config that all of these make, checked."""
    return configs.parse(values_of(config, preset, settings, flags))


def values_of(config: Path | None, preset: str | None, settings: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """Schema defaults, then the file, then the preset, then the flags; a stage's flag counts for every stage that is trained."""
    default = Path(configs.CONFIG_FILE)
    values = configs.from_file(config or default) if config or default.exists() else {}
    if preset is not None:
        if preset not in PRESETS:
            raise BadInput(f"--preset: there is no preset {preset!r}; there are {', '.join(PRESETS)}.")
        values = configs.merge(values, deepcopy(PRESETS[preset]))
    given = {name: value for name, value in flags.items() if value is not None}
    values = configs.merge(values, {name: value for name, value in given.items() if name in RunConfig.model_fields})
    for stage in validated(RunConfig, values).stage:
        for name in given.keys() & StageConfig.model_fields.keys():
            configs.put(values, f"{stage}.{name}", given[name])
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise BadInput(f"--set {setting}: write NAME=VALUE, such as vision.lr=1e-4.")
        configs.put(values, name.strip(), value.strip() or None)
    return values


@app.command()
@with_flags((EvaluateConfig, set(), True))
def evaluate(*, config: Annotated[Path | None, typer.Option(help="TOML or JSON file with these settings.")] = None, **flags: Any) -> None:
    """Answer a CSV's questions with a checkpoint: predictions.jsonl first, metrics.json after."""
    with exit_codes():
        values = configs.from_file(config) if config else {}
        given = {name: value for name, value in flags.items() if value is not None}
        if isinstance(given.get("controls"), str):
            given["controls"] = tuple(name.strip() for name in given["controls"].split(","))
        request = configs.validated(EvaluateConfig, values | given)
        _log_to_console()
        from panollava.evaluation.evaluate import evaluate
        from panollava.metrics.report import read_report
        from panollava.metrics.table import report_rows

        directory = evaluate(request)
        print_table(report_rows(read_report(directory)))
        print(directory)


@app.command()
def compare(
    evaluations: Annotated[list[Path], typer.Argument(help="Directories that `evaluate` wrote; the first is the base.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Metrics side by side, with differences to the first and their 95 % intervals."""
    with exit_codes():
        from panollava.metrics.compare import compare_directories
        from panollava.metrics.table import rows

        comparison = compare_directories(evaluations)
        if as_json:
            print(comparison.model_dump_json(indent=1))
        else:
            print_table(rows(comparison))
            for warning in comparison.warnings:
                print(f"panollava: {warning}", file=sys.stderr)


@app.command()
def generate(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint of stage resampler or finetune.")],
    image: Annotated[Path, typer.Option(help="A panorama.")],
    query: Annotated[str, typer.Option(help="What to ask.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 64,
    allow_partial_pano: Annotated[bool, typer.Option(help="Take an image far from 2:1 for a part of a panorama.")] = False,
) -> None:
    """Ask a checkpoint one question about one panorama."""
    with exit_codes():
        from panollava.evaluation.ask import ask

        print(ask(checkpoint, image, query, max_new_tokens, partial=allow_partial_pano))


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of stage resampler or finetune.")],
    directory: Annotated[Path, typer.Argument(help="A new directory, or an empty one.")],
    evaluation: Annotated[Path | None, typer.Option(help="An evaluation of this checkpoint; its metrics go into the model card.")] = None,
    job_dir: Annotated[Path | None, typer.Option(help="Where to tell how it ends, in events.jsonl, and to look for a stop file.")] = None,
) -> None:
    """Write a checkpoint as a directory that transformers loads: from_pretrained, and pipeline("image-text-to-text")."""
    with exit_codes():
        if job_dir is None:
            from panollava.hf.export import export

            print(export(checkpoint, directory, evaluation))
        else:
            from panollava.hf.job import export_job

            print(export_job(checkpoint, directory, evaluation, job_dir))


@data_app.command("check")
def check_data(
    csv: Annotated[Path, typer.Argument(help="CSV with url, query, annotation.")],
    image_root: Annotated[Path | None, typer.Option(help="Where relative image paths start, before the CSV's own directory.")] = None,
    allow_partial_pano: Annotated[bool, typer.Option(help="An image far from 2:1 is a part of a panorama and no error.")] = False,
    allow_remote: Annotated[bool, typer.Option(help="Download images named by http(s) address into the cache directory.")] = False,
    cache_dir: Annotated[str | None, typer.Option(help="Where downloads lie; ~/.cache/panollava if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Decode every image and read every row; exit status 2 if any of them could not be used."""
    with exit_codes():
        from panollava.data.cache import open_room
        from panollava.data.check import check_table
        from panollava.data.remote import fetch_all
        from panollava.events import Silence
        from panollava.training.job import Voice

        fetch = partial(fetch_all, open_room(cache_dir, RunConfig().cache_gb)) if allow_remote else None
        _log_to_console()
        report = check_table(csv, image_root, on_progress=Voice(Silence()).images, partial=allow_partial_pano, fetch=fetch)
        print(report.model_dump_json(indent=1) if as_json else report)
        if report.errors:
            raise SystemExit(2)


@data_app.command("make-demo")
def make_demo_data(
    directory: Annotated[Path, typer.Argument(help="A new directory.")],
    train: Annotated[int, typer.Option(help="Training panoramas.")] = 2000,
    valid: Annotated[int, typer.Option(help="Validation panoramas.")] = 100,
    test: Annotated[int, typer.Option(help="Test panoramas.")] = 640,
    seed: Annotated[int, typer.Option(help="Seed of scenes and questions.")] = 0,
) -> None:
    """Render PanoShapes: panoramas with coloured shapes at known directions, and questions about them."""
    with exit_codes():
        from panollava.data.make_demo import make_demo

        make_demo(directory, train=train, valid=valid, test=test, seed=seed)
        print(f"{train + valid + test} panoramas in {directory}")


def print_table(rows: list[list[str]]) -> None:
    """Rows of cells, the first the heading, as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _log_to_console() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("panollava").setLevel(logging.INFO)
    logging.captureWarnings(True)


def main() -> None:
    app()
