"""A table named by its path is checked: what is refused, what a report shows, how a check is watched and stopped."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from app.datasets import checks, tables
from app.datasets import service as datasets
from app.datasets.checks import Checks, Progress
from app.datasets.histogram import histogram
from app.datasets.issues import issues, kind_of, unseen
from app.datasets.service import Checked, Question
from app.errors import Conflict, Forbidden, Invalid, NotFound
from app.settings import Settings
from panollava.data import index
from panollava.data.images import read_panorama
from panollava.data.index import OnProgress
from panollava.errors import BadInput

HEAD = "url,query,annotation\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three small panoramas below the one directory that is open."""
    directory = tmp_path / "open"
    directory.mkdir()
    for name, colour in (("a.jpg", "red"), ("b.jpg", "green"), ("c.png", "blue")):
        Image.new("RGB", (64, 32), colour).save(directory / name)
    return directory


@pytest.fixture
def settings(root: Path, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", roots=[root])


def table(root: Path, rows: str, name: str = "train.csv") -> str:
    (root / name).write_text(HEAD + rows)
    return str(root / name)


def many(root: Path, count: int) -> str:
    """A table that takes a while: so many different images."""
    for number in range(count):
        (root / f"{number}.jpg").write_bytes((root / "a.jpg").read_bytes())
    return table(root, "".join(f"{number}.jpg,What?,This.\n" for number in range(count)))


def check(settings: Settings, csv: str, **more: object) -> Checked:
    return datasets.check(settings, Question(csv=csv, **more))


async def all_of(watched) -> list[Progress | Checked]:
    return [news async for news in watched]


def slowed(monkeypatch, wait: Callable[[int], object]) -> threading.Event:
    """Every check waits before it tells of so many images; what comes back is set when one has ended."""
    real, ended = datasets.check, threading.Event()

    def check(settings: Settings, question: Question, on_progress: OnProgress) -> Checked:
        def tell(done: int, total: int) -> None:
            wait(done)
            on_progress(done, total)

        try:
            return real(settings, question, tell)
        finally:
            ended.set()

    monkeypatch.setattr(datasets, "check", check)
    return ended


# What it says


def test_the_real_sample_is_in_order(sample_dir, tmp_path):
    report = check(Settings(home=tmp_path, roots=[sample_dir]), str(sample_dir / "downtest.csv"))
    assert (report.rows, report.images, report.groups, report.errors, report.warnings) == (23, 5, 5, [], [])
    assert report.sizes == {"2048x1024": 2, "4096x2048": 2, "5376x2688": 1}
    assert [sight.line for sight in report.first] == [2, 7, 12, 15, 20] and sum(sight.rows for sight in report.first) == 23


def test_a_report_counts_the_rows_of_the_splits_beside_it(demo_data, tmp_path):
    report = check(Settings(home=tmp_path, roots=[demo_data]), str(demo_data / "valid.csv"))
    assert [split.name for split in report.splits] == ["train", "valid", "test"]
    assert [split.rows for split in report.splits][1] == report.rows
    assert report.errors == [] and report.sizes == {"512x256": 8}


def test_a_split_that_is_no_csv_says_so_and_hides_nothing_else(settings, root):
    csv = table(root, "a.jpg,q,a\n")
    (root / "test.csv").write_bytes(b"\xff\xfe\x00")
    train, test = check(settings, csv).splits
    assert (train.rows, test.rows) == (1, None) and "UTF-8" in test.problem


def test_every_sentence_of_a_check_is_of_a_kind(settings, root):
    Image.new("RGB", (64, 30)).save(root / "odd.png")
    Image.new("RGB", (64, 64)).save(root / "square.png")
    (root / "torn.jpg").write_bytes((root / "a.jpg").read_bytes()[:300])
    (root / "text.jpg").write_text("no image")
    rows = "a.jpg,q,a\na.jpg,q,a\nb.jpg,,a\nnowhere.jpg,q,a\nhttp://x.org/a.jpg,q,a\n"
    rows += "odd.png,q,a\nsquare.png,q,a\ntorn.jpg,q,a\ntext.jpg,q,a\nb.jpg,q,a, b\n../private.jpg,q,a\n"
    Image.new("RGB", (64, 32)).save(root.parent / "private.jpg")
    table(root, "a.jpg,q,a\n", "valid.csv")
    (root / "test.csv").write_bytes(b"\xff")
    report = check(settings, table(root, rows))
    assert {each.line: kind_of(each, is_error=True) for each in report.errors} == {
        4: "cells", 5: "missing", 6: "missing", 8: "aspect", 9: "unreadable", 10: "unreadable", 11: "cells", 12: "closed",
    }  # fmt: skip
    kinds = [(each.line, kind_of(each, is_error=False)) for each in report.warnings]
    assert sorted(kinds) == [(1, "other"), (2, "shared"), (3, "repeated"), (7, "aspect")]
    assert unseen(report) == {5, 6, 9, 10, 12}
    assert {sight.line for sight in report.first if sight.problem} == {5, 6, 8, 9, 10, 12}


def test_issues_are_shown_by_kind_and_long_lists_are_cut(settings, root):
    report = check(settings, table(root, "nowhere.jpg,q,a\n" + "a.jpg,q,a\n" * 302))
    every = issues(report)
    assert (every.total, len(every.shown), every.more) == (302, 200, 102)
    assert every.shown[0].kind == "missing" and [(kind, count) for kind, _label, count in every.kinds] == [("missing", 1), ("repeated", 301)]
    assert [each.problem.line for each in issues(report, "missing").shown] == [2]
    assert issues(report, "no such kind").chosen == ""


def test_bars_hold_every_number_once():
    one = histogram({7: 3})
    assert one and [(bar.name, bar.count, bar.height) for bar in one.bars] == [("7", 3, 1.0)] and one.median == 7
    wide = histogram(dict.fromkeys(range(1, 101), 1), most=24)
    assert wide and len(wide.bars) == 20 and sum(bar.count for bar in wide.bars) == 100
    assert (wide.bars[0].name, wide.bars[-1].name, wide.median) == ("1–5", "96–100", 50)
    assert histogram({}) is None


# What it refuses


@pytest.mark.parametrize(("csv", "error", "message"), [
    ("", Invalid, "csv: name a table"),
    ("{root}/nowhere.csv", Invalid, "csv: there is no file"),
    ("{root}", Invalid, "csv: .* is a directory; name a table in it: .*train.csv"),
    ("{root}/../secret.csv", Forbidden, "csv: .*secret.csv lies outside"),
    ("{root}/link.csv", Forbidden, "csv: .*secret.csv lies outside"),
    ("{root}/binary.csv", BadInput, "not UTF-8"),
])  # fmt: skip
def test_a_table_that_cannot_be_read_is_refused_by_name(settings, root, csv, error, message):
    table(root, "a.jpg,q,a\n")
    (root.parent / "secret.csv").write_text(HEAD)
    (root / "link.csv").symlink_to(root.parent / "secret.csv")
    (root / "binary.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(error, match=message):
        check(settings, csv.format(root=root))


def test_an_image_root_must_be_an_open_directory(settings, root):
    csv = table(root, "a.jpg,q,a\n")
    with pytest.raises(Forbidden, match="image_root: "):
        check(settings, csv, image_root=str(root.parent))
    with pytest.raises(Invalid, match="image_root: there is no directory"):
        check(settings, csv, image_root=str(root / "a.jpg"))


def test_images_from_elsewhere_are_errors_of_their_rows_and_no_file_of_them_is_opened(settings, root, monkeypatch):
    Image.new("RGB", (64, 32)).save(root.parent / "private.jpg")
    (root / "link.jpg").symlink_to(root.parent / "private.jpg")
    opened = []
    monkeypatch.setattr(index, "read_panorama", lambda path, reading: (opened.append(path), read_panorama(path, reading))[1])
    csv = table(root, "../private.jpg,q,a\na.jpg,q,a\nlink.jpg,q,a\n../private.jpg,r,a\nnowhere.jpg,q,a\nb.jpg,q,a\n")
    report = check(settings, csv)
    assert [(each.line, each.column) for each in report.errors] == [(2, "url"), (4, "url"), (6, "url")]
    closed = f"lies outside the directories open to users ({root}, {settings.artifacts}; PANOLLAVA_ROOTS adds to them)"
    assert [each.message for each in report.errors[:2]] == [f"../private.jpg: {closed} (2 rows)", f"link.jpg: {closed}"]
    assert sorted(opened) == [root / "a.jpg", root / "b.jpg"] and (report.rows, report.images) == (6, 2)
    with pytest.raises(Forbidden, match=r"private\.jpg lies outside"):
        datasets.image(settings, Question(csv=csv), "../private.jpg")


def test_only_images_that_the_table_names_are_given_out(settings, root):
    question = Question(csv=table(root, "a.jpg,q,a\ngone.jpg,q,a\n"))
    assert datasets.image(settings, question, "a.jpg") == root / "a.jpg"
    for url in ("b.jpg", "./a.jpg", "gone.jpg"):
        with pytest.raises(NotFound):
            datasets.image(settings, question, url)
    table(root, "b.jpg,q,the table has changed\n")
    assert datasets.image(settings, question, "b.jpg") == root / "b.jpg"


# How it is watched


def test_a_check_tells_how_far_it_is_and_then_what_came_of_it(settings, root, monkeypatch):
    monkeypatch.setattr(checks, "TICK_SECONDS", 0.001)
    heard = threading.Event()
    slowed(monkeypatch, lambda done: done != 100 or heard.wait(60))
    told: list[Progress | Checked] = []

    async def listen() -> None:
        async for news in Checks().watch(settings, Question(csv=many(root, 200))):
            told.append(news)
            if isinstance(news, Progress) and news.done:
                heard.set()

    asyncio.run(listen())
    *progress, report = told
    assert isinstance(report, Checked) and report.images == 200
    seen = [news.done for news in progress if news.total]
    assert seen and seen == sorted(seen) and {news.total for news in progress} <= {0, 200}


def test_a_check_stops_when_nobody_watches_it_any_more(settings, root, monkeypatch):
    monkeypatch.setattr(checks, "TICK_SECONDS", 0.001)
    question, house = Question(csv=many(root, 300)), Checks()
    left, reached = threading.Event(), []
    ended = slowed(monkeypatch, lambda done: (reached.append(done), done != 100 or left.wait(60)))

    async def leave_early() -> int:
        async with contextlib.aclosing(house.watch(settings, question)) as watched:
            async for news in watched:
                if isinstance(news, Progress) and news.done:
                    return news.done
        raise AssertionError("the check ended before anybody could leave")

    assert asyncio.run(leave_early()) < 300
    left.set()
    assert ended.wait(60) and reached[-1] < 300, "the check went on"
    assert house.find(settings, question) is None


def test_what_came_of_a_check_is_known_until_one_of_the_tables_changes(settings, root):
    house, question = Checks(), Question(csv=table(root, "a.jpg,q,a\n"))
    assert house.find(settings, question) is None
    asyncio.run(all_of(house.watch(settings, question)))
    found = house.find(settings, question)
    assert found and found.rows == 1
    assert house.find(settings, Question(csv=question.csv, need_annotation=False)) is None
    table(root, "a.jpg,q,a\n", "valid.csv")
    assert house.find(settings, question) is None, "the report does not know what the tables share now"


def test_checks_beyond_two_wait_and_say_so_and_beyond_ten_are_refused(settings, root, monkeypatch):
    monkeypatch.setattr(checks, "TICK_SECONDS", 0.001)
    go, house, question = threading.Event(), Checks(), Question(csv=table(root, "a.jpg,q,a\n"))
    real = datasets.check
    monkeypatch.setattr(datasets, "check", lambda *arguments: (go.wait(60), real(*arguments))[1])

    heard: list[list[Progress | Checked]] = [[] for _ in range(10)]

    async def listen(news: list[Progress | Checked]) -> None:
        async for each in house.watch(settings, question):
            news.append(each)

    async def crowd() -> None:
        watchers = [asyncio.create_task(listen(news)) for news in heard]
        while sum(news[-1:] == [Progress()] for news in heard) < 2 or not all(heard):
            await asyncio.sleep(0.01)
        assert sum(news[-1] == Progress(is_waiting=True) for news in heard) == 8
        with pytest.raises(Conflict, match="8 checks wait already"):
            await all_of(house.watch(settings, question))
        go.set()
        await asyncio.gather(*watchers)

    asyncio.run(crowd())
    assert all(isinstance(news[-1], Checked) for news in heard)
    assert isinstance(asyncio.run(all_of(house.watch(settings, question)))[-1], Checked), "there is room again"


def test_a_server_that_leaves_ends_its_checks(settings, root, monkeypatch):
    monkeypatch.setattr(checks, "TICK_SECONDS", 0.001)
    house, question, closed = Checks(), Question(csv=table(root, "a.jpg,q,a\n")), threading.Event()
    slowed(monkeypatch, lambda _done: closed.wait(60))

    async def close_early() -> None:
        async for _news in house.watch(settings, question):
            house.close()

    with pytest.raises(Conflict, match="being stopped"):
        asyncio.run(close_early())
    closed.set()


# What is suggested


def test_tables_below_the_roots_are_suggested_and_other_csv_files_are_not(settings, root):
    table(root, "")
    (root / "deep" / "quic").mkdir(parents=True)
    (root / "deep" / "quic" / "valid.csv").write_text("image,instruction\n")
    (root / "figures.csv").write_text("step,loss\n")
    (root / "binary.csv").write_bytes(b"\xff")
    (root / "empty.csv").write_text("")
    for hidden in (".git", "node_modules", "1/2/3/4"):
        (root / hidden).mkdir(parents=True)
        (root / hidden / "train.csv").write_text(HEAD)
    assert [(each.directory, [path.name for path in each.tables]) for each in tables.below(settings)] == [
        (root, ["train.csv"]), (root / "deep" / "quic", ["valid.csv"]),
    ]  # fmt: skip


def test_a_root_that_is_not_there_and_nested_roots_are_no_trouble(settings, root):
    table(root, "")
    more = settings.model_copy(update={"roots": [root, root, root / "nowhere"]})
    assert len(tables.below(more)) == 1


def test_tables_of_runs_are_suggested_newest_first_and_once(house, session):
    first, second = house.create(session), house.create(session)
    other = house.create(session, csv_train=str(house.root / "test.csv"))
    found = tables.used(session)
    assert [each.run.id for each in found] == [other.id, second.id] and first.id != second.id
    assert [path.name for path in found[1].tables] == ["train.csv", "valid.csv"]
