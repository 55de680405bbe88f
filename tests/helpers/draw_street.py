"""A street crossing seen from a plane, drawn: something for a detector of cars to find.

Lengths are pixels of a canvas twice as fine as the picture, about 15 to the metre; a place is (down, right) on the
canvas, or (along, across) a road from the middle of the crossing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from draw_smear import blob, clouds, finish
from PIL import Image, ImageFilter

SUN = np.array([0.55, 0.83])  # where shadows fall, down and right
PAINTS = np.array([(226, 228, 230), (176, 180, 184), (44, 46, 52), (50, 70, 112), (164, 42, 42), (96, 100, 106),
                   (204, 196, 170), (58, 84, 74)], float)

MIDDLE, FIRST, SECOND = (590.0, 640.0), -13.0, 71.0  # where the roads cross, and their angles
HALF, SIDE, LANES = 100.0, 92.0, 54.0  # half their widths; the second has lanes as far as LANES, then parked cars
DRIVEN = {
    FIRST: ((-560, 26), (-262, 26), (-380, 75), (-258, 75), (60, 26), (420, 75), (640, 26), (252, -26), (262, -75),
            (350, -26), (560, -75), (-90, -75), (-420, -26), (-640, -75)),
    SECOND: ((-262, 27), (-370, 27), (330, -27), (-440, -27), (430, 27), (-330, 73), (-420, 74), (-510, 73),
             (-380, -74), (-470, -73), (300, 73), (384, 74), (330, -74), (500, -73)),
}
ROOFS = (  # place along and across the first road, angle, length, width, colour, flat
    (-480, -300, FIRST, 290, 150, (150, 84, 66), False), (-250, -420, SECOND, 240, 140, (128, 124, 120), True),
    (330, -370, FIRST, 230, 140, (116, 74, 62), False), (640, -330, FIRST, 200, 170, (150, 146, 140), True),
    (520, 460, FIRST, 250, 130, (142, 92, 72), False))
LAWNS = ((-420, -215, 300, 70), (-470, -440, 250, 90), (560, 400, 420, 40), (300, 480, 90, 260))
TREES = (  # place on the canvas, radius
    (973, 92, 62), (1024, 240, 70), (908, 375, 58), (982, 453, 66), (1040, 559, 60), (319, 793, 54), (259, 1005, 50),
    (64, 1052, 66), (186, 701, 58), (49, 761, 64), (409, 311, 50), (302, 420, 48), (858, 948, 52), (925, 1046, 60),
    (112, 222, 50), (269, 1141, 34), (514, 184, 30), (550, 56, 28), (60, 70, 56), (224, 1330, 40))


def boxed(along: np.ndarray, across: np.ndarray, length: float, width: float, corner: float) -> np.ndarray:
    """Signed distance in pixels to a rounded box, below 0 inside."""
    a, b = np.abs(along) - length / 2 + corner, np.abs(across) - width / 2 + corner
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner


def cover(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel (…, 1) within a shape, from the signed distance to it."""
    return np.clip(0.5 - distance, 0, 1)[..., None]


class Scene:
    """A canvas (h, w, 3) under construction."""

    def __init__(self, rng: np.random.Generator, h: int, w: int) -> None:
        self.rng, self.h, self.w = rng, h, w
        self.y, self.x = np.mgrid[0:h, 0:w].astype(np.float32)
        self.canvas = np.zeros((h, w, 3))

    def axes(self, middle: tuple[float, float], degrees: float) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) distances along and across a line through the middle (down, right), degrees clockwise from right."""
        turn = np.deg2rad(degrees)
        dy, dx = self.y - middle[0], self.x - middle[1]
        return dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)

    def lay(self, distance: np.ndarray, colour: np.ndarray, strength: float = 1) -> None:
        """Cover a shape with a colour, or with a texture of the canvas's size."""
        self.canvas += (colour - self.canvas) * cover(distance) * strength

    def shade(self, mask: np.ndarray, height: float, reach: float, strength: float) -> None:
        """Darken where a mask (h, w), swept along the sun by a height in pixels, keeps the light away."""
        swept = np.zeros_like(mask)
        for step in np.arange(0, height + 1, 2):
            down, right = np.rint(step * SUN).astype(int)
            swept[down:, right:] = np.maximum(swept[down:, right:], mask[: self.h - down, : self.w - right])
        soft = np.asarray(Image.fromarray((255 * swept).astype(np.uint8)).filter(ImageFilter.GaussianBlur(reach))) / 255
        self.canvas *= 1 - strength * soft[..., None] * np.array([1, 0.97, 0.88])  # the sky lights shadows blue

    def noise(self, size: float, spread: float) -> np.ndarray:
        """(h, w, 1) clouds of a size in pixels."""
        return spread * clouds(self.rng, self.h, self.w, size, size)[..., None]


def car(scene: Scene, middle: tuple[float, float], degrees: float, paint: np.ndarray, van: bool = False) -> None:
    """A car that looks along its axis: body, glass all round, roof, and the gleam of the sun on its edges."""
    rng, long, wide = scene.rng, *((80.0, 34.0) if van else (68.0 + scene.rng.normal(0, 2), 31.0))
    along, across = scene.axes(middle, degrees)
    part = np.s_[max(0, int(middle[0] - 60)) : int(middle[0] + 60), max(0, int(middle[1] - 60)) : int(middle[1] + 60)]
    u, v = along[part], across[part]
    body = boxed(u, v * (1 + 0.0016 * np.abs(u)), long, wide, 8)
    light = np.deg2rad(degrees)
    sunny = -(u * (SUN @ [np.sin(light), np.cos(light)]) / long + v * (SUN @ [np.cos(light), -np.sin(light)]) / wide)
    edge = np.exp(-(((body + 3) / 1.8) ** 2)) * np.clip(sunny, 0, 1)
    face = paint * (0.92 + 0.30 * sunny)[..., None] + 70 * edge[..., None]
    glass_middle, glass_long = (-0.06, 0.84) if van else (-0.07, 0.62)
    cabin = boxed(u - glass_middle * long, v * (1 + 0.004 * (u + 8)), glass_long * long, wide - 5, 7)
    roof = boxed(u - (glass_middle - 0.03) * long, v, (glass_long - (0.16 if van else 0.27)) * long, wide - 10, 5)
    face += (np.array([34, 40, 48]) + 26 * np.clip(sunny, 0, 1)[..., None] - face) * cover(cabin) * 0.93
    face += (paint * (1.04 + 0.16 * sunny)[..., None] - face) * cover(roof)
    lamps = cover(boxed(np.abs(u) - long / 2 + 3, np.abs(v) - wide / 2 + 6, 4, 6, 1.5))
    face += (np.where((u > 0)[..., None], [236, 236, 226], [128, 30, 28]) - face) * lamps * 0.6
    face += rng.normal(0, 2, (*u.shape, 1))
    scene.canvas[part] += (face - scene.canvas[part]) * cover(body)


def tree(scene: Scene, middle: tuple[float, float], r: float, tint: np.ndarray) -> None:
    """A crown of leaf clumps: a lumpy dome, lit where it faces the sun."""
    rng, reach = scene.rng, int(1.35 * r)
    top, left = max(0, int(middle[0]) - reach), max(0, int(middle[1]) - reach)
    part = np.s_[top : int(middle[0]) + reach, left : int(middle[1]) + reach]
    y, x = scene.y[part], scene.x[part]
    d = blob(rng, y, x, np.array(middle), r, (0.06, 0.06, 0.05, 0.05, 0.04, 0.04, 0.03))
    d = d + 0.05 * clouds(rng, *d.shape, 12, 12) + 0.03 * clouds(rng, *d.shape, 5, 5)
    height = r * 0.75 * np.sqrt(np.clip(1 - d**2, 0, 1))
    for size, tall in ((20, 4.0), (9, 2.2), (4, 0.9)):
        height += tall * clouds(rng, *d.shape, size, size)
    slope_y, slope_x = np.gradient(height)
    lambert = (0.75 + 0.60 * (slope_y * SUN[0] + slope_x * SUN[1])) / np.sqrt(slope_x**2 + slope_y**2 + 1)
    face = tint * (0.40 + 0.75 * np.clip(lambert, 0, 1.3))[..., None] + rng.normal(0, 4, (*d.shape, 1))
    scene.canvas[part] += (face - scene.canvas[part]) * np.clip((1 - d) * 9, 0, 1)[..., None]


def roof(scene: Scene, middle: tuple[float, float], degrees: float, length: float, width: float,
         tint: tuple[int, int, int], flat: bool) -> None:
    """A house from above: two slopes of tiles, or gravel behind a parapet; with chimneys or vents."""
    u, v = scene.axes(middle, degrees)
    walls = boxed(u, v, length, width, 1)
    scene.shade(cover(walls)[..., 0], 60, 1.5, 0.52)
    turn = np.deg2rad(degrees)
    lean = 0.0 if flat else 0.22 * float(SUN @ [np.cos(turn), -np.sin(turn)])
    tiles = np.sin(2 * np.pi * v / 8) * (0 if flat else 0.05)
    face = np.array(tint) * (1 - lean * np.sign(v) + tiles)[..., None] + scene.noise(3, 5) + scene.noise(60, 6)
    scene.lay(walls, face)
    scene.lay(np.abs(walls + 4) - 2 if flat else np.maximum(np.abs(v) - 2, walls), np.array(tint) * 0.5 + 110, 0.7)
    for place in np.linspace(-0.36, 0.36, 4) * length + scene.rng.normal(0, 8, 4):
        box = boxed(u - place, v - scene.rng.uniform(-0.25, 0.25) * width, *((26, 20) if flat else (13, 11)), 1)
        scene.shade(cover(box)[..., 0], 10, 1, 0.45)
        scene.lay(box, np.array((176, 176, 172) if flat else (150, 104, 88)))
        scene.lay(box + 4, np.array((120, 122, 124) if flat else (58, 50, 48)))


def marks(along: np.ndarray, across: np.ndarray, other: np.ndarray, half: float, clear: float, way: int,
          lanes: Sequence[float]) -> np.ndarray:
    """Signed distance to the paint of one road: lines between lanes, broken; stop lines; stripes to walk on.

    Args:
        along: distance along the road.
        across: distance from its middle.
        other: distance from the middle of the road it crosses.
        half: half its width.
        clear: distance from the middle of the other road where paint begins.
        way: 1 when traffic comes in at across > 0 on the arm where other > 0, else -1.
        lanes: places of the broken lines.
    """
    lines = [boxed(along % 92 - 46, across - place, 44, 5, 1) for place in lanes]
    lines += [np.abs(np.abs(across) - 5) - 2.2] if len(lanes) > 1 else []  # a double line where lanes share a direction
    far = np.abs(other) - clear
    stop = np.maximum(np.abs(far - 4) - 4, np.abs(across - way * np.sign(other) * half / 2) - half / 2 + 8)
    walk = np.maximum(np.abs(far + 44) - 24, np.maximum(np.abs(across % 28 - 14) - 7, np.abs(across) - half + 8))
    return np.minimum(np.minimum(np.maximum(np.minimum.reduce(lines), 6 - far), stop), np.where(other > 0, walk, 9))


def at(degrees: float, along: float, across: float) -> tuple[float, float]:
    """A place on the canvas, from one in the axes of a road."""
    turn = np.deg2rad(degrees)
    return (MIDDLE[0] + along * np.sin(turn) + across * np.cos(turn),
            MIDDLE[1] + along * np.cos(turn) - across * np.sin(turn))


def ground(scene: Scene) -> None:
    """Grass, yards, pavements, asphalt and its paint."""
    rng, (s, p), (t, q) = scene.rng, scene.axes(MIDDLE, FIRST), scene.axes(MIDDLE, SECOND)
    asphalt = np.array([112, 112, 113]) + scene.noise(2.5, 4) + scene.noise(14, 2) + scene.noise(150, 4)
    grass = np.array([92, 102, 64]) + scene.noise(4, 5) * [1, 1, 0.6] + scene.noise(40, 6) * [1.3, 0.8, 0.6]
    yard = np.array([142, 136, 127]) + scene.noise(3, 4) + scene.noise(70, 5)
    slabs = np.minimum(s % 20, p % 20) < 1.5
    paving = np.array([156, 152, 145]) + scene.noise(3, 4) + scene.noise(50, 4) - 12 * slabs[..., None]
    a, b = np.abs(p) - HALF, np.abs(q) - SIDE
    road = np.minimum(a, b) - np.maximum(1 - np.abs(a - b) / 130, 0) ** 2 * 32  # a soft minimum rounds the corners
    scene.canvas += np.where(((p < 0) ^ (q < 0))[..., None], yard, grass)
    scene.lay(np.abs(np.hypot(s + 560, p - 560) - 300) - 20, yard + 14)  # a path bends in the park
    for along, across, length, width in LAWNS:
        scene.lay(boxed(s - along, p - across, length, width, 10), grass)
    scene.lay(road - 56, paving)
    scene.lay(road - 4, np.array([172, 170, 165]))
    scene.lay(road, asphalt)
    for place in (-74, -26, 26, 74):  # oil and tyres darken the middle of a lane
        scene.lay(np.maximum(np.abs(p - place) - 7, road), asphalt - 9, 0.6)
    for _ in range(7):  # where it was mended
        u, v = scene.axes(at(FIRST, rng.uniform(-700, 700), rng.uniform(-80, 80)), FIRST)
        scene.lay(np.maximum(boxed(u, v, rng.uniform(40, 190), rng.uniform(22, 50), 2), road + 6), asphalt - 14, 0.7)
    scene.lay(boxed(s - 486, p - 262, 330, 130, 6), asphalt + 8)
    worn = np.clip(0.82 + scene.noise(6, 0.10) + scene.noise(60, 0.06), 0.3, 1)
    paint = asphalt + (np.array([222, 222, 216]) - asphalt) * worn
    scene.lay(np.maximum(marks(s, p, q, HALF, 196, 1, (-50, 50)), road + 4), paint)
    scene.lay(np.maximum(marks(t, q, p, LANES, 196, -1, (0,)), road + 4), paint)
    scene.lay(np.maximum(np.abs(np.abs(q) - LANES - 2) - 2, 250 - np.abs(p)), paint)  # beyond it cars may park
    scene.lay(np.maximum(np.abs((s - 304) % 52 - 26) - 2, boxed(s - 486, p - 242, 316, 80, 1)), paint)


def traffic(scene: Scene) -> None:
    """Cars that keep to the right of their road, and cars in the bays of a yard."""
    cars = [(at(road, along, across), road + (0 if across > 0 else 180))
            for road, places in DRIVEN.items() for along, across in places]
    cars += [(at(FIRST, 356 + 52 * bay, 244), FIRST + scene.rng.choice([90, -90])) for bay in (0, 1, 3, 4, 5)]
    outlines = [boxed(*scene.axes(place, degrees), 66, 30, 8) for place, degrees in cars]
    scene.shade(cover(np.minimum.reduce(outlines))[..., 0], 13, 1.5, 0.62)
    for n, (place, degrees) in enumerate(cars):
        paint = PAINTS[scene.rng.choice(len(PAINTS), p=[0.2, 0.2, 0.2, 0.12, 0.1, 0.1, 0.04, 0.04])]
        car(scene, place, degrees + scene.rng.normal(0, 1.5), paint, van=n % 11 == 10)


def street() -> Image.Image:
    """A crossing of two roads from a plane: traffic, parked cars, houses, trees, grass."""
    rng, h, w = np.random.default_rng(5), 1094, 1368
    scene = Scene(rng, h, w)
    ground(scene)
    for along, across, *rest in ROOFS:
        roof(scene, at(FIRST, along, across), *rest)
    traffic(scene)
    crowns = [0.9 * r - np.hypot(scene.y - down, scene.x - right) for down, right, r in TREES]
    scene.shade(np.clip(np.maximum.reduce(crowns), 0, 1), 44, 4, 0.55)
    for down, right, r in TREES:
        tree(scene, (down, right), r, np.array([80, 98, 58]) * rng.normal(1, 0.08) + rng.normal(0, 4, 3))
    scene.canvas += 0.10 * (np.array([158, 164, 170]) - scene.canvas)  # haze
    return finish(scene.canvas, 2, 1.3)
