"""What docs/bad-input.md says of names, directories and checkpoints. Its images and tables have tests of their own."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from PIL import Image
from typer.testing import CliRunner

import panollava.data.make_demo
import panollava.hf.export
import panollava.training.chain  # noqa: F401  # who has stepped down may not read any of them any more
from panollava.cli import app
from tests.app.conftest import write_checkpoint

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command in a directory with two small tables, expect exit status 2, and return what it said."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid"):
        Path(f"{split}.csv").write_text("url,query,annotation\n")

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, result.output
        return result.output + result.stderr

    return call


@contextmanager
def nobody() -> Iterator[None]:
    """Root may write anywhere, so it steps down for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--crop-strategy", "fisheye"),
            "crop_strategy: Input should be 'e2p', 'anyres_e2p', 'cubemap', 'sliding_window' or 'resize' (got 'fisheye')",
        ),
        (("--resampler", "magic"), "resampler: there is no resampler 'magic'; there are mlp, linear, avgpool, perceiver, qformer (got 'magic')"),
        (("--overlap-loss", "triplet"), "overlap_loss: Input should be 'vicreg' or 'densecl' (got 'triplet')"),
    ],
)
def test_an_unknown_strategy_resampler_or_loss_is_refused_with_those_there_are(refused: Refused, words: tuple[str, str], said: str) -> None:
    assert said in refused("train", *words)


@pytest.mark.parametrize("flag", ["--output-dir", "--log-dir"])
def test_a_training_is_refused_a_directory_without_write_permission(refused: Refused, flag: str) -> None:
    Path("locked").mkdir(mode=0o555)
    with nobody():
        said = refused("train", "--stage", "vision", "--data-dir", ".", "--log-dir", "", flag, "locked")
    assert f"cannot be written (Permission denied); name another directory with {flag}." in said
    assert not list(Path("locked").iterdir())


@pytest.fixture
def open_to_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory in which everybody may write; pytest's own lie below one that nobody else may enter."""
    with TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        monkeypatch.chdir(place)
        yield Path(place)


@pytest.mark.parametrize(("directory", "at_fault"), [("locked", "locked"), ("locked/new", "locked"), ("locked/a/b", "locked/a"), ("file/a", "file")])
@pytest.mark.parametrize("words", [("export", "best.ckpt"), ("data", "make-demo", "--train", "1", "--valid", "1", "--test", "1")])
def test_an_export_and_demo_data_are_refused_a_directory_without_write_permission(
    refused: Refused, open_to_all: Path, words: tuple[str, ...], directory: str, at_fault: str
) -> None:
    Path("locked").mkdir(mode=0o555)
    Path("file").touch()
    write_checkpoint(open_to_all / "best.ckpt", 1, "best", {})
    before = sorted(open_to_all.rglob("*"))
    with nobody():
        said = refused(*words, directory)
    assert f"{open_to_all / at_fault}: cannot be written (" in said and "); name another directory." in said
    assert sorted(open_to_all.rglob("*")) == before


def test_an_export_of_no_checkpoint_makes_no_directory(refused: Refused) -> None:
    assert "there is no such checkpoint" in refused("export", "none.ckpt", "new/deep")
    assert not Path("new").exists()


@pytest.mark.parametrize("name", ["bomb.ckpt", "bomb.safetensors"])
@pytest.mark.parametrize("command", [("generate", "--image", "x.jpg", "--query", "what"), ("evaluate", "--csv", "train.csv")])
def test_a_pickle_bomb_is_refused_and_does_not_explode(refused: Refused, command: tuple[str, ...], name: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (Path("exploded"),)

    Image.new("RGB", (64, 32)).save("x.jpg")
    Path(name).write_bytes(pickle.dumps(Bomb()))
    assert name in refused(*command, "--checkpoint", name)
    assert not Path("exploded").exists()
    pickle.loads(Path(name).read_bytes())
    assert Path("exploded").exists(), "this bomb does go off where one lets it"
