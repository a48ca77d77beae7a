"""What is kept on disk between runs: it is believed only when whole, it stays within its limit, and it changes no loss."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from panollava import events
from panollava.config import RunConfig
from panollava.data import index as index_module
from panollava.data import room as room_module
from panollava.data.cache import HEADER, Entries, open_room, views_recipe
from panollava.data.images import Reading, read_panorama
from panollava.data.room import Room
from panollava.errors import BadInput
from panollava.events import Event, Metric, Note, Progress
from panollava.model.panollava import PanoLlava
from panollava.model.parts import Built
from panollava.stages import Stage
from panollava.training.data import Access, load_split
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest
from panollava.views import Cutter, Image, ring

GB = 1.0


def entries(root: Path, limit: int = 10**9) -> Entries:
    return Entries(Room(root, limit), "views", "some views")


def views(seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


SIZE = HEADER + views().nbytes


def held(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and "views" in path.parts)


def test_what_was_put_comes_back_to_another_run(tmp_path: Path) -> None:
    assert entries(tmp_path).put("a", views())
    np.testing.assert_array_equal(entries(tmp_path).get("a"), views())
    assert entries(tmp_path).get("b") is None


def test_arrays_are_read_one_behind_the_other_or_not_at_all(tmp_path: Path) -> None:
    mine = entries(tmp_path)
    assert all(mine.put(str(seed), views(seed)) for seed in range(3))
    for _ in range(2):  # the second time without their checksums
        np.testing.assert_array_equal(mine.stacked(["2", "0", "2", "1"]), np.stack([views(2), views(0), views(2), views(1)]))
    assert mine.stacked(["0", "missing"]) is None and mine.stacked(["missing", "0"]) is None


@pytest.mark.parametrize("form", [views()[:1], views().view(np.int8), views().astype(np.uint16)])
def test_an_array_of_another_form_is_no_part_of_them(form: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = entries(tmp_path)
    assert mine.put("a", views()) and mine.put("b", form)
    assert mine.stacked(["a", "b"]) is None and "b" not in mine and "a" in mine
    assert "among arrays of" in caplog.text


def test_a_file_that_became_shorter_after_it_was_checked_is_not_believed(tmp_path: Path) -> None:
    mine = entries(tmp_path)
    mine.put("a", views())
    assert mine.get("a") is not None
    os.truncate(mine.directory / "a", SIZE - 1)
    assert mine.get("a") is None and "a" not in mine


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:40], lambda data: b"", lambda data: data[:-1] + b"\0" + data[-1:]])
def test_a_torn_file_is_removed_and_not_believed(tmp_path: Path, harm, caplog: pytest.LogCaptureFixture) -> None:
    entries(tmp_path).put("a", views())
    path = entries(tmp_path).directory / "a"
    path.write_bytes(harm(path.read_bytes()))
    assert entries(tmp_path).get("a") is None and not path.exists()
    assert f"{path}: damaged" in caplog.text


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    entries(tmp_path).put("a", views())
    path = entries(tmp_path).directory / "a"
    content = bytearray(path.read_bytes())
    content[HEADER + 77] ^= 1
    path.write_bytes(content)
    assert entries(tmp_path).get("a") is None and not path.exists()


def test_what_a_killed_builder_leaves_is_not_believed_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
import numpy as np
from panollava.data import cache
honest = Path.replace
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
cache.Entries(cache.Room(Path({str(tmp_path)!r}), 10**9), "views", "some views").put("a", np.zeros((2, 16, 16, 3), np.uint8))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "views").rglob("*.part"))) == 1
    again = entries(tmp_path)
    assert again.get("a") is None and again.put("a", views())
    np.testing.assert_array_equal(again.get("a"), views())
    assert len(list((tmp_path / "in-use").iterdir())) == 1, "the dead run's list is gone"


def test_what_a_killed_builder_has_left_goes_when_room_is_needed(tmp_path: Path) -> None:
    left = entries(tmp_path).directory / "a.0123.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(SIZE))
    fresh = left.with_name("b.0123.part")
    fresh.write_bytes(bytes(SIZE))
    os.utime(left, (0, 0))
    assert entries(tmp_path, 2 * SIZE).put("c", views())
    assert not left.exists() and fresh.exists(), "the other one may be at work"


def test_two_builders_at_once_leave_one_whole_copy_of_each(tmp_path: Path) -> None:
    gate, made = threading.Barrier(4), [entries(tmp_path) for _ in range(4)]

    def build(mine: Entries) -> None:
        gate.wait()
        assert all(mine.put(str(seed), views(seed)) for seed in range(20))

    threads = [threading.Thread(target=build, args=(each,)) for each in made]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(path.name for path in made[0].directory.iterdir()) == sorted(map(str, range(20)))
    for seed in range(20):
        np.testing.assert_array_equal(entries(tmp_path).get(str(seed)), views(seed))


def test_what_was_used_longest_ago_goes_first_and_the_limit_holds(tmp_path: Path) -> None:
    first = entries(tmp_path, 3 * SIZE)
    for age, name in enumerate("abc"):
        assert first.put(name, views())
        os.utime(first.directory / name, (age, age))
    del first
    again = entries(tmp_path, 3 * SIZE)
    assert again.use("a"), "it was the oldest and is now the newest"
    assert again.put("d", views())
    assert {path.name for path in again.directory.iterdir()} == {"a", "c", "d"} and held(tmp_path) <= 3 * SIZE


def test_nothing_that_a_run_at_work_uses_is_removed(tmp_path: Path) -> None:
    working, other = entries(tmp_path, 3 * SIZE), entries(tmp_path, 3 * SIZE)
    assert all(working.put(name, views()) for name in "abc")
    assert not other.put("d", views()) and other.room.is_full
    assert {path.name for path in working.directory.iterdir()} == {"a", "b", "c"}
    del working
    assert entries(tmp_path, 3 * SIZE).put("d", views()), "that run has ended"


def test_a_full_disk_ends_the_caching_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = entries(tmp_path)
    monkeypatch.setattr(room_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, room_module.RESERVE + 10))
    assert not mine.put("a", views()) and mine.room.is_full
    assert not any((tmp_path / "views").rglob("*"))


def test_a_disk_that_fills_up_while_writing_ends_the_caching_and_not_the_run(tmp_path: Path) -> None:
    mine = entries(tmp_path)
    mine.directory.mkdir(parents=True)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")

    class Full(type(tmp_path)):  # type: ignore[misc]
        def open(self, *words):
            return full.open(*words)

    mine.directory = Full(mine.directory)
    assert not mine.put("a", views()) and mine.room.is_full


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


def test_a_directory_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    (tmp_path / "file").touch()
    with (
        nobody(),
        pytest.raises(BadInput, match=r"cache_dir is .*locked: it cannot be written \(Permission denied\); name another directory, or set"),
    ):
        open_room(str(tmp_path / "locked"), GB)
    with pytest.raises(BadInput, match="cannot be written"):
        open_room(str(tmp_path / "file" / "below"), GB)


def test_equal_ways_of_cutting_share_their_views_and_different_ones_do_not() -> None:
    def recipe(count: int = 8, fov: float = 90.0, size: int = 32, reading: Reading = Reading()) -> str:
        return views_recipe(Cutter(ring(count, fov), size), reading)

    assert recipe() == recipe()
    assert len({recipe(), recipe(6), recipe(fov=80.0), recipe(size=48), recipe(reading=Reading(512))}) == 5


def test_a_warm_cache_decodes_nothing_and_gives_the_same_views(demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cutter = Cutter(ring(8, 90.0), 32)

    def split(room: Room | None):
        return load_split(demo_data / "valid.csv", None, 0.0, cutter, lambda done, total: None, access=Access(room=room))

    plain, _ = split(None), split(open_room(str(tmp_path), GB))
    monkeypatch.setattr(index_module, "read_panorama", lambda *_: pytest.fail("decoded again"))
    warm = split(open_room(str(tmp_path), GB))
    assert warm.index == plain.index
    for image in warm.index.used_images:
        np.testing.assert_array_equal(warm.panoramas[image], plain.panoramas[image])


def test_a_picture_that_was_replaced_is_read_again(demo_data: Path, tmp_path: Path) -> None:
    data, cutter = tmp_path / "data", Cutter(ring(8, 90.0), 32)
    shutil.copytree(demo_data, data)

    def split():
        room = open_room(str(tmp_path / "cache"), GB)
        return load_split(data / "valid.csv", None, 0.0, cutter, lambda done, total: None, access=Access(room=room))

    before = split()
    first, second = before.index.images[:2]
    stat = first.stat()
    first.write_bytes(second.read_bytes()[: stat.st_size].ljust(stat.st_size, b"\0"))
    os.utime(first, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (stat.st_size, stat.st_mtime_ns) == (first.stat().st_size, first.stat().st_mtime_ns), "as size and time say, nothing has happened"
    try:
        after = split().index.pictures[0]
    except BadInput as error:
        assert first.name in str(error), "cut short, it is read and found torn"
    else:
        assert after == read_panorama(first).picture != before.index.pictures[0]


def test_damaged_views_are_cut_again_from_the_picture(demo_data: Path, tmp_path: Path) -> None:
    cutter = Cutter(ring(8, 90.0), 32)

    def split():
        return load_split(demo_data / "valid.csv", None, 0.0, cutter, lambda done, total: None, access=Access(room=open_room(str(tmp_path), GB)))

    honest = np.array(split().panoramas[0])
    for path in (tmp_path / "views").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    again = split()
    np.testing.assert_array_equal(again.panoramas[0], honest)


# in a training -------------------------------------------------------------------


def told(directory: Path) -> list[Event]:
    return [event for _, event in events.read(directory / events.EVENTS_FILE)]


def losses(directory: Path) -> list[tuple[int, str, float]]:
    wanted = ("train_loss", "val_loss", "grad_norm")
    return [(each.step, name, each.values[name]) for each in told(directory) if isinstance(each, Metric) for name in wanted if name in each.values]


def train(config: RunConfig, directory: Path, stage: Stage = Stage.finetune, **changes: object) -> list[tuple[int, str, float]]:
    train_stage(StageJob(config.model_copy(update=changes), stage, directory), StopRequest(directory))
    return losses(directory)


def test_losses_with_and_without_the_cache_are_equal_to_the_last_bit(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = {"cache_dir": str(tmp_path / "cache"), "example_predictions": 0}
    without = train(config, tmp_path / "off", cache="off", **cache)
    assert not (tmp_path / "cache").exists()
    assert train(config, tmp_path / "cold", **cache) == without and len(without) == 7
    counted = [event for event in told(tmp_path / "cold") if isinstance(event, Progress) and event.unit == "images"]
    assert any(event.done == event.total == 40 for event in counted)
    monkeypatch.setattr(index_module, "read_panorama", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(PanoLlava, "patches", lambda *_: pytest.fail("encoded again"))
    assert train(config, tmp_path / "warm", **cache) == without


def test_an_encoder_that_learns_sees_pixels_and_its_features_are_not_kept(config: RunConfig, tmp_path: Path) -> None:
    cache = {"cache_dir": str(tmp_path / "cache")}
    with_views = train(config, tmp_path / "views", Stage.resampler, **cache)
    assert with_views == train(config, tmp_path / "off", Stage.resampler, cache="off")
    assert not (tmp_path / "cache" / "features").exists()


def test_where_no_room_is_left_the_rest_is_computed_and_that_is_said(config: RunConfig, tmp_path: Path) -> None:
    tiny = {"cache_dir": str(tmp_path / "cache"), "cache_gb": 30 * 25e3 / 1e9}
    assert train(config, tmp_path / "tiny", **tiny) == train(config, tmp_path / "off", cache="off")
    notes = [event.text for event in told(tmp_path / "tiny") if isinstance(event, Note)]
    assert any("is full: cache_gb is 0.00075" in text for text in notes)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.parent.parent.name == "views") <= 30 * 25e3


def test_other_weights_or_another_precision_have_features_of_their_own(built: Built, tmp_path: Path) -> None:
    from panollava.training.features import features_of

    def place(model: PanoLlava, precision: str = "32-true", views: str = "v") -> Path:
        return features_of(model, Room(tmp_path, 10**9), views, (), precision, torch.device("cpu")).entries.directory

    same = place(built.model)
    assert same == place(built.model)
    others = {place(built.model, "bf16-mixed"), place(built.model, views="w")}
    weight = next(built.model.vision.parameters())
    with torch.no_grad():
        weight.view(-1)[0] += 1
        others.add(place(built.model))
        weight.view(-1)[0] -= 1
    assert len(others | {same}) == 4
