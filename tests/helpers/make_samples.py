"""Makes the pictures in sample_images/ again: `pip install scikit-image && python tests/helpers/make_samples.py`."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from draw_smear import clouds, smear
from draw_street import street
from PIL import Image, ImageDraw, ImageFilter, ImageFont

OUT = Path(__file__).parents[2] / "sample_images"
PAGE = """Where does it look?

A map of tokens is cut into windows. The mean of the queries
of each window is compared with the mean of the keys of every
other window, and the few that fit best are kept. Only then do
the tokens attend, and only to the tokens of those windows.

What was not kept is not small: it is gone. No later step can
bring it back, and the weights of the kept windows sum to one
whatever was left out. So look twice: once at the windows that
were chosen, and once at the margin by which they were.

Two numbers set it all. More windows make each one smaller and
the choice finer; more of them kept makes the choice matter
less. At equal coverage the cost is the same, the view is not.

A picture of chosen windows shows similarity of means. It does
not show what the layer has learned, and it does not show what
it was given by position. Compare it with chance, and with the
nearest windows, before you believe it."""


def from_package(name: str, longest: int) -> Image.Image:
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return image


def page() -> Image.Image:
    scale = 2
    sheet = Image.new("RGB", (560 * scale, 680 * scale), (250, 247, 240))
    draw = ImageDraw.Draw(sheet)
    head, *rest = PAGE.split("\n")
    draw.text((48 * scale, 44 * scale), head, (24, 24, 28), ImageFont.load_default(34 * scale))
    body, y = ImageFont.load_default(16 * scale), 112
    for line in rest[1:]:
        draw.text((48 * scale, y * scale), line, (40, 40, 46), body)
        y += 27 if line else 18
    return sheet.resize((560, 680), Image.Resampling.LANCZOS)


def board(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """(h, w, 3) one oak board: growth rings bent along the board, fibres, and pores as short dark strokes."""
    across = np.arange(h, dtype=np.float32)[:, None] + 26 * clouds(rng, h, w, 150, 420) + rng.uniform(0, 400)
    rings = (across / 46 + 0.22 * clouds(rng, h, w, 40, 600)) % 1
    late = np.clip(rings * 1.4 - 0.4, 0, 1) ** 2 * np.clip((1 - rings) / 0.08, 0, 1)
    fibre = 0.6 * clouds(rng, h, w, 2.5, 190) + 0.4 * clouds(rng, h, w, 6, 420)
    pores = np.clip(clouds(rng, h, w, 2, 34) - 1.5, 0, 1) * np.clip(0.4 + clouds(rng, h, w, 20, 300), 0, 1)
    dark = np.clip(0.30 + 0.34 * late + 0.055 * fibre + 0.30 * pores + rng.normal(0, 0.05), 0, 1)[..., None]
    return (1 - dark) * np.array([232, 190, 138]) + dark * np.array([112, 66, 34])


def table(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """(h, w, 3) boards laid side by side, with dark joints."""
    edges = np.rint(np.linspace(0, h, 5) + np.array([0, 14, -10, 8, 0])).astype(int)
    wood = np.concatenate([board(rng, bottom - top, w) for top, bottom in itertools.pairwise(edges)])
    y = np.arange(h)[:, None, None]
    for edge in edges[1:-1]:
        wood *= 1 - 0.75 * np.exp(-(((y - edge) / 2.2) ** 2)) - 0.18 * np.exp(-(((y - edge) / 12) ** 2))
        wood += 26 * np.exp(-(((y - edge - 5) / 2.0) ** 2))
    return wood


def button(radius: float, turn: float, colour: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """(n, n, 4) one button lit from the upper left, alpha last; dy and dx are distances from its middle in radii."""
    d = np.hypot(dy, dx)
    rim = 0.17 * np.sqrt(np.clip(1 - ((d - 0.84) / 0.16) ** 2, 0, 1))
    dish = 0.045 + 0.07 * np.clip(d / 0.72, 0, 1) ** 4
    height = np.maximum(rim, dish * (d < 0.9))
    holes = np.ones_like(d)
    for quarter in range(4):
        angle = turn + quarter * np.pi / 2
        away = np.hypot(dx - 0.27 * np.cos(angle), dy - 0.27 * np.sin(angle))
        height -= 0.05 * np.clip((0.155 - away) / 0.05, 0, 1)
        holes *= np.clip((away - 0.098) * radius / 2 + 0.5, 0, 1)
    slope_y, slope_x = np.gradient(height, 1 / radius)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lambert = (0.42 * slope_x + 0.56 * slope_y + 0.71) / length
    half = (0.23 * slope_x + 0.30 * slope_y + 0.925) / length
    shine = 0.95 * np.clip(half, 0, 1) ** 60 * (d > 0.72) + 0.20 * np.clip(half, 0, 1) ** 24 * (d > 0.70)
    sheen = 0.10 * np.exp(
        -((dx - 0.25) ** 2 + (dy - 0.33) ** 2) / 0.06
    )  # a dish gleams on the side away from the light
    occluded = 1 - 0.28 * np.exp(-(((d - 0.71) / 0.05) ** 2)) * np.clip(-(dx + 1.3 * dy), -0.2, 1)
    face = colour * (0.30 + 0.92 * np.clip(lambert, 0, 1))[..., None] * occluded[..., None]
    face = face + (255 - face) * np.clip(shine + sheen, 0, 1)[..., None]
    face = face * holes[..., None] + np.array([38, 24, 16]) * (1 - holes[..., None])
    return np.dstack([np.clip(face, 0, 255), np.clip((1 - d) * radius + 0.5, 0, 1)])


def buttons() -> Image.Image:
    """Five by seven buttons on a table, alike in shape, in four colours."""
    rng, scale, cell, rows, cols = np.random.default_rng(7), 2, 192, 5, 7
    h, w = rows * cell, cols * cell
    colours = np.array([(188, 44, 40), (28, 92, 168), (238, 230, 208), (222, 158, 34)], float)
    kinds = rng.permutation(np.repeat(np.arange(4), (10, 10, 9, 6)))
    canvas, y, x = table(rng, h, w), *np.mgrid[0:h, 0:w].astype(np.float32)
    places = []
    for kind, (row, col) in zip(kinds, itertools.product(range(rows), range(cols)), strict=True):
        middle = (np.array([row, col]) + 0.5 + rng.normal(0, 0.04, 2)) * cell
        hue = colours[kind] * rng.normal(1, 0.035) + rng.normal(0, 5, 3)
        places.append((*middle, cell * rng.uniform(0.325, 0.385), rng.uniform(0, np.pi), hue))
    for reach, away, strength in ((22, 0.20, 0.50), (7, 0.06, 0.55)):  # the cast shadow, then the one of contact
        shadow = Image.new("L", (w, h))
        for cy, cx, r, _, _ in places:
            ImageDraw.Draw(shadow).circle((cx + 0.75 * away * r, cy + away * r), r, 255)
        soft = np.asarray(shadow.filter(ImageFilter.GaussianBlur(reach)))[..., None] / 255
        canvas *= 1 - strength * soft * np.array([0.88, 0.96, 1.0])
    for cy, cx, r, turn, hue in places:
        part = np.s_[int(cy - r) - 2 : int(cy + r) + 3, int(cx - r) - 2 : int(cx + r) + 3]
        drawn = button(r, turn, hue, (y[part] - cy) / r, (x[part] - cx) / r)
        canvas[part] += (drawn[..., :3] - canvas[part]) * drawn[..., 3:]
    canvas *= (1.10 - 0.26 * np.hypot(x / w, y / h))[..., None]  # the lamp stands at the upper left
    canvas += rng.normal(0, 2.5, (h, w, 1))
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize(
        (w // scale, h // scale), Image.Resampling.LANCZOS
    )


DRAWN = {"text": page, "repeated_objects": buttons, "smear": smear, "street": street}
PACKAGED = {
    "portrait": ("astronaut", 512),
    "animal": ("chelsea", 512),
    "still_life": ("coffee", 600),
    "texture": ("grass", 512),
    "tiny_objects": ("hubble_deep_field", 720),
    "tissue": ("retina", 560),
}


def main() -> None:
    pictures = {name: from_package(*source) for name, source in PACKAGED.items()}
    pictures |= {name: draw() for name, draw in DRAWN.items()}
    for name, picture in pictures.items():
        picture.save(OUT / f"{name}.jpg", quality=88, optimize=True)
        print(name, picture.size)


if __name__ == "__main__":
    main()
