"""The sheet of thumbnails: every picture where its number says, and pixels only."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from accord.evaluate.pictures import Sheet


def decoded(sheet: Sheet) -> Image.Image:
    return Image.open(io.BytesIO(sheet.png()), formats=["PNG"])


def cut(picture: np.ndarray, sheet: Sheet, number: int) -> np.ndarray:
    top, left = number // sheet.columns * sheet.size, number % sheet.columns * sheet.size
    return picture[top : top + sheet.size, left : left + sheet.size]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (5, "L")])
def test_every_picture_is_in_its_place(channels: int, mode: str) -> None:
    images = torch.rand(11, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = Sheet(8)
    assert sheet.add(images[:4]) == [0, 1, 2, 3] and sheet.add(images[4:]) == list(range(4, 11))
    with decoded(sheet) as picture:
        assert picture.mode == mode and picture.size == (sheet.columns * 8, -(-11 // sheet.columns) * 8)
        assert not picture.info and not picture.getexif()
        pixels = np.asarray(picture.convert("RGB"))
    for number in range(11):
        expected = (images[number, :3] if channels == 3 else images[number, :1].expand(3, 8, 8)) * 255
        assert np.abs(cut(pixels, sheet, number).transpose(2, 0, 1) - expected.numpy()).max() <= 0.5 + 1e-4
    assert sheet.describe("f") == {"file": "f", "size": 8, "columns": sheet.columns, "count": 11}


def test_large_and_odd_pictures_are_scaled_and_clipped() -> None:
    sheet = Sheet(224)
    assert sheet.size == 48
    sheet.add(torch.full((1, 3, 224, 224), 1.7))
    sheet.add(torch.full((1, 1, 5, 9), -3.0))
    with decoded(sheet) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (cut(pixels, sheet, 0) == 255).all() and (cut(pixels, sheet, 1) == 0).all()


@pytest.mark.parametrize(("height", "width"), [(8, 4), (4, 8), (8, 8), (16, 8)])
def test_halves_are_shown_whole_in_the_middle(height: int, width: int) -> None:
    sheet = Sheet(8)
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5
    sheet.add(image)
    tile = torch.from_numpy(sheet.tiles[0][..., 0].copy())
    rows, columns = 8 * height // max(height, width), 8 * width // max(height, width)
    top, left = (8 - rows) // 2, (8 - columns) // 2
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[top : top + rows, left : left + columns] = True
    assert (tile[~inside] == 0).all() and (tile[inside] > 0).all()
    if (rows, columns) == (height, width):
        assert torch.equal(tile[inside].view(rows, columns), (image[0, 0] * 255).round().byte())


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_hidden_is_grey(channels: int) -> None:
    sheet, image = Sheet(4), torch.rand(1, channels, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, 1:] = 1
    sheet.add(torch.cat([image.masked_fill(mask.bool(), 0), mask], 1))
    expected = torch.where(mask.bool(), 128, (image * 255).round())[0].permute(1, 2, 0).expand(4, 4, 3)
    assert np.array_equal(sheet.tiles[0], expected.numpy())


def test_an_empty_sheet_is_still_a_picture() -> None:
    sheet = Sheet(8)
    assert sheet.columns == 1 and decoded(sheet).size == (8, 8)
