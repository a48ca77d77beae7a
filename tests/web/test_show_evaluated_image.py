"""A panorama of an evaluation as a JPEG: only those it was asked about, only below the roots, only as wide as needed."""

import io

import pytest
from PIL import Image

from app.models import JobStatus
from panollava.events import StageEvent
from panollava.metrics.captions import Prediction
from panollava.metrics.report import report


@pytest.fixture
def evaluation(house):
    """An evaluation of a few urls, three of them of files that can be shown."""
    home = house.settings.home
    Image.linear_gradient("L").resize((640, 320)).convert("RGB").save(home / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    Image.new("RGB", (200, 400), "red").save(home / "turned.jpg", exif=exif)
    (home / "torn.jpg").write_bytes(b"\xff\xd8no image")
    (home / "outside.jpg").symlink_to("/etc/hostname")
    body = {"config": {"checkpoint": str(house.checkpoint("x.ckpt")), "csv": house.table}}
    made = house.launch.post("/evaluations", body).json()["id"]
    work = house.claim()
    urls = ("wide.png", "turned.jpg", "torn.jpg", "missing.jpg", "outside.jpg", "/etc/hostname")
    lines = [Prediction(url=url, query="What?", references=["this"], prediction="this") for url in urls]
    (work.directory / "predictions.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
    (work.directory / "metrics.json").write_text(report(lines).model_dump_json())
    work.say(StageEvent(name="evaluate", status="started"))
    work.end(JobStatus.succeeded)
    return made


def get(house, evaluation, url, **params):
    return house.read.get(f"/evaluations/{evaluation}/image", url=url, **params)


def size(answer):
    return Image.open(io.BytesIO(answer.content)).size


def test_an_image_is_a_jpeg_no_wider_than_asked_and_never_enlarged(house, evaluation):
    whole, small = get(house, evaluation, "wide.png"), get(house, evaluation, "wide.png", width=160)
    assert whole.headers["content-type"] == "image/jpeg"
    assert (size(whole), size(small)) == ((640, 320), (160, 80))


def test_an_image_on_its_side_is_turned_as_its_camera_says(house, evaluation):
    assert size(get(house, evaluation, "turned.jpg")) == (400, 200)


def test_a_browser_that_has_the_image_is_not_sent_it_again_until_the_file_changes(house, evaluation):
    first = get(house, evaluation, "wide.png")
    assert first.headers["cache-control"].startswith("private")

    def again():
        headers = {"Authorization": f"Bearer {house.read.token}", "If-None-Match": first.headers["etag"]}
        return house.client.get(f"/api/v1/evaluations/{evaluation}/image", params={"url": "wide.png"}, headers=headers)

    assert (again().status_code, again().content) == (304, b"")
    Image.new("RGB", (320, 160)).save(house.settings.home / "wide.png")
    assert again().status_code == 200 and size(again()) == (320, 160)


@pytest.mark.parametrize(
    ("url", "params", "status", "says"),
    [
        ("other.jpg", {}, 404, "asks nothing about 'other.jpg'"),
        ("x.ckpt", {}, 404, "asks nothing about"),
        ("missing.jpg", {}, 422, "missing.jpg: no such file below"),
        ("torn.jpg", {}, 422, "torn.jpg"),
        ("outside.jpg", {}, 403, "lies outside the directories open to users"),
        ("/etc/hostname", {}, 403, "lies outside the directories open to users"),
        ("wide.png", {"width": 5000}, 422, "width"),
    ],
)
def test_what_cannot_be_shown_is_a_problem_that_says_why(house, evaluation, url, params, status, says):
    answer = get(house, evaluation, url, **params)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_an_evaluation_without_answers_yet_has_no_images(house):
    made = house.launch.post("/evaluations", {"config": {"checkpoint": str(house.checkpoint("y.ckpt")), "csv": house.table}}).json()["id"]
    assert get(house, made, "a.jpg").status_code == 409
