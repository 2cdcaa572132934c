"""Augmentation against Pillow and float64 formulas sample by sample; the identity is exact, the rest of the batch irrelevant."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from accord.data.augment import Augmentation, VectorAugmentation, augment, augment_vectors, full_view
from accord.data.colour import LUMA, colour_matrix, recolour, retone, solarise
from accord.data.crop import Window, blur, blur_weights, full_window, random_window, resample, turned
from accord.data.random import Draws
from accord.errors import UsageError

EVERYTHING = replace(Augmentation.photo(), blur=0.5, blur_sigma=(0.3, 1.5), solarise=0.3)
TURNING = replace(EVERYTHING, rotate=20.0, shear=0.1, shift=0.1)
RECIPES = {
    "photo": Augmentation.photo(),
    "grey": Augmentation.grey_photo(),
    "digits": Augmentation.digits(),
    "everything": EVERYTHING,
    "turning": TURNING,
}


def images(n: int, height: int = 16, width: int | None = None, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth random images with some detail, so that a pixel's neighbours matter."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width or height), mode="bicubic").clamp(0, 1)
    noisy = smooth + 0.1 * torch.rand(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).to(torch.uint8)


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, torch.arange(n))


def tensor(*values: float) -> Tensor:
    return torch.tensor(values)


# geometry


def pillow(image: Tensor, box: tuple[float, float, float, float], size: int) -> Tensor:
    """Pillow's own antialiased bilinear resize of a box, in float."""
    planes = [Image.fromarray(plane) for plane in (image.float() / 255).numpy()]
    return torch.from_numpy(
        np.stack([np.asarray(p.resize((size, size), Image.Resampling.BILINEAR, box)) for p in planes])
    )


@pytest.mark.parametrize(
    ("height", "width", "size"), [(8, 8, 16), (32, 32, 32), (32, 32, 9), (24, 40, 20), (50, 50, 3)]
)
def test_crop_is_pillows(height: int, width: int, size: int):
    batch = images(6, height, width)
    window = random_window(draws(6), torch.full((6,), width / height), scale=(0.1, 1.0), ratio=(0.5, 2.0))
    views = resample(batch, window, size)
    for image, view, x, y, w, h in zip(batch, views, *window[:4], strict=True):
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        box = tuple(min(max(0.0, float(b)), s) for b, s in zip(box, (width, height) * 2, strict=True))
        torch.testing.assert_close(view, pillow(image, box, size), rtol=0, atol=2e-5)


def bilinear(image: np.ndarray, x: float, y: float, black: bool) -> np.ndarray:
    """Value at pixel coordinates (centres at whole numbers), in float64."""
    height, width = image.shape[1:]
    if not black:
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    value = np.zeros(len(image))
    for row, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, wx in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                value += wy * wx * image[:, row, column]
    return value


@pytest.mark.parametrize("outside", ["repeat", "black"])
@pytest.mark.parametrize("aspect", [1.0, 2.5])
def test_turned_crop_is_the_loop_in_original_geometry(outside: str, aspect: float):
    """A pixel (u, v) of the view lies at centre + slant and rotation of (u w, v h), all measured in the original image."""
    batch, size = images(4, 12), 7
    ratio = torch.full((4,), aspect)
    window = random_window(draws(4), ratio, scale=(0.3, 1.3), ratio=(0.7, 1.4), flip=0.5, shift=0.2)
    angle, shear = tensor(0.3, -1.0, 2.0, 0.0), tensor(0.0, 0.2, -0.1, 0.3)
    views = resample(batch, turned(window, ratio, angle, shear), size, outside=outside)
    for i, image in enumerate((batch.double() / 255).numpy()):
        cx, cy, w, h = (float(t[i]) for t in window[:4])
        for row in range(size):
            for column in range(size):
                across = (column + 0.5) / size - 0.5
                down = (row + 0.5) / size - 0.5
                u, v = across * w * aspect + float(shear[i]) * down * h, down * h  # heights of the original
                cos, sin = math.cos(float(angle[i])), math.sin(float(angle[i]))
                x, y = cx + (cos * u - sin * v) / aspect, cy + (sin * u + cos * v)
                expected = bilinear(image, x * 12 - 0.5, y * 12 - 0.5, outside == "black")
                np.testing.assert_allclose(views[i, :, row, column].numpy(), expected, atol=2e-5)


def test_a_turned_window_that_is_not_turned_is_the_plain_one():
    batch, ratio = images(5, 16), torch.full((5,), 1.7)
    window = random_window(draws(5), ratio, scale=(0.3, 0.9), ratio=(0.7, 1.4), flip=0.5)
    zero = torch.zeros(5)
    same = resample(batch, turned(window, ratio, zero, zero), 16)
    torch.testing.assert_close(resample(batch, window, 16), same, rtol=0, atol=2e-5)


def test_a_quarter_turn_is_rot90():
    batch = images(3, 9)
    ones = torch.ones(3)
    quarter = turned(full_window(ones), ones, ones * (math.pi / 2), ones * 0)
    expected = torch.rot90(batch.float() / 255, 1, (2, 3))
    torch.testing.assert_close(resample(batch, quarter, 9), expected, rtol=0, atol=1e-5)


def test_a_turned_view_of_a_large_canvas_is_averaged_first():
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8).expand(1, 1, 64, 64)
    ones = torch.ones(1)
    small = resample(board, turned(full_window(ones), ones, ones * 0.2, ones * 0), 16)
    assert (small - 0.5).abs().max() < 0.05, "aliasing: a fine chessboard seen from afar is grey"


@pytest.mark.parametrize("channels_last", [False, True])
def test_large_images_are_cropped_like_small_ones(channels_last: bool):
    """Above 64 pixels windows are rounded to whole pixels and resized in uint8, each as if cut out; the filter is the same."""
    batch = images(8, 80, 100)
    window = random_window(draws(8), torch.full((8,), 1.25), scale=(0.1, 1.0), ratio=(0.7, 1.4), flip=0.5)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    views = resample(batch.contiguous(memory_format=layout), window, 48)
    assert views.is_contiguous()
    for image, view, x, y, w, h in zip(batch, views, *window[:4], strict=True):
        left, right = (round(float(x + s * w.abs() / 2) * 100) for s in (-1, 1))
        top, bottom = (round(float(y + s * h / 2) * 80) for s in (-1, 1))
        cut = image[:, top:bottom, left:right]
        expected = pillow(cut, (0, 0, right - left, bottom - top), 48)
        torch.testing.assert_close(view, expected.flip(2) if w < 0 else expected, rtol=0, atol=1.6 / 255)


def test_a_tiny_window_of_a_large_image_is_at_least_one_pixel():
    corner = Window(tensor(0.9999), tensor(0.0001), tensor(1e-4), tensor(1e-4))
    batch = images(1, 80)
    torch.testing.assert_close(resample(batch, corner, 8), (batch[:, :, :1, -1:] / 255).expand(1, 3, 8, 8))


def torchvision_window(
    rng: np.random.Generator, w: int, h: int, scale: tuple, ratio: tuple
) -> tuple[float, float, float, float]:
    """RandomResizedCrop.get_params of torchvision without the rounding to whole pixels, the last resort at a random place."""
    for _ in range(10):
        area = w * h * rng.uniform(*scale)
        r = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        cw, ch = math.sqrt(area * r), math.sqrt(area / r)
        if 0 < cw <= w and 0 < ch <= h:
            return rng.uniform(0, w - cw), rng.uniform(0, h - ch), cw, ch
    r = min(max(w / h, ratio[0]), ratio[1])
    cw, ch = min(w, h * r), min(h, w / r)
    return rng.uniform(0, w - cw), rng.uniform(0, h - ch), cw, ch


@pytest.mark.parametrize(("w", "h"), [(100, 100), (200, 100), (100, 450)])
def test_windows_are_distributed_as_torchvisions_in_original_pixels(w: int, h: int):
    n, scale, ratio = 3000, (0.08, 1.0), (3 / 4, 4 / 3)
    rng = np.random.default_rng(0)
    reference = np.array([torchvision_window(rng, w, h, scale, ratio) for _ in range(n)])
    window = random_window(draws(n), torch.full((n,), w / h), scale=scale, ratio=ratio)
    width, height = window.width * w, window.height * h
    ours = torch.stack([window.x * w - width / 2, window.y * h - height / 2, width, height], 1).double().numpy()
    assert (
        ours[:, :2].min() > -1e-4
        and (ours[:, 0] + ours[:, 2]).max() < w + 1e-3
        and (ours[:, 1] + ours[:, 3]).max() < h + 1e-3
    )
    for column in range(4):
        assert stats.ks_2samp(ours[:, column].round(1), reference[:, column].round(1)).pvalue > 1e-3
    area, seen = (ours[:, 2] * ours[:, 3]) / (w * h), ours[:, 2] / ours[:, 3]
    assert seen.min() > ratio[0] - 1e-3 and seen.max() < ratio[1] + 1e-3
    assert area.max() <= scale[1] + 1e-3
    if w == h:
        assert area.min() >= scale[0] - 1e-3


def test_a_circle_stays_a_circle():
    """A circle in a 2:1 original is an ellipse on its square canvas and a circle again in the plain view and in crops."""
    y, x = np.mgrid[0:96, 0:96] / 96 + 0.5 / 96
    canvas = (((x - 0.5) * 2) ** 2 + (y - 0.5) ** 2 < 0.3**2) * 255
    batch = torch.from_numpy(canvas.astype(np.uint8))[None, None]
    recipe = Augmentation(scale=(0.3, 0.5))
    views = [full_view(batch, 64, tensor(2.0)), full_view(batch, 64, None)]
    views += [augment(batch, Draws(0, 0, tensor(i).long()), recipe, 64, tensor(2.0)) for i in range(40)]
    spreads = []
    for view in views:
        rows, columns = (view[0, 0].sum(axis) for axis in (1, 0))
        ticks = torch.arange(64.0)
        cut = max(float(rows[0] + rows[-1]), float(columns[0] + columns[-1])) > 0
        spread = [
            float(((ticks - (ticks * p).sum() / p.sum()) ** 2 * p).sum() / p.sum()) ** 0.5 for p in (rows, columns)
        ]
        spreads.append((spread[0] / spread[1], cut))
    assert abs(spreads[0][0] - 1) < 0.02
    assert abs(spreads[1][0] - 2) < 0.05, "without its aspect the canvas itself is taken as it is"
    whole = [s for s, cut in spreads[2:] if not cut]
    assert len(whole) >= 3 and max(abs(s - 1) for s in whole) < 0.04


def test_flips():
    batch = images(400, 8)
    views = augment(batch, draws(400), Augmentation(flip=0.25))
    plain = batch.float() / 255
    same = [torch.allclose(v, p, atol=1e-6) for v, p in zip(views, plain, strict=True)]
    mirrored = [torch.allclose(v, p.flip(2), atol=1e-6) for v, p in zip(views, plain, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert stats.binomtest(sum(mirrored), 400, 0.25).pvalue > 1e-3


# the identity


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (33, 33, 2), (96, 96, 3)])
def test_nothing_to_do_returns_the_image(shape: tuple[int, int, int]):
    batch = images(9, *shape)
    expected = batch.float() / 255
    for aspect in (None, torch.ones(9)):
        assert (augment(batch, draws(9), Augmentation(), None, aspect) - expected).abs().max() <= 1e-6
        assert (full_view(batch, None, aspect) - expected).abs().max() <= 1e-6
    assert (augment(expected, draws(9), Augmentation()) - expected).abs().max() <= 1e-6


@pytest.mark.parametrize(
    "inert",
    [
        {"rotate": 1e-6},
        {"jitter": 0.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5},
        {"brightness": 1e-7, "hue": 1e-7},
        {"blur": 1.0, "blur_sigma": (0.0, 0.0)},
        {"blur": 1.0, "blur_sigma": (0.1, 0.1)},
        {"noise": 1e-8},
        {"shift": 1e-7, "outside": "black"},
    ],
)
def test_settings_that_amount_to_nothing_go_through_the_machinery_unharmed(inert: dict[str, float]):
    batch = images(9, 16)
    assert (augment(batch, draws(9), Augmentation(**inert)) - batch.float() / 255).abs().max() <= 1e-5


def test_images_are_left_alone():
    for batch in (images(5), images(5).float() / 255, images(5, channels=1).float() / 255, images(3, 80)):
        before = batch.clone()
        for recipe in RECIPES.values():
            augment(batch, draws(len(batch)), recipe).add_(1)
        full_view(batch).add_(1)
        assert torch.equal(batch, before)


# colour


def luma(image: np.ndarray) -> np.ndarray:
    return np.tensordot(np.array([0.299, 0.587, 0.114]), image, 1)


def jittered(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """torchvision's brightness, contrast and saturation, one after the other without clamping, then a turn of chroma; float64."""
    image = brightness * image
    image = contrast * image + (1 - contrast) * luma(image).mean()
    image = saturation * image + (1 - saturation) * luma(image)
    forward = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    yiq = np.tensordot(forward, image, 1)
    chroma = (yiq[1] + 1j * yiq[2]) * np.exp(-2j * np.pi * hue)
    return np.tensordot(np.linalg.inv(forward), np.stack([yiq[0], chroma.real, chroma.imag]), 1)


def test_composed_colour_is_the_operations_one_by_one():
    batch = images(7).float() / 255
    generator = torch.Generator().manual_seed(1)
    b, c, s = (0.5 + torch.rand(7, generator=generator) for _ in range(3))
    hue = torch.rand(7, generator=generator) - 0.5
    got = recolour(batch, *colour_matrix(b, c, s, hue))
    for i, image in enumerate(batch.double().numpy()):
        np.testing.assert_allclose(got[i].numpy(), jittered(image, *(float(t[i]) for t in (b, c, s, hue))), atol=2e-6)


def test_hue_keeps_luma_and_greys_and_comes_full_circle():
    batch = images(3).float() / 255
    one = torch.ones(3)
    turned_hue = recolour(batch, *colour_matrix(one, one, one, tensor(0.1, 0.3, 0.5)))
    weights = torch.tensor(LUMA).view(3, 1, 1)
    torch.testing.assert_close((turned_hue * weights).sum(1), (batch * weights).sum(1), rtol=0, atol=1e-5)
    assert (turned_hue - batch).abs().mean() > 0.02
    grey = batch[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(recolour(grey, *colour_matrix(one, one, one, one * 0.3)), grey, rtol=0, atol=1e-5)
    torch.testing.assert_close(recolour(batch, *colour_matrix(one, one, one, one)), batch, rtol=0, atol=1e-5)
    red = torch.zeros(1, 3, 1, 1)
    red[:, 0] = 1
    halfway = recolour(red, *colour_matrix(one[:1], one[:1], one[:1], tensor(1 / 3)))[0, :, 0, 0]
    assert halfway.argmax() == 1, "a third of the circle on from red is green, as in HSV"


def test_tone_of_images_without_colour():
    batch = images(3, channels=1).double() / 255
    got = retone(batch.clone(), tensor(1.5, 1.0, 0.5).double(), tensor(-0.5, 0.0, 0.5).double())
    expected = [1.5 * batch[0] - 0.5 * batch[0].mean(), batch[1], 0.5 * batch[2] + 0.5 * batch[2].mean()]
    torch.testing.assert_close(got, torch.stack(expected))


def test_solarise():
    values = torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0]).view(1, 1, 1, 5)
    got = solarise(values.repeat(2, 1, 1, 1), tensor(1.0, 0.0))
    torch.testing.assert_close(got[0].flatten(), tensor(0.0, 0.3, 0.5, 0.3, 0.0))
    assert torch.equal(got[1:], values)


def test_blur_is_the_gaussian_loop():
    batch = (images(3, 11, 14).double() / 255).float()
    sigma = tensor(0.4, 1.3, 0.0)
    got = blur(batch, sigma)
    for i, image in enumerate(batch.double().numpy()):
        width = max(float(sigma[i]), 1e-3)
        for row, column in ((0, 0), (5, 7), (10, 2), (3, 13)):
            wy = np.exp(-((np.arange(11) - row) ** 2) / (2 * width**2))
            wx = np.exp(-((np.arange(14) - column) ** 2) / (2 * width**2))
            expected = np.einsum("y,x,cyx->c", wy / wy.sum(), wx / wx.sum(), image)
            np.testing.assert_allclose(got[i, :, row, column].numpy(), expected, atol=1e-4)
    assert torch.equal(got[2], batch[2])


def test_blur_has_no_denormal_weights():
    """One weight of 1e-40 makes a product on a CPU many times slower."""
    weights = blur_weights(torch.linspace(0, 3, 200), 32)
    assert weights[weights > 0].min() > 1e-7
    torch.testing.assert_close(weights.sum(2), torch.ones(200, 32))


@pytest.mark.parametrize("size", [16, 80])
def test_blur_inside_augment_is_blur_after_cropping(size: int):
    batch = images(40, 80 if size == 80 else 16)
    recipe = Augmentation(scale=(0.3, 0.8), flip=0.5)
    blurred = replace(recipe, blur=0.5, blur_sigma=(0.5, 1.5))
    u = draws(40).uniform("blur", 2)
    sigma = torch.where(u[:, 0] < 0.5, 0.5 + u[:, 1], 0.0)
    assert 8 < int((sigma > 0).sum()) < 32
    expected = blur(augment(batch, draws(40), recipe), sigma)
    torch.testing.assert_close(augment(batch, draws(40), blurred), expected, rtol=0, atol=1e-5)


# the whole


def reference(image: Tensor, i: int, a: Augmentation, size: int, plan: dict[str, Tensor]) -> np.ndarray:
    """One sample of `augment` by Pillow and float64 formulas, for a square image without rotation."""
    side = image.shape[-1]
    x, y, w, h = (float(t[i]) for t in plan["window"])
    box = (x - abs(w) / 2, y - h / 2, x + abs(w) / 2, y + h / 2)
    view = pillow(image, tuple(min(max(0.0, b * side), side) for b in box), size).double().numpy()
    view = view[:, :, ::-1] if w < 0 else view
    sigma = float(plan["blur"][i, 1]) * (a.blur_sigma[1] - a.blur_sigma[0]) + a.blur_sigma[0]
    if plan["blur"][i, 0] < a.blur:
        weights = np.exp(-((np.arange(size)[:, None] - np.arange(size)) ** 2) / (2 * sigma**2))
        weights /= weights.sum(1, keepdims=True)
        view = np.einsum("py,qx,cyx->cpq", weights, weights, view)
    u = plan["colour"][i].double().tolist()
    bounds = (a.brightness, a.contrast, a.saturation, a.hue)
    change = [(u[4] < a.jitter) * bound * (2 * v - 1) for bound, v in zip(bounds, u[:4], strict=True)]
    saturation = 0.0 if u[5] < a.grey else 1 + change[2]
    view = np.clip(jittered(view, 1 + change[0], 1 + change[1], saturation, change[3]), 0, 1)
    return np.where(view > 0.5, 1 - view, view) if plan["solarise"][i] < a.solarise else view


def test_a_batch_is_its_samples_one_by_one():
    """The batched, composed, chunked pipeline against the plain one, sample by sample, with the same random numbers."""
    a, n, size = EVERYTHING, 200, 20
    batch, d = images(n, 32), draws(n, seed=5)
    window = random_window(d, torch.ones(n), scale=a.scale, ratio=a.ratio, flip=a.flip)
    plan = {"window": torch.stack(window[:4]), "blur": d.uniform("blur", 2), "colour": d.uniform("colour", 6)}
    plan["solarise"] = d.uniform("solarise")
    views = augment(batch, d, a, size)
    assert views.shape == (n, 3, size, size) and views.dtype == torch.float32 and views.is_contiguous()
    expected = np.stack([reference(batch[i], i, a, size, plan) for i in range(n)])
    error = np.abs(views.numpy() - expected)
    assert error.max() < 2e-4
    assert stats.describe(expected, axis=None).variance > 0.01


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("side", "size"), [(8, 8), (32, 32), (40, 24), (80, 48)])
def test_a_view_does_not_depend_on_the_batch_around_it(name: str, side: int, size: int):
    n = 130
    batch = images(n, side, channels=1 if name in ("grey", "digits") else 3)
    aspect = torch.linspace(0.5, 2.0, n)
    views = augment(batch, draws(n), RECIPES[name], size, aspect)
    order = torch.from_numpy(np.random.default_rng(1).permutation(n))
    for part in (order, order[:1], order[:7], order[60:]):
        again = augment(batch[part], Draws(0, 0, part), RECIPES[name], size, aspect[part])
        assert torch.equal(again, views[part])


@pytest.mark.parametrize("name", RECIPES)
def test_views_are_in_the_unit_interval_and_differ(name: str):
    batch = images(64, 24)
    views = augment(batch, draws(64), RECIPES[name], 16)
    assert views.shape == (64, 3, 16, 16) and views.min() >= 0 and views.max() <= 1 and bool(views.isfinite().all())
    other = augment(batch, draws(64, seed=1), RECIPES[name], 16)
    assert (views - other).abs().flatten(1).mean(1).min() > 1e-3


def test_a_grey_image_gets_no_colour():
    grey = images(50, channels=1).expand(-1, 3, -1, -1)
    views = augment(grey, draws(50), EVERYTHING)
    assert (views - views[:, :1]).abs().max() < 1e-5
    single = augment(grey[:, :1], draws(50), Augmentation.photo())
    assert torch.equal(single, augment(grey[:, :1], draws(50), Augmentation.grey_photo()))


def test_grey_share():
    views = augment(images(500, 8), draws(500), Augmentation(grey=0.2))
    grey = (views - views[:, :1]).abs().flatten(1).amax(1) < 1e-5
    assert stats.binomtest(int(grey.sum()), 500, 0.2).pvalue > 1e-3


def test_noise():
    batch = torch.full((300, 1, 8, 8), 128, dtype=torch.uint8)
    difference = augment(batch, draws(300), Augmentation(noise=0.1)) - 128 / 255
    assert stats.kstest(difference.flatten().numpy() / 0.1, "norm").pvalue > 1e-3


def test_recipes_suit_their_kind():
    assert Augmentation.digits().flip == 0, "the mirror image of a digit is not that digit"
    for a in (Augmentation.digits(), Augmentation.grey_photo()):
        assert (a.hue, a.saturation, a.grey) == (0, 0, 0)
    assert Augmentation.photo().flip == 0.5 and Augmentation.photo().hue > 0


def test_an_empty_batch():
    assert augment(images(1)[:0], draws(0), EVERYTHING, 8).shape == (0, 3, 8, 8)


def test_local_files_of_any_shape_are_squared():
    assert augment(images(2, 20, 30), draws(2), Augmentation.photo()).shape == (2, 3, 20, 20)
    assert full_view(images(2, 20, 30)).shape == (2, 3, 20, 20)
    torch.testing.assert_close(full_view(images(2, 20, 30)), images(2, 20, 30)[..., 5:25] / 255, rtol=0, atol=1e-5)


# errors


BAD = [
    *[(name, -0.1) for name in ("flip", "rotate", "shear", "shift", "jitter", "brightness", "contrast", "saturation")],
    *[(name, 1.01) for name in ("flip", "shear", "shift", "brightness", "grey", "blur", "solarise", "noise")],
    ("hue", 0.51),
    ("rotate", 181),
    ("flip", math.nan),
    ("flip", "0.5"),
    ("flip", True),
    ("scale", (0.0, 1.0)),
    ("scale", (0.5, 0.2)),
    ("scale", (0.5, math.nan)),
    ("scale", 0.5),
    ("scale", (0.5, 0.6, 0.7)),
    ("ratio", (0.0, 1.0)),
    ("blur_sigma", (-1.0, 1.0)),
    ("outside", "white"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_out_of_bounds_is_named(name: str, value: object):
    with pytest.raises(UsageError) as caught:
        Augmentation(**{name: value})  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError) and caught.value.exit_code == 2
    assert caught.value.message.startswith(f"{name}:") and caught.value.where == name and caught.value.help


@pytest.mark.parametrize(("name", "value"), [("noise", -1), ("mask", 1.0), ("mask", math.inf), ("scale", 2)])
def test_a_value_out_of_bounds_for_vectors(name: str, value: float):
    with pytest.raises(UsageError, match=f"{name}: expected a number in"):
        VectorAugmentation(**{name: value})


def test_wrong_tensors():
    with pytest.raises(ValueError, match="images: expected uint8"):
        augment(torch.zeros(3, 8, 8, dtype=torch.uint8), draws(3), EVERYTHING)
    with pytest.raises(ValueError, match="images: expected uint8"):
        augment(torch.zeros(2, 3, 8, 8, dtype=torch.int32), draws(2), EVERYTHING)
    with pytest.raises(ValueError, match="draws: expected 2"):
        augment(images(2), draws(3), EVERYTHING)
    with pytest.raises(ValueError, match="aspect: expected one value per image"):
        augment(images(2), draws(2), EVERYTHING, 8, torch.ones(3))


# vectors


def test_vectors():
    batch = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment_vectors(batch, draws(2000), VectorAugmentation(noise=0, mask=0)), batch)
    noisy = augment_vectors(batch, draws(2000), VectorAugmentation(noise=0.3, mask=0)) - batch
    assert stats.kstest(noisy.flatten().numpy() / 0.3, "norm").pvalue > 1e-3
    masked = augment_vectors(batch, draws(2000), VectorAugmentation(noise=0, mask=0.25))
    assert bool(((masked == 0) | (masked == batch)).all())
    assert stats.binomtest(int((masked == 0).sum()), 12000, 0.25).pvalue > 1e-3
    gaps = batch.masked_fill(batch > 1, torch.nan)
    assert torch.equal(augment_vectors(gaps, draws(2000), VectorAugmentation()).isnan(), gaps.isnan()), "never made up"
    scaled = augment_vectors(batch, draws(2000), VectorAugmentation(noise=0, mask=0, scale=0.5)) / batch
    torch.testing.assert_close(scaled.std(1), torch.zeros(2000), rtol=0, atol=1e-4)
    assert stats.kstest(scaled[:, 0].numpy(), "uniform", (0.5, 1.0)).pvalue > 1e-3


def test_a_vector_does_not_depend_on_the_batch_around_it():
    batch = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    recipe = VectorAugmentation(scale=0.2)
    whole = augment_vectors(batch, draws(50), recipe)
    part = torch.tensor([41, 3, 17])
    assert torch.equal(augment_vectors(batch[part], Draws(0, 0, part), recipe), whole[part])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_sees_the_same(name: str):
    batch = images(20, 32)
    gpu = augment(batch.cuda(), Draws(0, 0, torch.arange(20, device="cuda")), RECIPES[name], 24)
    torch.testing.assert_close(gpu.cpu(), augment(batch, draws(20), RECIPES[name], 24), rtol=0, atol=1e-4)
