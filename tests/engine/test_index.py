"""The pass over all images before step 1: what it keeps, what it refuses, and what counts as an image."""

import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from panollava.data.images import MAX_PIXELS, BadImage, Panorama, load_panorama
from panollava.data.index import build_index
from panollava.data.table import Problem
from panollava.errors import BadInput
from panollava.views import Image


def noise(width: int = 64, height: int = 32, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: Image | None = None) -> Path:
    pil.fromarray(noise() if pixels is None else pixels).save(path)
    return path


def truncate(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def table(directory: Path, *urls: str) -> Path:
    path = directory / "train.csv"
    path.write_text("url,query,annotation\n" + "".join(f"{url},what is here,answer {row}\n" for row, url in enumerate(urls)))
    return path


def test_rows_of_one_image_share_it_and_it_is_decoded_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name, noise(seed=ord(name[0])))
    kept: dict[int, Panorama] = {}
    seen: list[tuple[int, int]] = []
    csv = table(tmp_path, "b.png", "a.png", "./b.png", str(tmp_path / "a.png"))
    index = build_index(csv, on_progress=lambda done, total: seen.append((done, total)), keep=kept.__setitem__)
    assert index.images == (tmp_path / "b.png", tmp_path / "a.png")
    assert index.row_image == (0, 1, 0, 1) and index.used_images == [0, 1]
    assert [row.annotation for row in index.rows] == ["answer 0", "answer 1", "answer 2", "answer 3"]
    assert seen == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(kept[0].pixels, noise(seed=ord("b")))
    np.testing.assert_array_equal(kept[1].pixels, noise(seed=ord("a")))


def test_bad_images_refuse_the_table_and_each_row_is_named(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg")
    truncate(save(tmp_path / "torn.jpg"), 0.6)
    save(tmp_path / "square.png", noise(32, 32))
    csv = table(tmp_path, "good.jpg", "torn.jpg", "nowhere.jpg", "torn.jpg", "square.png")
    with pytest.raises(BadInput) as caught:
        build_index(csv)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{csv}: 4 of 5 rows cannot be used (max_bad_frac is 0):"
    assert lines[1].startswith(f"{csv}:3:url: torn.jpg: image file is truncated")
    assert lines[2].startswith(f"{csv}:4:url: nowhere.jpg: no such file below {tmp_path}")
    assert lines[3].startswith(f"{csv}:5:url: torn.jpg: image file is truncated")
    assert (
        lines[4] == f"{csv}:6:url: square.png: 32 x 32 pixels are not the 2:1 of a whole panorama (--allow-partial-pano takes it for a part of one)"
    )


def test_as_many_bad_rows_as_allowed_are_left_out_and_listed(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg")
    truncate(save(tmp_path / "torn.jpg"), 0.6)
    csv = table(tmp_path, "torn.jpg", "good.jpg", "good.jpg", "good.jpg")
    kept: set[int] = set()
    index = build_index(csv, max_bad_frac=0.25, keep=lambda image, _: kept.add(image))
    assert [row.line for row in index.rows] == [3, 4, 5]
    assert index.row_image == (1, 1, 1) and index.used_images == [1] and kept == {1}
    assert [bad.partition(": ")[0] for bad in index.bad] == [f"{csv}:2:url"]
    with pytest.raises(BadInput, match="1 of 4 rows cannot be used"):
        build_index(csv, max_bad_frac=0.2)


def test_rows_with_empty_cells_count_as_bad_rows(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    csv = tmp_path / "train.csv"
    csv.write_text("url,query,annotation\na.png,q,a\n,,a\na.png,q,b\na.png,,c\n")
    index = build_index(csv, max_bad_frac=0.5)
    assert [row.annotation for row in index.rows] == ["a", "b"]
    assert [bad.partition(": ")[0] for bad in index.bad] == [f"{csv}:3:url", f"{csv}:3:query", f"{csv}:5:query"]
    with pytest.raises(BadInput, match="2 of 4 rows cannot be used"):
        build_index(csv, max_bad_frac=0.4)


def test_a_table_without_a_needed_column_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    csv = tmp_path / "train.csv"
    csv.write_text("url,query\na.png,q\n")
    with pytest.raises(BadInput, match=":1:annotation: the column is missing"):
        build_index(csv, max_bad_frac=1)
    assert len(build_index(csv, need_annotation=False).rows) == 1


def test_a_table_of_which_nothing_is_left_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="1 of 1 rows"):
        build_index(table(tmp_path, "nowhere.jpg"), max_bad_frac=1)


def test_an_error_in_keep_is_not_swallowed_and_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(200)]
    for name in names:
        save(tmp_path / name)
    decoded = []

    def fail(image: int, panorama: Panorama) -> None:
        decoded.append(image)
        time.sleep(0.01)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        build_index(table(tmp_path, *names), keep=fail)
    assert len(decoded) < len(names)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp"])
def test_a_truncated_file_is_never_a_picture(tmp_path: Path, name: str, keep: float) -> None:
    truncate(save(tmp_path / name), keep)
    with pytest.raises(BadImage) as caught:
        load_panorama(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {caught.value.reason}" and caught.value.reason


@pytest.mark.parametrize("content", [b"", b"url,query\n", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_file_of_another_kind_is_no_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(BadImage, match="not an image in one of JPEG, PNG"):
        load_panorama(tmp_path / "a.jpg")


def test_grey_cmyk_palette_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    picture = pil.fromarray(noise())
    for name, mode in (("l.png", "L"), ("cmyk.jpg", "CMYK"), ("p.png", "P"), ("rgba.png", "RGBA"), ("la.png", "LA"), ("bit.png", "1")):
        picture.convert(mode).save(tmp_path / name)
        panorama = load_panorama(tmp_path / name)
        assert panorama.shape == (32, 64, 3) and panorama.dtype == np.uint8
    picture.convert("RGBA").save(tmp_path / "same.png")
    np.testing.assert_array_equal(load_panorama(tmp_path / "same.png"), noise())


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        pil.fromarray(deep).save(tmp_path / name)
        panorama = load_panorama(tmp_path / name)
        assert (panorama.min(), panorama.max()) == (0, 255)
        assert np.unique(panorama).size == 256


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    pil.fromarray(np.zeros((32, 64), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match="floating-point"):
        load_panorama(tmp_path / "a.tif")


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = pil.Exif()
    exif[0x0112] = 6  # stored on its side
    pil.fromarray(np.ascontiguousarray(np.rot90(noise()))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_panorama(tmp_path / "a.png"), noise())


def claim_size(path: Path, width: int, height: int) -> None:
    """Let a PNG's header say another size than its data has."""
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def test_a_picture_beyond_the_pixel_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    claim_size(path, 20_000, 10_000)
    tracemalloc.start()
    with pytest.warns(pil.DecompressionBombWarning), pytest.raises(BadImage, match=r"20,000 x 10,000 pixels; at most 134,217,728 are read"):
        load_panorama(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000, "its 600 MB were not asked for"
    tracemalloc.stop()
    claim_size(path, 40_000, 20_000)
    with pytest.raises(BadImage, match="more than 134,217,728 pixels"):
        load_panorama(path)
    assert MAX_PIXELS == 16_384 * 8_192


def test_a_directory_and_a_missing_file_are_no_picture(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.jpg"):
        with pytest.raises(BadImage, match=f"{path}: "):
            load_panorama(path)


def test_a_problem_names_file_line_and_column() -> None:
    assert Problem(7, "url", "no such file").at(Path("train.csv")) == "train.csv:7:url: no such file"
    assert Problem(7, "", "two rows in one").at(Path("train.csv")) == "train.csv:7: two rows in one"
