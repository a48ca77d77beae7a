"""What the manager refuses, said so that a person can act on it. Who raises knows no HTTP; `status` is what the edge answers with."""

from datetime import datetime

from app.i18n import _
from panollava.errors import BadInput


class AppError(Exception):
    """A message for the user: what is wrong, where, and what to do. Never raised for a defect of ours."""

    status = 400


class Unauthorized(AppError):
    """Nobody has said who they are."""

    status = 401


class Forbidden(AppError):
    """Known, but not allowed."""

    status = 403


class NotFound(AppError):
    status = 404


class Conflict(AppError):
    """Right in itself, but not in the state things are in; the message says which state that is."""

    status = 409


class Invalid(AppError):
    """A value that cannot work; the message names its field."""

    status = 422


class DatabaseAway(AppError):
    """Nothing can be read or written. Said by who has seen that it does not answer, and since when."""

    status = 503
    code = "database_away"

    def __init__(self, since: datetime) -> None:
        super().__init__(_("The database does not answer. Trainings at work go on, and nothing of what they say is lost."))
        self.since = since


class DatabaseReadOnly(AppError):
    """It answers and takes no writes: a standby, say, or one that is failed over."""

    status = 503
    code = "database_read_only"

    def __init__(self, since: datetime) -> None:
        super().__init__(
            _(
                "The database can only be read at this moment: nothing of what you sent was stored. Pages go on to show what it holds. "
                "Trainings at work go on too, and what they say is brought in when it can be written again."
            )
        )
        self.since = since


def status_of(error: AppError | BadInput) -> int:
    """What the edge answers with; input that the trainer's own modules refuse is as any other value that cannot work."""
    return error.status if isinstance(error, AppError) else Invalid.status
