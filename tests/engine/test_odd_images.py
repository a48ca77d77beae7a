"""Images that are not what a panorama usually is: of another shape, another colour space, several at once, or decoded smaller."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from panollava import events, views
from panollava.config import EvaluateConfig, RunConfig
from panollava.data import images
from panollava.data.check import check_table
from panollava.data.images import BadImage, Reading, load_panorama, read_panorama, unusable
from panollava.data.index import build_index
from panollava.errors import BadInput
from panollava.evaluation.ask import ask
from panollava.evaluation.evaluate import evaluate
from panollava.events import Note
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest
from panollava.views import Cutter, Image, ring


def noise(width: int = 64, height: int = 32) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: Image, **options: object) -> Path:
    pil.fromarray(pixels).save(path, **options)
    return path


def table(directory: Path, *urls: str) -> Path:
    path = directory / "train.csv"
    path.write_text("url,query,annotation\n" + "".join(f"{url},what,answer {row}\n" for row, url in enumerate(urls)))
    return path


def test_a_1x1_image_is_no_panorama_and_as_a_part_of_one_it_is_cut_like_any_other(tmp_path: Path) -> None:
    save(tmp_path / "dot.png", noise(1, 1))
    csv = table(tmp_path, "dot.png")
    with pytest.raises(BadInput, match=r"dot\.png: 1 x 1 pixels are not the 2:1 of a whole panorama"):
        build_index(csv)
    assert len(build_index(csv, reading=Reading(partial=True)).rows) == 1
    for pixels in (load_panorama(tmp_path / "dot.png", partial=True), noise(2, 1)):
        assert Cutter(ring(8, 90.0), 16)(pixels).shape == (8, 16, 16, 3)


def test_all_rows_bad_is_refused_whatever_is_allowed_and_each_is_named(tmp_path: Path) -> None:
    save(tmp_path / "square.png", noise(32, 32))
    csv = table(tmp_path, "square.png", "nowhere.png")
    with pytest.raises(BadInput) as caught:
        build_index(csv, max_bad_frac=1.0)
    assert str(caught.value).startswith(f"{csv}: 2 of 2 rows cannot be used") and f"{csv}:3:url: nowhere.png" in str(caught.value)


@pytest.mark.parametrize(("width", "height"), [(400, 100), (128, 100), (100, 300), (7, 2), (3, 3)])
def test_a_part_of_a_panorama_lies_in_the_middle_of_a_black_sphere(tmp_path: Path, width: int, height: int) -> None:
    path = save(tmp_path / "a.png", noise(width, height) | 1)
    whole = load_panorama(path, partial=True)
    assert whole.shape[1] == 2 * whole.shape[0] and whole.shape[0] >= height and whole.shape[1] >= width
    assert whole.shape[0] == height or whole.shape[1] - width <= 1, "as wide or as high as the sphere"
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    np.testing.assert_array_equal(whole[top : top + height, left : left + width], load_panorama(path))
    assert np.count_nonzero(whole.any(axis=2)) == width * height
    assert read_panorama(path, Reading(partial=True)).picture == read_panorama(path).picture


def test_a_wide_strip_shows_the_same_as_the_whole_panorama_around_the_horizon(tmp_path: Path) -> None:
    sphere = np.repeat(np.repeat(noise(32, 16), 16, axis=0), 16, axis=1)  # [256, 512, 3]
    strip = save(tmp_path / "strip.png", sphere[64:192])  # 45 degrees up and down
    view = views.View(0, 0, 60)
    np.testing.assert_array_equal(views.reference(load_panorama(strip, partial=True), view, 16), views.reference(sphere, view, 16))


def test_a_whole_panorama_that_is_a_little_off_is_never_padded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(109, 50))
    np.testing.assert_array_equal(load_panorama(path, partial=True), noise(109, 50))


def test_a_sliver_whose_sphere_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(40_000, 1))
    with pytest.raises(BadImage, match=r"40,000 x 1 pixels are part of a sphere of 40,000 x 20,000; at most 134,217,728 fit"):
        load_panorama(path, partial=True)


def test_a_check_takes_a_part_for_an_error_unless_allowed_and_then_remarks_on_it(tmp_path: Path) -> None:
    save(tmp_path / "strip.png", noise(100, 25))
    csv = table(tmp_path, "strip.png")
    (error,) = check_table(csv).errors
    assert "100 x 25 pixels are not the 2:1" in error.message and "--allow-partial-pano" in error.message
    allowed = check_table(csv, partial=True)
    assert allowed.errors == [] and "taken for a part of a panorama; the rest is black" in allowed.warnings[0].message


def test_an_animated_file_is_no_picture(tmp_path: Path) -> None:
    frames = [pil.fromarray(noise()), pil.fromarray(255 - noise())]
    for name in ("a.webp", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(BadImage, match="2 frames; a panorama is one picture"):
            load_panorama(tmp_path / name)


def test_a_jpeg_with_a_second_picture_behind_its_own_is_that_photograph(tmp_path: Path) -> None:
    """Phones put a depth or gain map there."""
    first, second = pil.fromarray(noise()), pil.fromarray(255 - noise())
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "b.jpg")
    assert pil.open(tmp_path / "a.jpg").format == "MPO"
    np.testing.assert_array_equal(load_panorama(tmp_path / "a.jpg"), load_panorama(tmp_path / "b.jpg"))


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    red = np.full((32, 64, 3), (250, 10, 10), np.uint8)
    pil.fromarray(red).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_panorama(tmp_path / "a.jpg").astype(int) - red).max() < 12


def test_16_bit_colour_keeps_its_upper_bits(tmp_path: Path) -> None:
    import cv2

    deep = noise().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    np.testing.assert_array_equal(load_panorama(tmp_path / "a.png"), noise())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_and_measured_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    exif = pil.Exif()
    exif[0x0112] = orientation
    stored = noise(64, 32) if orientation < 5 else noise(32, 64)
    path = save(tmp_path / "a.jpg", stored, exif=exif)
    panorama = read_panorama(path, Reading(at_least=16))
    assert (panorama.picture.width, panorama.picture.height) == (64, 32) and not unusable(64, 32)
    assert panorama.pixels.shape[1] == 2 * panorama.pixels.shape[0]


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", noise())
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(BadImage, match="bytes; at most 100 are read"):
        load_panorama(path)


def test_fast_decoding_reads_a_jpeg_smaller_and_says_its_own_size(tmp_path: Path) -> None:
    smooth = np.asarray(pil.fromarray(noise(32, 16)).resize((2048, 1024), pil.Resampling.BICUBIC))
    path, cutter = save(tmp_path / "a.jpg", smooth, quality=95), Cutter(ring(8, 90.0), 32)
    fast, exact = read_panorama(path, Reading(cutter.width)), read_panorama(path)
    assert fast.pixels.shape[1] < exact.pixels.shape[1] == 2048 and fast.pixels.shape[1] >= cutter.width
    assert fast.picture == exact.picture and exact.picture.width == 2048
    off = np.abs(cutter(fast.pixels).astype(int) - cutter(exact.pixels))
    assert 0 < off.max() <= 8, "another pixel here and there, the same picture"


def test_images_a_little_off_are_trained_on_with_a_warning_that_counts_them(config: RunConfig, tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", np.roll(noise(136 if number < 2 else 128, 64), number, axis=1))
    csv = (str(table(tmp_path, *(f"{number}.png" for number in range(6)))),)
    train_stage(
        StageJob(config.model_copy(update={"csv_train": csv, "csv_val": csv}), Stage.resampler, tmp_path / "run"), StopRequest(tmp_path / "run")
    )
    warnings = [event.text for _, event in events.read(tmp_path / "run" / events.EVENTS_FILE) if isinstance(event, Note)]
    assert f"{csv[0]}: 2 of 6 images are not quite the 2:1 of a whole panorama, such as one of 136 x 64 pixels." in warnings


def test_a_training_takes_parts_of_panoramas_only_where_allowed(config: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        save(tmp_path / name, np.roll(noise(128, 32), number, axis=1))
    csv = (str(table(tmp_path, *names)),)
    strips = config.model_copy(update={"csv_train": csv, "csv_val": csv, "fast_decode": True})
    with pytest.raises(BadInput, match="6 of 6 rows cannot be used"):
        train_stage(StageJob(strips, Stage.resampler, tmp_path / "refused"), StopRequest(tmp_path / "refused"))
    allowed = strips.model_copy(update={"allow_partial_pano": True})
    assert train_stage(StageJob(allowed, Stage.resampler, tmp_path / "run"), StopRequest(tmp_path / "run")).exists()
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert ask(best, tmp_path / "0.png", "What is behind me?", 2) is not None
    answers = evaluate(EvaluateConfig(checkpoint=str(best), csv=csv[0], max_new_tokens=2, output_dir=str(tmp_path / "e"), cache="off"))
    assert len((answers / "predictions.jsonl").read_text().splitlines()) == 6
    with pytest.raises(BadInput, match="6 of 6 rows cannot be used"):  # what is in the cache by now lets nothing pass
        train_stage(StageJob(strips, Stage.resampler, tmp_path / "still"), StopRequest(tmp_path / "still"))
