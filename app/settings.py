"""Where this installation lives and whom it serves, from PANOLLAVA_* variables. The environment is read here and nowhere else."""

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.telemetry.json_logs import LogFormat


def _absolute(value: Any) -> Any:
    return Path(value).expanduser().resolve() if isinstance(value, str | Path) else value


def _place(value: Any) -> Any:
    """A directory, or the address of a prefix in an object store."""
    if not isinstance(value, str) or "://" not in value:
        return _absolute(value)
    bucket, _, prefix = value.removeprefix("s3://").partition("/")
    if not value.startswith("s3://") or not bucket or "//" in f"/{prefix}".rstrip("/"):
        raise ValueError(f"{value!r} is neither a directory nor s3://bucket/prefix")
    if find_spec("s3fs") is None:
        raise ValueError("s3:// needs s3fs: pip install --constraint constraints.txt '.[s3]'")
    return f"s3://{bucket}/{prefix}".rstrip("/")


def _split(separator: str) -> BeforeValidator:
    return BeforeValidator(lambda value: [part for part in value.split(separator) if part] if isinstance(value, str) else value)


Directory = Annotated[Path, BeforeValidator(_absolute)]
Place = Annotated[Path | str, BeforeValidator(_place)]
FOREIGN_SHARE = 0.1


class Settings(BaseSettings):
    """One installation. Directories are absolute and free of symbolic links once this exists."""

    model_config = SettingsConfigDict(env_prefix="PANOLLAVA_", extra="forbid", frozen=True, validate_default=True)

    home: Directory = Field(Path(".panollava"), description="Database file, broker socket and artifacts of the defaults below.")
    database_url: str = Field(
        default_factory=lambda values: f"sqlite:///{values['home'] / 'panollava.db'}", description="sqlite:///FILE or postgresql://..."
    )
    broker_url: str | None = Field(None, description="Celery broker; an embedded Redis if not set.")
    artifacts: Place = Field(
        default_factory=lambda values: values["home"] / "runs",
        description="Where runs and evaluations leave their files: a directory, or s3://bucket/prefix for several hosts.",
    )
    scratch: Directory = Field(
        default_factory=lambda values: values["home"] / "scratch",
        description="With s3://, where this host writes before it uploads, and keeps what it has downloaded. Never shared with another host.",
    )
    roots: Annotated[list[Directory], NoDecode, _split(os.pathsep)] = Field(
        default_factory=lambda: [Path.cwd()], description="Paths that users name must lie below one of these; several are joined as in PATH."
    )
    allow_remote: bool = Field(False, description="Whether runs may download the images that their tables name by http(s) address.")
    cache_gb: float = Field(50.0, gt=0, description="Largest size of what runs share: views, features and downloads, below the artifacts.")
    least_free_gb: float = Field(
        1.0,
        ge=0,
        description="A worker takes no job while its disk has less room than this; of models trained before it is the size of their checkpoints.",
    )
    foreign_share: float = Field(
        FOREIGN_SHARE,
        ge=0,
        le=1,
        description="A worker takes no job while processes that are no run of this house hold more than this share of a GPU's memory; 1 lets it.",
    )
    log_format: LogFormat = Field("text", description="How server and workers log: text, or json, an object a line with run, job and attempt.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(7360, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[list[str], NoDecode, _split(",")] = Field(
        default_factory=lambda: ["127.0.0.1", "localhost", "[::1]"], description="Host names that requests may come in under, joined by commas."
    )


@cache
def get_settings() -> Settings:
    """This process's settings, read once. Entry points call it and pass the result on."""
    return Settings()
