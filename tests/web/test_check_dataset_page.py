"""A person names a table, sees what is wrong with it and what is in it; a script asks for the same."""

import json
import re
import time
from html import unescape
from io import BytesIO
from urllib.parse import urlencode

import httpx
import pytest
from PIL import Image

from app.datasets import checks
from app.datasets import service as datasets

HEAD = "url,query,annotation\n"


@pytest.fixture
def root(house):
    """Two small panoramas and a table of them, below the one directory that is open."""
    home = house.settings.home
    for name, colour in (("a.jpg", "red"), ("b.jpg", "green")):
        Image.new("RGB", (640, 320), colour).save(home / name)
    (home / "train.csv").write_text(HEAD + 'a.jpg,What?,"This is <b>it</b>."\na.jpg,What?,That.\nb.jpg,Where?,There.\n')
    return home


def page_of(csv, **more):
    return "/datasets/check?" + urlencode({"csv": str(csv)} | more)


def events(lines):
    """(event, data) of a stream, to its end."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def stream(house, csv, **more):
    answer = house.read.get("/datasets/report/stream", csv=str(csv), **more)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    return list(events(answer.text.splitlines()))


# The page


def test_the_form_suggests_tables_of_runs_and_tables_below_the_roots(house, root):
    run = house.submit(csv_val=str(root / "train.csv"))
    text = unescape(house.browser.get("/datasets").text)
    assert f'<option value="{root}/train.csv">' in text
    assert f'<a class="by" href="/runs/{run["id"]}">' in text
    assert text.count(f'href="{page_of(root / "train.csv")}"') == 2


def test_a_check_that_is_not_known_is_watched_or_asked_for_by_a_click(house, root):
    text = unescape(house.browser.get(page_of(root / "train.csv")).text)
    query = urlencode({"csv": str(root / "train.csv")})
    assert f'data-stream="/api/v1/datasets/report/stream?{query}"' in text and f'data-report="/datasets/check?{query}&part=report"' in text
    assert f'href="/datasets/check?{query}&wait=1"' in text
    assert "panoramas</dt>" not in text


def test_waiting_for_it_shows_the_report_and_the_next_visitor_sees_it_at_once(house, root):
    for address in (page_of(root / "train.csv", wait=1), page_of(root / "train.csv")):
        text = house.browser.get(address).text
        assert "In order" in text and re.search(r"rows in order</dt><dd>3</dd>", text)
        assert "median 1" in text and "640 × 320" in text
        assert "This is &lt;b&gt;it&lt;/b&gt;." in text and "<b>it</b>" not in text
    again = house.browser.get(page_of(root / "train.csv", fresh=1)).text
    assert "data-stream=" in again, "asked to look again, nothing old is shown"


def test_the_report_alone_is_the_same_piece_of_the_page(house, root):
    part = house.browser.get(page_of(root / "train.csv", part="report")).text.strip()
    assert part.startswith("{#") is False and part.startswith('<div id="report">') and "<html" not in part
    assert 'id="report"' in house.browser.get(page_of(root / "train.csv")).text


def test_the_demo_data_shows_how_its_rows_are_shared_out(house, demo_data):
    house.settings.roots.append(demo_data)
    text = house.browser.get(page_of(demo_data / "test.csv", wait=1)).text
    assert "Splits beside it" in text and text.count('class="swatch') == 3
    assert text.count("<img ") == 6


def test_the_real_sample_is_shown_with_its_pictures(house, sample_dir):
    house.settings.roots.append(sample_dir)
    text = unescape(house.browser.get(page_of(sample_dir / "downtest.csv", wait=1)).text)
    assert "In order" in text and "5376 × 2688" in text
    addresses = re.findall(r'<img src="([^"]+)"', text)
    assert len(addresses) == 5
    picture = house.browser.get(addresses[1])
    assert picture.headers["content-type"] == "image/jpeg" and Image.open(BytesIO(picture.content)).size == (640, 320)


def test_a_table_that_is_in_order_leads_to_a_launch_form_that_names_it_and_the_split_beside_it(house, root):
    (root / "valid.csv").write_text(HEAD + "b.jpg,Where to?,There.\n")
    text = unescape(house.browser.get(page_of(root / "valid.csv", wait=1)).text)
    (address,) = re.findall(r'href="(/runs/new\?[^"]+)"', text)
    assert address == "/runs/new?" + urlencode({"csv_train": f"{root}/train.csv", "csv_val": f"{root}/valid.csv"})
    form = house.browser.get(address).text
    assert f'value="{root}/train.csv"' in form and f'value="{root}/valid.csv"' in form


def test_issues_are_listed_and_chosen_by_kind(house, root):
    (root / "train.csv").write_text(HEAD + "nowhere.jpg,q,a\na.jpg,,a\n" + "a.jpg,q,a\n" * 4)
    text = house.browser.get(page_of(root / "train.csv", wait=1)).text
    assert "Not usable as it is" in text and "nowhere.jpg: no such file below" in text and text.count("Repeated row") == 4
    missing = unescape(house.browser.get(page_of(root / "train.csv", issue="missing")).text)
    assert "(error)" in missing and "(warning)" not in missing
    assert "/runs/new?" not in missing
    assert f'href="{page_of(root / "train.csv")}#issues"' in missing, "the way back to all of them"


def test_a_row_whose_image_is_not_open_is_listed_and_the_others_are_checked(house, root):
    Image.new("RGB", (64, 32)).save(root.parent / "private.jpg")
    (root / "train.csv").write_text(HEAD + "../private.jpg,q,a\na.jpg,q,a\n")
    answer = house.browser.get(page_of(root / "train.csv", wait=1))
    assert answer.status_code == 200 and "Not usable as it is" in answer.text and "Image not open" in answer.text
    assert f"../private.jpg: lies outside the directories open to users ({root}" in answer.text
    assert answer.text.count("<img ") == 1 and answer.text.count('class="no-picture"') == 1


def test_a_row_without_an_annotation_is_an_error_unless_that_is_allowed(house, root):
    (root / "bare.csv").write_text("url,query\na.jpg,What?\n")
    assert "Not usable" in house.browser.get(page_of(root / "bare.csv", wait=1)).text
    allowed = house.browser.get(page_of(root / "bare.csv", need_annotation=0, wait=1)).text
    assert "In order" in allowed and "annotations may be missing" in allowed


@pytest.mark.parametrize(("values", "status", "field", "message"), [
    ({"csv": ""}, 422, "csv", "name a table"),
    ({"csv": "{root}/gone.csv"}, 422, "csv", "there is no file"),
    ({"csv": "{root}/binary.csv"}, 422, "csv", "not UTF-8"),
    ({"csv": "/etc/passwd"}, 403, "csv", "/etc/passwd lies outside"),
    ({"csv": "{root}/train.csv", "image_root": "/etc"}, 403, "image_root", "/etc lies outside"),
])  # fmt: skip
def test_what_cannot_be_checked_comes_back_with_the_form_and_the_reason_at_its_field(house, root, values, status, field, message):
    (root / "binary.csv").write_bytes(b"\xff\xfe")
    values = {name: value.format(root=root) for name, value in values.items()}
    answer = house.browser.get("/datasets/check?" + urlencode(values))
    assert answer.status_code == status
    assert re.search(rf'id="{field}" [^>]*aria-invalid="true" aria-describedby="{field}-wrong"', answer.text)
    assert re.search(rf'id="{field}-wrong">.*{re.escape(message)}', answer.text)
    assert answer.text.count("aria-invalid") == 1 and f'value="{values["csv"]}"' in answer.text


def test_a_page_of_a_check_holds_no_transaction_while_it_waits(house, root, monkeypatch):
    began, real = [], datasets.check

    def slow(*arguments):
        pool = house.writing.kw["bind"].pool
        began.append(min((time.sleep(0.01), pool.checkedout())[1] for _ in range(10)))  # others ask the database now and then
        return real(*arguments)

    monkeypatch.setattr(datasets, "check", slow)
    assert house.browser.get(page_of(root / "train.csv", wait=1)).status_code == 200
    assert began == [0]


# The API


def test_the_report_is_json(house, root):
    report = house.read.get("/datasets/report", csv=str(root / "train.csv")).json()
    assert (report["rows"], report["images"], report["groups"], report["errors"]) == (3, 2, 2, [])
    assert report["references"] == {"1": 1, "2": 1} and report["sizes"] == {"640x320": 2}
    assert report["question"] == {"csv": str(root / "train.csv"), "image_root": None, "need_annotation": True}


def test_a_report_of_what_is_not_open_or_not_there_is_a_problem(house, root):
    assert house.read.get("/datasets/report", csv="/etc/passwd").status_code == 403
    answer = house.read.get("/datasets/report", csv=str(root / "gone.csv"))
    assert answer.status_code == 422 and "there is no file" in answer.json()["detail"]
    assert house.read.get("/datasets/report").status_code == 422


def test_a_watched_check_ends_with_the_report(house, root, monkeypatch):
    monkeypatch.setattr(checks, "TICK_SECONDS", 0.001)
    for number in range(100):
        (root / f"{number}.jpg").write_bytes((root / "a.jpg").read_bytes())
    (root / "many.csv").write_text(HEAD + "".join(f"{number}.jpg,q,a\n" for number in range(100)))
    *told, (last, report) = stream(house, root / "many.csv")
    assert last == "report" and report["images"] == 100
    assert {name for name, _data in told} <= {"waiting", "progress"}
    assert [data["done"] for name, data in told if name == "progress"] == sorted({data["done"] for name, data in told if name == "progress"})


def test_a_watched_check_that_is_refused_says_why(house, root):
    ((name, data),) = stream(house, "/etc/passwd")
    assert name == "problem" and data["status"] == 403 and "lies outside" in data["detail"]
    ((name, data),) = stream(house, root / "gone.csv")
    assert (name, data["status"]) == ("problem", 422)


def test_hanging_up_stops_the_check(served, house, root, monkeypatch):
    done, real = [], datasets.check_table

    def slow(path, image_root, need_annotation, on_progress, why_closed):
        def tell(count, total):
            time.sleep(0.02)
            done.append(count)
            on_progress(count, total)

        try:
            return real(path, image_root, need_annotation, tell, why_closed)
        finally:
            done.append(-1)

    monkeypatch.setattr(datasets, "check_table", slow)
    count = 2000  # forty seconds
    for number in range(count):
        (root / f"{number}.jpg").write_bytes((root / "a.jpg").read_bytes())
    (root / "many.csv").write_text(HEAD + "".join(f"{number}.jpg,q,a\n" for number in range(count)))
    for hang_up in (after_a_second, at_the_first_picture):
        done.clear()
        with httpx.Client(base_url=f"{served.url}/api/v1/datasets/", headers={"Authorization": f"Bearer {house.read.token}"}, timeout=30) as client:
            hang_up(client, {"csv": str(root / "many.csv")})
        deadline = time.monotonic() + 30
        while done[-1:] != [-1] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert done[-1] == -1 and max(done) < count, hang_up


def after_a_second(client, params):
    with pytest.raises(httpx.ReadTimeout):
        client.get("report", params=params, timeout=httpx.Timeout(30, read=1))


def at_the_first_picture(client, params):
    with client.stream("GET", "report/stream", params=params) as answer:
        assert next(name for name, data in events(answer.iter_lines()) if data.get("done")) == "progress"


def test_a_picture_is_sent_once_while_its_file_stays_the_same(house, root):
    params = {"csv": str(root / "train.csv"), "url": "a.jpg", "width": 320}
    first = house.browser.get("/api/v1/datasets/image", params=params)
    assert Image.open(BytesIO(first.content)).size == (320, 160)
    again = house.browser.get("/api/v1/datasets/image", params=params, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    Image.new("RGB", (640, 320), "blue").save(root / "a.jpg")
    changed = house.browser.get("/api/v1/datasets/image", params=params, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200 and changed.content != first.content


def test_no_other_file_is_sent_as_a_picture(house, root):
    Image.new("RGB", (64, 32)).save(root.parent / "private.jpg")
    (root / "escape.csv").write_text(HEAD + "../private.jpg,q,a\ntext.jpg,q,a\n")
    (root / "text.jpg").write_text("no picture")
    statuses = {}
    for csv, url in (("train.csv", "train.csv"), ("train.csv", "../private.jpg"), ("escape.csv", "../private.jpg"), ("escape.csv", "text.jpg")):
        statuses[csv, url] = house.read.get("/datasets/image", csv=str(root / csv), url=url).status_code
    assert list(statuses.values()) == [404, 404, 403, 422]
    assert house.read.get("/datasets/image", csv="/etc/passwd", url="root").status_code == 403
