"""The remote nouns of the command line: what a server knows, as a table or as JSON for scripts."""

from collections.abc import Iterable, Mapping, Sequence
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.i18n import _

if TYPE_CHECKING:
    from app.client import Client

Connection = typer.Context
AsJson = Annotated[bool, typer.Option("--json", help=_("JSON instead of a table."))]
OfRun = Annotated[int | None, typer.Option(help=_("Only of this run."))]
OfQueue = Annotated[str, typer.Argument(help=_("x1, x2, ..., or all."))]
RunId = Annotated[int, typer.Argument(help=_("Number of the run."))]
StageName = Annotated[str, typer.Argument(help=_("vision, resampler or finetune."))]
OneStage = Annotated[str | None, typer.Option("--stage", help=_("Only if it is this one: refused where the run is at another."))]
Changes = Annotated[list[str] | None, typer.Option("--set", help=_("A setting that is to be otherwise, as in --set resampler.lr=1e-4; any number."))]

ASK_SECONDS = 0.5
RUN_COLUMNS = ("id", "name", "status", "created_at", "created_by")
STAGE_COLUMNS = ("stage", "status", "attempt", "ended_because", "detail", "overrides")
CHECKPOINT_COLUMNS = ("id", "run_id", "kind", "step", "metrics", "path")
QUEUE_COLUMNS = ("id", "kind", "run_id", "stage", "status", "devices", "priority", "waiting_because", "ended_because")
PAUSE_COLUMNS = ("queue", "actor", "at", "reason")
WORKER_COLUMNS = ("name", "host", "queue", "devices", "is_alive", "job_id", "held_back", "heartbeat_at")
EVALUATION_COLUMNS = ("id", "name", "status", "checkpoint_id", "created_at")


def connect(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="PANOLLAVA_URL", help=_("The server's address."))] = "http://127.0.0.1:7360",
    token: Annotated[str, typer.Option(envvar="PANOLLAVA_TOKEN", help=_("A token from `panollava token create`."))] = "",
) -> None:
    if context.invoked_subcommand and not context.resilient_parsing:
        from app.client import Client

        context.obj = context.with_resource(Client(url, token))


def _noun(help: str) -> typer.Typer:
    return typer.Typer(no_args_is_help=True, help=help, callback=connect)


runs, checkpoints, evaluations = _noun(_("Runs on a server.")), _noun(_("Checkpoints on a server.")), _noun(_("Evaluations on a server."))
queue, workers = _noun(_("What waits on a server, and in which order.")), _noun(_("Workers of a server."))
NOUNS = {"runs": runs, "checkpoints": checkpoints, "evals": evaluations, "queue": queue, "workers": workers}


@runs.command("list")
def list_runs(context: Connection, as_json: AsJson = False) -> None:
    """Newest first."""
    show(_("Runs"), RUN_COLUMNS, _client(context).pages("/runs"), as_json)


@runs.command("show")
def show_run(context: Connection, run_id: RunId, as_json: AsJson = False) -> None:
    """The run and its stages."""
    run = _client(context).get(f"/runs/{run_id}")
    if as_json:
        return _print_json(run)
    table(f"{run['id']} {run['name']}: {run['status']}", STAGE_COLUMNS, run["stages"])
    for stage in run["stages"]:
        if stage["hint"]:
            typer.echo(f"{stage['stage']}: {stage['hint']}")


@runs.command("stop")
def stop_run(
    context: Connection,
    run_id: RunId,
    stage: OneStage = None,
    wait: Annotated[bool, typer.Option(help=_("Wait until it has ended, and say what was saved."))] = False,
) -> None:
    """Save a checkpoint and end; `resume` continues from it."""
    run = _client(context).post(f"{_address(run_id, stage)}/stop")
    stopped = stage or next(each["stage"] for each in run["stages"] if each["status"] != "succeeded")
    while (told := _stage_of(run, stopped))["status"] == "stopping" and wait:
        sleep(ASK_SECONDS)
        run = _client(context).get(f"/runs/{run_id}")
    typer.echo(_told(told))


def _stage_of(run: Mapping[str, Any], stage: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in run["stages"] if each["stage"] == stage)
    return found


def _told(stage: Mapping[str, Any]) -> str:
    """`finetune: stopped. Saved at step 12: it goes on from there.`"""
    from app.jobs import stopping

    more = stopping.WORDS if stage["status"] == "stopping" else stage["detail"]
    return f"{stage['stage']}: {stage['status']}." + (f" {more}" if more else "")


@runs.command("resume")
def resume_run(context: Connection, run_id: RunId, stage: OneStage = None) -> None:
    """Continue where the run failed or was stopped."""
    _say_gated(_client(context).post(f"{_address(run_id, stage)}/resume"))


@runs.command("save")
def save_run(context: Connection, run_id: RunId, stage: OneStage = None) -> None:
    """Write a checkpoint at the next step, without stopping."""
    _client(context).post(f"{_address(run_id, stage)}/save")


@runs.command("retry")
def retry_run(
    context: Connection,
    run_id: RunId,
    stage: Annotated[str | None, typer.Option(help=_("This stage; one that has succeeded is trained again."))] = None,
    from_start: Annotated[bool, typer.Option(help=_("Begin the stage again, instead of going on from its last checkpoint."))] = False,
) -> None:
    """Go on with what failed or was stopped, or train a stage again."""
    if from_start and stage is None:
        raise typer.BadParameter(_("Say with --stage which one is to begin again."), param_hint="--from-start")
    if stage is None:
        run = _client(context).post(f"/runs/{run_id}/retry")
    else:
        run = _client(context).post(f"/runs/{run_id}/stages/{stage}/retry", from_start=from_start or None)
    _say_gated(run)


@runs.command("open-gate")
def open_gate(context: Connection, run_id: RunId, stage: StageName) -> None:
    """Start a gated stage although its condition does not hold."""
    _client(context).post(f"/runs/{run_id}/stages/{stage}/open-gate")


@runs.command("clone")
def clone_run(
    context: Connection,
    run_id: RunId,
    stage: Annotated[str | None, typer.Option(help=_("This stage alone, from the weights that it began with."))] = None,
    changes: Changes = None,
) -> None:
    """Queue the same once more; prints the new run's number."""
    _tell_made(_client(context).post(f"{_address(run_id, stage)}/clone", {"config": _settings(changes)}))


@runs.command("fork")
def fork_run(
    context: Connection,
    run_id: RunId,
    checkpoint: Annotated[int | None, typer.Option(help=_("Number of the checkpoint; the best of the furthest stage if not given."))] = None,
    stage: Annotated[list[str] | None, typer.Option(help=_("A stage to train, any number; those behind the checkpoint's if not given."))] = None,
    of: Annotated[str | None, typer.Option("--from-stage", help=_("From this stage's best checkpoint; the furthest one's if not given."))] = None,
    changes: Changes = None,
) -> None:
    """Queue a run that starts from the weights of one of its checkpoints; prints the new run's number."""
    body = {"config": _settings(changes), "checkpoint_id": checkpoint, "stages": stage or None}
    _tell_made(_client(context).post(f"{_address(run_id, of)}/fork", body))


def _tell_made(run: Mapping[str, Any]) -> None:
    """The new run's number, for scripts on the standard output alone."""
    typer.echo(run["id"])
    _say_gated(run)


def _say_gated(run: Mapping[str, Any]) -> None:
    """Nothing was queued where a gate is closed: why, and what opens it."""
    for stage in run["stages"]:
        if stage["status"] == "gated":
            text = _("Stage {stage} of run {id} does not start: {why}. To start it nevertheless: panollava runs open-gate {id} {stage}")
            typer.echo(text.format(stage=stage["stage"], id=run["id"], why=stage["waiting_because"]), err=True)


@runs.command("archive")
def archive_run(context: Connection, run_id: RunId) -> None:
    """Leave the run out of lists; nothing of it is removed."""
    _client(context).post(f"/runs/{run_id}/archive")


@runs.command("delete")
def delete_run(
    context: Connection,
    run_id: RunId,
    force: Annotated[bool, typer.Option(help=_("Also if other runs started from its checkpoints."))] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=_("Do not ask."))] = False,
) -> None:
    """Remove the run for good, with its checkpoints, logs, metrics, evaluations and exports."""
    if not yes:
        run = _client(context).get(f"/runs/{run_id}")
        typer.confirm(_("Delete run {id} {name} and all its files?").format(id=run_id, name=run["name"]), abort=True)
    _client(context).delete(f"/runs/{run_id}", force=force or None)


def _address(run_id: int, stage: str | None) -> str:
    """Of a run, or of one of its stages."""
    return f"/runs/{run_id}/stages/{stage}" if stage else f"/runs/{run_id}"


def _settings(changes: list[str] | None) -> dict[str, Any]:
    """`resampler.lr=1e-4` as the API takes it."""
    from panollava.config import put

    settings: dict[str, Any] = {}
    for change in changes or ():
        name, equals, value = change.partition("=")
        if not equals:
            raise typer.BadParameter(_("{change} is not NAME=VALUE.").format(change=change), param_hint="--set")
        put(settings, name, value or None)
    return settings


@checkpoints.command("list")
def list_checkpoints(context: Connection, run: OfRun = None, as_json: AsJson = False) -> None:
    """Newest first."""
    show(_("Checkpoints"), CHECKPOINT_COLUMNS, _client(context).pages("/checkpoints", run_id=run), as_json)


@evaluations.command("list")
def list_evaluations(context: Connection, run: OfRun = None, as_json: AsJson = False) -> None:
    """Newest first."""
    show(_("Evaluations"), EVALUATION_COLUMNS, _client(context).pages("/evaluations", run_id=run), as_json)


@queue.command("list")
def list_queue(context: Connection, as_json: AsJson = False) -> None:
    """What is at work, then what waits in the order in which it will be taken, each with the reason."""
    show(_("Queue"), QUEUE_COLUMNS, _client(context).get("/queue"), as_json)


@queue.command("pause")
def pause_queue(
    context: Connection, name: OfQueue = "all", reason: Annotated[str, typer.Option(help=_("What everybody reads who waits."))] = ""
) -> None:
    """Let no worker take a job from it; what is at work goes on."""
    table(_("Paused"), PAUSE_COLUMNS, _client(context).post("/queue/pause", {"queue": name, "reason": reason}))


@queue.command("resume")
def resume_queue(context: Connection, name: OfQueue = "all") -> None:
    """Let workers take jobs from it again."""
    table(_("Paused"), PAUSE_COLUMNS, _client(context).post("/queue/resume", {"queue": name}))


@queue.command("reorder")
def reorder_queue(
    context: Connection,
    job_id: Annotated[int, typer.Argument(help=_("Number of a job that waits, as `list` shows it."))],
    before: Annotated[int | None, typer.Option(help=_("Take it right before this job."))] = None,
    after: Annotated[int | None, typer.Option(help=_("Take it right after this job."))] = None,
    priority: Annotated[int | None, typer.Option(help=_("The higher the sooner."))] = None,
) -> None:
    """Move a job: beside another one, to another priority, or with no option to the top of its queue."""
    asked = {"job_id": job_id, "before": before, "after": after, "priority": priority}
    table(_("Queue"), QUEUE_COLUMNS, _client(context).post("/queue/reorder", asked))


@workers.command("list")
def list_workers(context: Connection, as_json: AsJson = False) -> None:
    """By name, with what they are at."""
    show(_("Workers"), WORKER_COLUMNS, _client(context).get("/workers"), as_json)


def show(title: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(list(rows))
    else:
        table(title, columns, rows)


def table(title: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*columns, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*(_cell(row[column]) for column in columns))
    Console().print(drawn)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_json(value: Any) -> None:
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _client(context: typer.Context) -> "Client":
    client: Client = context.obj
    return client
