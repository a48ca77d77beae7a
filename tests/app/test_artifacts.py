"""The one module that knows storage, on an S3 emulator: whole or not at all, compared by checksum, named in every refusal."""

import hashlib
import os
import threading

import pytest
from pydantic import ValidationError

from app import artifacts
from app.artifacts import Away, Gone
from app.errors import Forbidden
from app.paths import allowed_artifact
from app.settings import Settings
from panollava.errors import BadInput
from tests.app.conftest import write_checkpoint

PART, BIG = 5 << 20, 11 << 20
"""The smallest part that S3 takes, and a file that is sent in parts of it."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(artifacts, "PART_BYTES", PART)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def raw(name: str, data: bytes, **metadata: str) -> None:
    """As somebody else might have left an object."""
    artifacts._store().pipe_file(name, data, Metadata=metadata)


# Names


def test_a_directory_is_itself_everywhere(tmp_path):
    name = artifacts.join(tmp_path, "run-1", "best.ckpt")
    assert name == f"{tmp_path}/run-1/best.ckpt"
    assert artifacts.local(name) == artifacts.fetch(name, None) == tmp_path / "run-1" / "best.ckpt"
    assert not artifacts.is_remote(name)


def test_an_address_has_its_place_in_the_scratch_directory(tmp_path):
    name = artifacts.join("s3://bucket/prefix", "run-1", "best.ckpt")
    assert name == "s3://bucket/prefix/run-1/best.ckpt"
    assert artifacts.local(name, tmp_path) == tmp_path / "bucket" / "prefix" / "run-1" / "best.ckpt"
    with pytest.raises(ValueError, match="without a scratch directory"):
        artifacts.local(name)


@pytest.mark.parametrize("directory", ["s3://bucket/prefix/run-1", "/runs/run-1"])
@pytest.mark.parametrize(
    ("relative", "is_inside"),
    [("checkpoints/a.ckpt", True), ("./x/../a.ckpt", True), ("../run-10/a.ckpt", False), ("../../../../etc/passwd", False), ("/etc/passwd", False)],
)
def test_what_a_trainer_names_outside_its_directory_is_seen(directory, relative, is_inside):
    assert artifacts.is_below(artifacts.resolve(directory, relative), directory) is is_inside


def test_an_address_with_dots_is_below_nothing():
    assert not artifacts.is_below("s3://bucket/prefix/../other/a.ckpt", "s3://bucket/prefix")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("s3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
    ],
)
def test_a_prefix_is_the_same_with_and_without_a_slash(given, kept):
    assert Settings(artifacts=given).artifacts == kept


@pytest.mark.parametrize("given", ["s3://", "s3:///prefix", "gs://bucket/prefix", "s3://bucket//prefix", "http://bucket/prefix"])
def test_what_is_no_place_for_artifacts_is_refused(given):
    with pytest.raises(ValidationError, match=r"neither a directory nor s3://bucket/prefix"):
        Settings(artifacts=given)


def test_only_artifacts_of_this_installation_may_be_named(tmp_path):
    settings = Settings(home=tmp_path, roots=[tmp_path], artifacts="s3://bucket/prefix")
    ours = "s3://bucket/prefix/run-1/best.ckpt"
    assert allowed_artifact(settings, "checkpoint", ours) == ours
    assert allowed_artifact(settings, "checkpoint", f"{tmp_path}/best.ckpt") == f"{tmp_path}/best.ckpt"
    for other in ("s3://bucket/prefix2/best.ckpt", "s3://other/prefix/best.ckpt", "s3://bucket/prefix/../best.ckpt"):
        with pytest.raises(Forbidden, match=r"checkpoint: .* lies outside of s3://bucket/prefix"):
            allowed_artifact(settings, "checkpoint", other)
    with pytest.raises(Forbidden):
        allowed_artifact(Settings(home=tmp_path), "checkpoint", ours)


# Files


@pytest.mark.parametrize("size", [0, 100, BIG])
def test_what_is_uploaded_comes_back_whole(s3, tmp_path, size):
    data = os.urandom(size)
    name = artifacts.join(s3, "run-1", "epoch=00-val_loss=0.5 é.ckpt")
    arrived = []
    artifacts.upload(put(tmp_path / "here" / "a.ckpt", data), name, sha256(data))
    copy = artifacts.fetch(name, tmp_path / "there", sha256(data), arrived.append)
    assert copy.read_bytes() == data
    assert sum(arrived) == size
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_file_that_was_damaged_on_this_host_is_not_uploaded(s3, tmp_path):
    name = artifacts.join(s3, "a.ckpt")
    with pytest.raises(Gone, match=r"a\.ckpt: damaged on this host"):
        artifacts.upload(put(tmp_path / "a.ckpt", b"weights"), name, sha256(b"other weights"))
    assert not artifacts.exists(name)


def test_what_the_store_has_is_not_sent_again(s3, tmp_path, monkeypatch):
    name, path = artifacts.join(s3, "a.ckpt"), put(tmp_path / "a", b"weights")
    artifacts.upload(path, name)
    with monkeypatch.context() as patch:
        patch.setattr(artifacts._store(), "put_file", lambda *_: pytest.fail("sent again"))
        artifacts.upload(path, name)
    artifacts.upload(put(path, b"heavier"), name)
    assert artifacts.read(name) == b"heavier"


def test_an_upload_that_is_torn_leaves_what_was_there(s3, tmp_path):
    name, before, after = artifacts.join(s3, "last.ckpt"), os.urandom(100), os.urandom(BIG)
    artifacts.upload(put(tmp_path / "a", before), name)

    def torn(_size: int) -> None:
        raise RuntimeError("the machine is gone")

    with pytest.raises(RuntimeError):
        artifacts.upload(put(tmp_path / "b", after), name, tell=torn)
    assert artifacts.read(name) == before
    assert artifacts.holds(name, sha256(before), len(before)) and not artifacts.holds(name, sha256(after))


def test_a_download_of_other_contents_is_refused_and_leaves_nothing(s3, tmp_path):
    name = artifacts.join(s3, "a.ckpt")
    raw(name, b"weight5", sha256=sha256(b"weights"))
    for wanted in (sha256(b"weights"), None):
        with pytest.raises(Gone, match=r"a\.ckpt: damaged in the store: its checksum is [0-9a-f]{64} instead of [0-9a-f]{64}"):
            artifacts.fetch(name, tmp_path, wanted)
    assert list(artifacts.local(name, tmp_path).parent.iterdir()) == []


def test_an_object_without_a_checksum_is_not_believed(s3, tmp_path):
    name = artifacts.join(s3, "a.ckpt")
    raw(name, b"weights")
    with pytest.raises(Gone, match="damaged in the store"):
        artifacts.fetch(name, tmp_path)


def test_what_is_missing_is_named(s3, tmp_path):
    name = artifacts.join(s3, "run-1", "best.ckpt")
    for ask in (lambda: artifacts.read(name), lambda: artifacts.fetch(name, tmp_path), lambda: artifacts.read_note(name)):
        with pytest.raises(Gone, match=rf"{name}.*: the store has no such file"):
            ask()
    assert not artifacts.exists(name)
    artifacts.delete(name)


def test_a_copy_that_is_here_is_compared_and_brought_anew_if_it_is_another(s3, tmp_path):
    name = artifacts.join(s3, "last.ckpt")
    artifacts.upload(put(tmp_path / "a", b"first"), name)
    assert artifacts.fetch(name, tmp_path / "there", sha256(b"first")).read_bytes() == b"first"
    artifacts.upload(put(tmp_path / "b", b"second"), name)
    assert artifacts.fetch(name, tmp_path / "there", sha256(b"second")).read_bytes() == b"second"
    artifacts.delete(name)
    assert artifacts.fetch(name, tmp_path / "there", sha256(b"second")).read_bytes() == b"second", "no need to ask"


def test_two_that_fetch_at_once_both_get_the_whole_file(s3, tmp_path):
    name, data = artifacts.join(s3, "a.ckpt"), os.urandom(1 << 20)
    artifacts.upload(put(tmp_path / "a", data), name)
    found = []
    threads = [threading.Thread(target=lambda: found.append(artifacts.fetch(name, tmp_path / "there").read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data] * 4


def test_the_store_gives_a_second_name_only_to_the_same_bytes(s3, tmp_path):
    first, second = artifacts.join(s3, "step=000005.ckpt"), artifacts.join(s3, "last.ckpt")
    artifacts.upload(put(tmp_path / "a", b"weights"), first)
    assert not artifacts.copy(first, second, sha256(b"others")) and not artifacts.exists(second)
    assert artifacts.copy(first, second, sha256(b"weights"))
    assert artifacts.fetch(second, tmp_path / "there", sha256(b"weights")).read_bytes() == b"weights"


def test_a_bucket_that_is_not_there_is_waited_for_when_writing(s3_store, tmp_path):
    with pytest.raises(Away, match="no such file or bucket"):
        artifacts.upload(put(tmp_path / "a", b"weights"), "s3://no-such-bucket/a.ckpt")


def test_a_store_that_does_not_answer_says_so(s3_store, s3, tmp_path):
    name = artifacts.join(s3, "a.ckpt")
    artifacts.upload(put(tmp_path / "a", b"weights"), name)
    s3_store.stop()
    try:
        with pytest.raises(Away, match=rf"{name}: the store does not answer: "):
            artifacts.read(name)
    finally:
        s3_store.start()
    assert artifacts.read(name) == b"weights"


def test_a_directory_whose_name_is_taken_is_followed_by_a_number(tmp_path):
    name = artifacts.join(tmp_path, "run-1")
    assert artifacts.free(name) == name
    put(tmp_path / "run-1" / "old", b"")
    assert artifacts.free(name) == f"{name}.2"


def test_a_note_is_read_beside_its_checkpoint(s3, tmp_path):
    path = tmp_path / "best.ckpt"
    write_checkpoint(path, 3, "best", {"val_loss": 0.5})
    artifacts.upload(tmp_path / "best.ckpt.json", artifacts.join(s3, "best.ckpt.json"))
    assert artifacts.read_note(artifacts.join(s3, "best.ckpt")) == artifacts.read_note(path)
    raw(artifacts.join(s3, "other.ckpt.json"), b"{}")
    with pytest.raises(BadInput, match=r"other\.ckpt: the note beside it is none"):
        artifacts.read_note(artifacts.join(s3, "other.ckpt"))
