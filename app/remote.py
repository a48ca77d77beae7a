"""The remote nouns of the command line: what a server knows, as a table or as JSON for scripts."""

from collections.abc import Iterable, Mapping, Sequence
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

RUN_COLUMNS = ("id", "name", "status", "created_at", "created_by")
STAGE_COLUMNS = ("stage", "status", "attempt", "reason", "detail")
CHECKPOINT_COLUMNS = ("id", "run_id", "kind", "step", "metrics", "path")
QUEUE_COLUMNS = ("id", "kind", "run_id", "stage", "status", "devices", "priority", "waiting_because")
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


@runs.command("stop")
def stop_run(context: Connection, run_id: RunId) -> None:
    """Save a checkpoint and end; `resume` continues from it."""
    _client(context).post(f"/runs/{run_id}/stop")


@runs.command("resume")
def resume_run(context: Connection, run_id: RunId) -> None:
    """Continue where the run failed or was stopped."""
    _client(context).post(f"/runs/{run_id}/resume")


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
