"""The `panollava` command: the house's own verbs, the remote nouns, and the trainer's verbs, which are looked up when needed.

Imports stay inside the commands, so that `panollava --help` does not wait for a database or a web server.
"""

import os
import sys
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from app import remote
from app.access.scope import Scope
from app.errors import AppError
from app.housekeeping import commands as housekeeping
from app.i18n import _
from panollava.errors import BadInput

if TYPE_CHECKING:
    from sqlmodel import Session

TOKEN_COLUMNS = ("id", "name", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at")


class House(TyperGroup):
    """Our commands, and the trainer's for every name that is not ours."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _trainer().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_trainer().list_commands(ctx), *super().list_commands(ctx)]


@cache
def _trainer() -> TyperGroup:
    command = typer.main.get_command(import_module("panollava.cli").app)
    assert isinstance(command, TyperGroup)
    return command


cli = typer.Typer(cls=House, no_args_is_help=True, pretty_exceptions_enable=False, help=_("Train, watch and compare panoramic models."))
tokens = typer.Typer(no_args_is_help=True, help=_("Tokens for the REST API, made on the server's own machine."))
cli.add_typer(tokens, name="token")
for noun, commands in remote.NOUNS.items():
    cli.add_typer(commands, name=noun)


@cli.command()
def up(
    port: Annotated[int | None, typer.Option(help=_("Port of the dashboard; PANOLLAVA_PORT if not given."))] = None,
) -> None:
    """Dashboard and workers on this machine, one worker per GPU or else one on the CPU, until Ctrl-C. Prints the sign-in link."""
    from app import up
    from app.settings import get_settings

    settings = get_settings()
    raise typer.Exit(up.run(settings if port is None else settings.model_copy(update={"port": port})))


@cli.command()
def server(
    host: Annotated[str | None, typer.Option(help=_("Address to listen on; PANOLLAVA_HOST or loopback if not given."))] = None,
    port: Annotated[int | None, typer.Option(help=_("Port to listen on; PANOLLAVA_PORT if not given."))] = None,
) -> None:
    """Serve the REST API and its live streams."""
    from app import serve
    from app.settings import get_settings

    given = {"host": host, "port": port}
    serve.run(get_settings().model_copy(update={name: value for name, value in given.items() if value is not None}))


@cli.command()
def link() -> None:
    """Print a link that signs a browser in: once, within ten minutes."""
    from app.access import sessions
    from app.settings import get_settings

    with _database() as session:
        key = sessions.create_link(session)
    typer.echo(sessions.link_url(get_settings(), key))


@cli.command()
def worker(
    devices: Annotated[str | None, typer.Option(help=_("Devices this worker owns, such as 0,1; all of this machine if not given."))] = None,
    name: Annotated[str | None, typer.Option(help=_("Name of the worker; made of the host and its devices if not given."))] = None,
) -> None:
    """Take jobs from the queue and train, one at a time on all of the worker's devices."""
    given = {"--devices": devices, "--name": name}
    options = [part for option, value in given.items() if value is not None for part in (option, value)]
    # The worker takes this process over: signals reach it as they would have reached us, and nobody waits for a child.
    # -P: a worker.py in the directory we stand in is not ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker", *options])


@cli.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help=_("Where the demo's data and results go."))] = Path("demo"),
    headless: Annotated[bool, typer.Option(help=_("Leave no server running."))] = False,
    seed: Annotated[int, typer.Option(min=0, help=_("Seed of the training."))] = 0,
) -> None:
    """Train the whole chain on rendered panoramas, evaluate it, compare, and say what holds."""
    from app.demo import run

    raise typer.Exit(run(directory, headless=headless, seed=seed))


housekeeping.mount(cli)


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help=_("What histories call it."))],
    scope: Annotated[Scope, typer.Option(help=_("What it may do; each scope includes the ones before it."))] = Scope.launch,
) -> None:
    """Make a token and print it, this once."""
    from app.access import service as access

    with _database() as session:
        _token, secret = access.create(session, name, scope)
    typer.echo(secret)


@tokens.command("list")
def list_tokens() -> None:
    """Show the tokens there are, without their secrets."""
    from app.access import service as access

    with _database() as session:
        remote.table(_("Tokens"), TOKEN_COLUMNS, [each.model_dump() for each in access.page(session, None, 1000)])


@tokens.command("revoke")
def revoke_token(token_id: Annotated[int, typer.Argument(help=_("Its number in the list."))]) -> None:
    """Close a token for good."""
    from app.access import service as access

    with _database() as session:
        access.revoke(session, token_id)


def _database() -> AbstractContextManager["Session"]:
    """A session on this installation's own database, committed at the end."""
    from app import db
    from app.settings import get_settings

    return db.transaction(get_settings().database_url)


def main() -> None:
    """The console script. What a user can mend is one message and exit status 2."""
    try:
        cli()
    except (AppError, BadInput) as error:
        typer.echo(error, err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
