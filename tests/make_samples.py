"""Makes the pictures in sample_images/ again: `pip install scikit-image && python tests/make_samples.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

OUT = Path(__file__).parents[1] / "sample_images"
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


def wood(h: int, w: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w].astype(float)
    bend = sum(a * np.sin(x / p + o) for a, p, o in ((9, 160, 0.3), (4, 61, 1.2), (2, 27, 2.0)))
    rings = np.sin((y + bend) / 5.5 + 1.5 * np.sin((y + bend) / 47))
    noise = np.asarray(Image.fromarray(rng.normal(0, 1, (h, w // 24 + 2)).astype(np.float32)).resize((w, h)))
    tone = 0.62 + 0.05 * rings + 0.035 * noise + 0.08 * np.sin((y + bend) / 120)
    return np.stack([tone * 214, tone * 172, tone * 128], -1)


def buttons() -> Image.Image:
    """A tray of buttons: five by seven, alike in shape, in four colours, each lit from the upper left."""
    rng, scale, cell = np.random.default_rng(7), 2, 96
    rows, cols = 5, 7
    h, w = rows * cell * scale, cols * cell * scale
    canvas, shade = wood(h, w, rng), np.zeros((h, w), np.float32)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    colours = np.array([(176, 58, 46), (36, 113, 163), (240, 236, 222), (203, 150, 50)], float)
    placed = []
    for n in range(rows * cols):
        j, i = divmod(n, cols)
        cy = (j + 0.5 + rng.normal(0, 0.035)) * cell * scale
        cx = (i + 0.5 + rng.normal(0, 0.035)) * cell * scale
        r = cell * scale * rng.uniform(0.335, 0.375)
        colour = colours[rng.choice(4, p=(0.3, 0.3, 0.25, 0.15))] + rng.normal(0, 5, 3)
        placed.append((cy, cx, r, colour, rng.uniform(0, 3.1)))
        shade = np.maximum(shade, np.clip((r * 1.12 - np.hypot(y - cy - 0.13 * r, x - cx - 0.1 * r)) / (0.2 * r), 0, 1))
    soft = np.asarray(Image.fromarray((shade * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(7 * scale)))
    canvas = canvas * (1 - 0.55 * soft[..., None] / 255)
    for cy, cx, r, colour, turn in placed:
        dy, dx = (y - cy) / r, (x - cx) / r
        d = np.hypot(dy, dx)
        slope = np.where(d > 0.86, (d - 0.86) * 5.2, np.where((d > 0.66) & (d < 0.78), -(d - 0.66) * 5, 0.05 * d))
        light = 0.86 - slope * (dx * 0.55 + dy * 0.8) / np.maximum(d, 0.05)
        gloss = np.exp(-((dx + 0.42) ** 2 + (dy + 0.5) ** 2) / 0.03) * 0.35
        face = colour * np.clip(light, 0.3, 1.35)[..., None] + 255 * gloss[..., None]
        for q in range(4):
            a = turn + q * np.pi / 2
            hole = np.hypot(dx - 0.26 * np.cos(a), dy - 0.26 * np.sin(a))
            face = np.where((hole < 0.105)[..., None], colour * 0.18, face)
            face = np.where(((hole >= 0.105) & (hole < 0.14))[..., None], face * 0.8, face)
        cover = np.clip((1 - d) * r / 1.5, 0, 1)[..., None]
        canvas = canvas * (1 - cover) + face * cover
    image = Image.fromarray(np.clip(canvas + rng.normal(0, 3, canvas.shape), 0, 255).astype(np.uint8))
    return image.resize((w // scale, h // scale), Image.Resampling.LANCZOS)


def main() -> None:
    pictures = {
        "portrait": from_package("astronaut", 512), "animal": from_package("chelsea", 512),
        "still_life": from_package("coffee", 600), "texture": from_package("grass", 512),
        "tiny_objects": from_package("hubble_deep_field", 720), "tissue": from_package("retina", 560),
        "text": page(), "repeated_objects": buttons(),
    }
    for name, picture in pictures.items():
        picture.save(OUT / f"{name}.jpg", quality=88, optimize=True)
        print(name, picture.size)


if __name__ == "__main__":
    main()
