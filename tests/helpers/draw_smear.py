"""A stained blood smear, drawn: something for a detector of blood cells to find."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter


def clouds(rng: np.random.Generator, h: int, w: int, cell_y: float, cell_x: float) -> np.ndarray:
    """(h, w) smooth noise of unit spread, its blobs about cell_y by cell_x pixels."""
    small = rng.normal(size=(max(2, round(h / cell_y)), max(2, round(w / cell_x)))).astype(np.float32)
    noise = np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))
    return noise / noise.std()


def finish(canvas: np.ndarray, scale: int, blur: float) -> Image.Image:
    """(h, w, 3) light of 0 to 255 -> the picture, softened as by a lens and made smaller."""
    h, w = canvas.shape[:2]
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    return image.resize((w // scale, h // scale), Image.Resampling.LANCZOS)


# Light passes through everything that lies on the glass, so densities add up and overlaps darken by themselves.
LAMP = np.array([217, 211, 206])
RED, PINK, VIOLET, BLUE = -np.log(np.array([(186, 128, 116), (206, 142, 158), (190, 168, 208), (98, 72, 180)]) / LAMP)


def blob(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, middle: np.ndarray, r: float,
         lumps: Sequence[float]) -> np.ndarray:
    """(h, w) distance from the middle in radii, 1 on the outline; lumps are shares of r at 2, 3, 4 … bulges around."""
    dy, dx = y - middle[0], x - middle[1]
    angle, outline = np.arctan2(dy, dx), np.ones_like(y)
    for bulges, size in enumerate(lumps, 2):
        outline += rng.normal(0, size) * np.cos(bulges * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(dy, dx) / (r * outline)


def red_cell(rng: np.random.Generator, d: np.ndarray, r: float) -> np.ndarray:
    """(h, w, 3) density of a dish: thickness after Evans and Fung, more or less hollow, with a refracting rim."""
    hollow = rng.choice([0.4, 0.85, 1.0], p=[0.2, 0.3, 0.5])
    inside = np.sqrt(np.clip(1 - d**2, 0, 1))
    dish = inside * (0.81 + 7.83 * d**2 - 4.39 * d**4) / 2.55  # thickest at 0.65 of its radius
    thick = hollow * dish + (1 - hollow) * 1.05 * inside**0.6
    rim = 0.34 * np.exp(-(((d - 0.965) * r / 3) ** 2)) - 0.14 * np.exp(-(((d - 1.04) * r / 4) ** 2))
    return (rng.normal(0.92, 0.08) * thick + rim)[..., None] * RED


def white_cell(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, middle: np.ndarray, r: float,
               lobes: Sequence[tuple[float, float]], size: float, grain: np.ndarray) -> np.ndarray:
    """(h, w, 3) density of granular cytoplasm and a lobed nucleus; places (down, right) and size of lobes in radii."""
    h, w = y.shape
    body = np.clip((1 - blob(rng, y, x, middle, r, (0.03, 0.015, 0.01, 0.01, 0.01))) * r / 5 + 0.5, 0, 1)
    granules = np.clip(1 + 0.35 * clouds(rng, h, w, 5, 5) + 0.15 * clouds(rng, h, w, 30, 30), 0.2, 2)
    away = [blob(rng, y, x, middle + r * np.array(place), size * r, (0.10, 0.08, 0.05, 0.03)) for place in lobes]
    joined = -np.log(sum(np.exp(-9 * np.clip(d, 0, 4)) for d in away)) / 9  # a soft minimum: lobes grow bridges
    nucleus = np.clip((1 - joined) * r / 14 + 0.5, 0, 1)
    chromatin = 0.85 + 0.17 * clouds(rng, h, w, 17, 17) + 0.15 * clouds(rng, h, w, 38, 38)
    cytoplasm = (body * granules)[..., None] * grain
    return cytoplasm * (1 - 0.8 * nucleus[..., None]) + (1.1 * nucleus * chromatin)[..., None] * BLUE


def platelet(rng: np.random.Generator, d: np.ndarray) -> np.ndarray:
    """(h, w, 3) density of a small granular clot of violet."""
    speckle = np.clip(1 + 0.25 * clouds(rng, *d.shape, 10, 10), 0.4, 2)
    return (np.clip((1.1 - d) * 2, 0, 1) * speckle)[..., None] * (0.45 * BLUE + 0.4 * VIOLET)


def smear() -> Image.Image:
    """Red cells, two white cells and platelets under oil immersion."""
    rng, scale, h, w = np.random.default_rng(11), 2, 960, 1280
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    density = 0.012 * clouds(rng, h, w, 160, 160)[..., None] * PINK + 0.02 * PINK
    whites = [
        (np.array([600.0, 860.0]), 168.0, ((-0.42, -0.30), (-0.36, 0.36), (0.24, 0.46), (0.46, -0.16)), 0.36, VIOLET),
        (np.array([250.0, 300.0]), 152.0, ((-0.22, -0.38), (0.20, -0.30), (0.02, 0.42)), 0.37,
         0.55 * PINK + 0.4 * VIOLET),
    ]
    with_bra_row_after = [(middle, r) for middle, r, *_ in whites]
    crowd = 1.0
    while len(with_bra_row_after) < 2 + 23:
        middle, r = np.array([rng.uniform(-20, h + 20), rng.uniform(-20, w + 20)]), rng.normal(92, 6)
        near = crowd if len(with_bra_row_after) % 4 else 0.66  # every fourth may lie upon another
        if all(np.hypot(*(middle - other)) > (near if n > 1 else 1.0) * (r + size)
               for n, (other, size) in enumerate(with_bra_row_after)):
            with_bra_row_after.append((middle, r))
        crowd = max(0.8, crowd - 0.0005)
    for middle, r in with_bra_row_after[2:]:
        density += red_cell(rng, blob(rng, y, x, middle, r, (0.06, 0.03, 0.015, 0.01)), r)
    for middle, r, lobes, lobe, grain in whites:
        density += white_cell(rng, y, x, middle, r, lobes, lobe, grain)
    small = 0
    while small < 6:
        middle, r = np.array([rng.uniform(60, h - 60), rng.uniform(60, w - 60)]), rng.uniform(29, 35)
        if all(np.hypot(*(middle - other)) > 1.02 * (r + size) for other, size in with_bra_row_after):
            with_bra_row_after.append((middle, r))
            density += platelet(rng, blob(rng, y, x, middle, r, (0.12, 0.1, 0.06, 0.05)))
            small += 1
    lamp = LAMP * (1.03 - 0.13 * np.hypot((x - 0.45 * w) / w, (y - 0.4 * h) / h))[..., None]
    canvas = lamp * np.exp(-density) + rng.normal(0, 3, (h, w, 1))
    return finish(canvas, scale, 1.3)
