"""The chores as commands. Each works on this installation's own database and files; imports stay inside, as in `app.cli`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.i18n import _

if TYPE_CHECKING:
    from sqlalchemy.orm import sessionmaker
    from sqlmodel import Session

    from app.settings import Settings

Heard = Callable[[str, int, int], None]
"""Is told how far something is: what, bytes done, bytes in all."""


def mount(cli: typer.Typer) -> None:
    cli.command("import")(import_run)
    cli.command()(backup)
    cli.command()(restore)
    cli.command()(migrate)
    cli.command()(doctor)


def backup(
    file: Annotated[Path, typer.Argument(help=_("What to write, a tar.gz; replaced when it is whole."))],
    with_checkpoints: Annotated[bool, typer.Option(help=_("Also the checkpoints themselves: gigabytes."))] = False,
) -> None:
    """Copy the database and the small files of all runs into one file, while the house runs."""
    from app.formats import size
    from app.housekeeping.backup import backup
    from app.settings import get_settings

    with _progress() as heard:
        manifest = backup(get_settings(), file, with_checkpoints=with_checkpoints, heard=heard)
    typer.echo(_("{file}: {n:,} files, {size}.").format(file=file, n=len(manifest.files), size=size(file.stat().st_size)))
    if not with_checkpoints:
        typer.echo(_("Checkpoints are not in it; --with-checkpoints takes them along."))
    for directory in manifest.left_out:
        typer.echo(_("Not in it, because it lies elsewhere: {directory}").format(directory=directory))


def restore(file: Annotated[Path, typer.Argument(exists=True, help=_("A file that `panollava backup` wrote."))]) -> None:
    """Make a house of a backup, where there is none yet: PANOLLAVA_HOME, PANOLLAVA_DATABASE_URL and PANOLLAVA_ARTIFACTS say where."""
    from app.housekeeping.restore import restore
    from app.settings import get_settings

    settings = get_settings()
    with _progress() as heard:
        done = restore(settings, file, heard)
    text = _("{n:,} files of {at:%Y-%m-%d %H:%M} UTC are back, in {path}.")
    typer.echo(text.format(n=done.files, at=done.manifest.created_at, path=settings.artifacts))
    if done.missing:
        typer.echo(_("{n:,} checkpoints have no file here; their pages say so.").format(n=done.missing))
    if done.open_jobs:
        typer.echo(
            _("{n:,} jobs waited or were at work: workers of this house take them. Start none while the old house works.").format(n=done.open_jobs)
        )
    for directory in done.manifest.left_out:
        typer.echo(_("Was not in the backup, because it lay elsewhere: {directory}").format(directory=directory))


def migrate() -> None:
    """Bring the database's tables up to this version; servers and workers do it too when they start."""
    with _house():
        typer.echo(_("The tables are those of this version."))


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help=_("JSON instead of a table."))] = False,
    worker: Annotated[
        str | None, typer.Option(metavar="NAME", help=_("Only whether this worker was heard of in the last 30 s, for health checks."))
    ] = None,
) -> None:
    """Look at database, broker, workers, devices, disks and versions, and say what to do. Exit status 1 if anything fails."""
    from dataclasses import asdict

    from app import remote
    from app.housekeeping.doctor import examine, examine_worker
    from app.settings import get_settings

    settings = get_settings()
    findings = [asdict(each) for each in (examine_worker(settings, worker) if worker else examine(settings))]
    remote.show(_("Doctor"), ("check", "level", "found", "do"), findings, as_json)
    raise typer.Exit(int(any(each["level"] == "fail" for each in findings)))


def import_run(
    directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help=_("runs/NAME_STAGE, or runs for all that lie in it."))],
    over: Annotated[bool, typer.Option(help=_("What has not said how it ended has ended: its process is gone."))] = False,
) -> None:
    """Bring trainings from a terminal, torchrun included, into the dashboard; again, to take in what is new. Files stay where they are."""
    from app.housekeeping.importing import Importer

    with _house() as (settings, writing), _progress() as heard:
        found = Importer(writing, settings, over, heard).bring_in(str(directory))
    for each in found:
        text = _("Run {run} ({name}): stage {stage} {status}, {bytes:,} bytes taken in.")
        typer.echo(text.format(run=each.run_id, name=each.name, stage=each.stage, status=each.came_to, bytes=each.taken))
        for remark in each.remarks:
            typer.echo(f"  {remark}")


@contextmanager
def _house() -> Iterator[tuple["Settings", "sessionmaker[Session]"]]:
    """This installation, its tables brought up to date."""
    from app import db
    from app.settings import get_settings

    settings = get_settings()
    db.migrate(settings.database_url)
    engine = db.engine(settings.database_url)
    try:
        yield settings, db.session_factory(engine)
    finally:
        engine.dispose()


@contextmanager
def _progress() -> Iterator[Heard]:
    """A bar on the terminal, for one thing after the other; nothing where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(task, description=what, completed=done, total=total)
