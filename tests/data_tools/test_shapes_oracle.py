"""The oracle reads what was drawn, still does after noise and blur, and is not fooled by half a shape."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data_tools.shapes.oracle import Unreadable, read_scene
from data_tools.shapes.render import box, render, tile
from data_tools.shapes.scene import BACKGROUNDS, COLOURS, WORLDS, Scene, Thing, random_scene
from unimodal.errors import UserError


def scenes(count: int, seed: str) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng, WORLDS["unseen"]) for _ in range(count)]


def test_reads_every_drawn_scene_exactly():
    wrong = [scene for scene in scenes(10_000, "exact") if read_scene(render(scene)) != scene]
    assert wrong == []


@pytest.mark.parametrize(("sigma", "noise"), [(0.7, 8), (1.0, 8), (1.0, 0)])
def test_reads_through_noise_and_blur(sigma, noise):
    numbers = np.random.default_rng(0)
    right = 0
    for scene in scenes(1000, f"damage {sigma}"):
        soft = Image.fromarray(render(scene)).filter(ImageFilter.GaussianBlur(sigma))
        noisy = np.asarray(soft, np.float32) + numbers.normal(0, noise, (64, 64, 3))
        right += read_scene(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)) == scene
    assert right >= 995


@pytest.mark.parametrize("canvas", [48, 96])
def test_reads_other_canvases(canvas):
    for scene in scenes(50, "canvas"):
        assert read_scene(render(scene, canvas)) == scene


def spoiled(scene: Scene, how: str) -> np.ndarray:
    pixels = render(scene).astype(np.float32)
    thing = scene.objects[0]
    cell, paper = pixels[box(thing.cell)], np.float32(BACKGROUNDS[scene.background])
    other_size = "large" if thing.size == "small" else "small"
    if how == "half missing":
        cell[:, :8] = paper
    elif how == "two sizes at once":
        cell[:] = (cell + tile(thing.shape, other_size, thing.colour, scene.background)) / 2
    elif how == "shifted":
        cell[:] = np.roll(cell, 3, 1)
    elif how == "a speck":
        pixels[box(scene.free()[0])][1:5, 10:14] = COLOURS["red"]
    elif how == "unknown shape":
        cell[:] = tile("moon", thing.size, thing.colour, scene.background)
    elif how == "noise":
        pixels[:] = np.random.default_rng(0).uniform(0, 255, pixels.shape)
    elif how == "unknown background":
        pixels[(pixels == paper).all(-1)] = (90, 20, 60)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "how",
    [
        "half missing",
        "two sizes at once",
        "shifted",
        "a speck",
        "unknown shape",
        "noise",
        "unknown background",
    ],
)
def test_garbage_is_unreadable(how):
    seen = [read_scene(spoiled(scene, how)) for scene in scenes(100, how)]
    if how == "two sizes at once":  # smoothed, half and half may come near to one thing or another
        assert sum(isinstance(scene, Unreadable) for scene in seen) >= 65
        return
    assert sum(isinstance(scene, Unreadable) for scene in seen) >= 97
    assert not any(got == scene for scene, got in zip(scenes(100, how), seen))


def test_a_reason_names_the_place():
    scene = Scene((Thing(0, "ring", "blue", "large"),), "white")
    got = read_scene(spoiled(scene, "half missing"))
    assert isinstance(got, Unreadable)
    assert got.reason.startswith("top left")


def test_reads_an_empty_canvas_and_more_things_than_are_drawn():
    assert read_scene(render(Scene((), "gray"))) == Scene((), "gray")
    full = Scene(tuple(Thing(cell, "star", "red", "large") for cell in range(9)), "white")
    assert read_scene(render(full)) == full


def test_refuses_what_is_no_picture():
    with pytest.raises(UserError, match="square"):
        read_scene(np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(UserError, match="uint8"):
        read_scene(np.zeros((64, 64, 3), np.float32))
