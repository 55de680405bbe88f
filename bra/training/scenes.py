"""Three segmentation models on drawn scenes, alike but for what taught their routers; the lesson compares them.

A scene is drawn from a seed: sky, hill and water, and on them houses, trees and stones, whose colours and textures
vary. Nothing of it is a photograph, so the weights carry nobody's data, and every pixel's class is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bra.messages import message
from bra.models.adapters import OpenClassifier
from bra.models.biformer import HEAD_DIM, BiFormer, layer_name, normalized
from bra.models.card import WEIGHTS
from bra.recorder import recording
from bra.spec import BRASpec
from bra.training.routing import LabelTarget, routing_loss

Router = Literal["default", "straight-through", "taught"]
"""What teaches the router: nothing, as in the tutorial; the task, through diff_routing=True; or the routing loss."""
ROUTERS: Final[tuple[Router, ...]] = get_args(Router)
CLASSES: Final = ("sky", "hill", "water", "house", "tree", "stone")
COLOURS: Final = np.array([[.62, .76, .92], [.45, .58, .30], [.24, .42, .60], [.72, .42, .34], [.18, .36, .20],
                           [.55, .53, .50]])
"""Mean colour of each class, RGB in 0 to 1."""
SIDE: Final = 128
"""Pixels a side that the models read; their maps have 32 and 16 tokens a side, which 8 windows divide."""
STRIDE: Final = 8
"""Pixels per token of the answer."""
DIMS: Final = (32, 64)
DEPTH: Final = (1, 2)
N_WIN, TOPK = 8, 4


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A drawn scene.

    Attributes:
        rgb: (side, side, 3) uint8.
        labels: (side, side) int64, numbers into CLASSES.
    """

    rgb: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each of the three is trained.

    Attributes:
        steps: of AdamW.
        batch: scenes per step, each seen once.
        rate: highest learning rate; it rises over a tenth of the steps, then falls to 0 along a cosine.
        routing: weight of the routing loss, for the taught one.
        seed: of weights and scenes.
    """

    steps: int = 320
    batch: int = 8
    rate: float = 2e-3
    routing: float = 0.2
    seed: int = 0


def draw_scene(seed: int, side: int = SIDE) -> Scene:
    """The scene of a seed, the same at every size but for its grain."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*2 * [(np.arange(side) + 0.5) / side], indexing="ij")
    horizon, shore = rng.uniform(0.2, 0.4), rng.uniform(0.62, 0.85)
    waves = [rng.uniform(-0.06, 0.06, 3) for _ in range(2)]
    phase = rng.uniform(0, 2 * np.pi, 3)

    def edge(at: float, wave: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(at + sum(w * np.sin((n + 1) * 2.5 * x + p)
                                   for n, (w, p) in enumerate(zip(wave, phase, strict=True))))

    labels = np.where(y < edge(horizon, waves[0]), 0, np.where(y < edge(shore, waves[1]), 1, 2)).astype(np.int64)
    for _ in range(int(rng.integers(6, 11))):
        kind, cx, cy, size = int(rng.integers(3, 6)), rng.uniform(0, 1), rng.uniform(0.3, 0.95), rng.uniform(0.06, 0.13)
        dx, dy = (x - cx) / size, (y - cy) / size
        inside = {3: (np.abs(dx) < 0.9) & (np.abs(dy) < 0.9), 4: (dy < 0.9) & (np.abs(dx) < (dy + 1.1) * 0.55),
                  5: dx**2 + (dy / 0.75) ** 2 < 0.7}[kind]
        labels[inside] = kind
    colours = COLOURS + rng.normal(0, 0.07, COLOURS.shape) + rng.normal(0, 0.05, (1, 3))
    stripes = 0.05 * np.sin(2 * np.pi * (rng.uniform(8, 20, 6)[labels] * (x + y * rng.uniform(-1, 1, 6)[labels])))
    grain = rng.normal(0, 0.04, (side, side))
    rgb = colours[labels] + (stripes + grain)[..., None] + 0.12 * (0.5 - y)[..., None]
    return Scene((255 * rgb.clip(0, 1)).round().astype(np.uint8), labels)


def scene_net(router: Router) -> BiFormer:
    """Two stages down to stride 8 whose three layers route to 4 of 8×8 windows; 124,166 parameters, random weights."""
    differentiable = router == "straight-through"
    specs = {layer_name(stage, at, False): BRASpec(dim, n_win=N_WIN, num_heads=dim // HEAD_DIM, topk=TOPK,
                                                   side_dwconv=5, diff_routing=differentiable)
             for stage, (dim, blocks) in enumerate(zip(DIMS, DEPTH, strict=True)) for at in range(blocks)}
    return BiFormer(DEPTH, DIMS, n_win=N_WIN, topks=(TOPK, TOPK), num_classes=len(CLASSES), specs=specs)


def classes_of(model: BiFormer, x: Tensor) -> Tensor:
    """(b, 3, H, W) normalised RGB -> (b, classes, H / 8, W / 8) logits of every token."""
    logits: Tensor = model.head(model.forward_features(x).permute(0, 2, 3, 1))
    return logits.permute(0, 3, 1, 2)


def train_scenes(router: Router, recipe: Recipe | None = None,
                 progress: Callable[[str], None] = print) -> tuple[BiFormer, float]:
    """(model in eval mode, accuracy per token on 64 scenes that it did not learn from); the same weights at the start
    and the same scenes whatever teaches the router."""
    recipe = recipe or Recipe()
    torch.manual_seed(recipe.seed)
    model = scene_net(router)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    for step in range(recipe.steps):
        first = 1_000_000 * (recipe.seed + 1) + step * recipe.batch
        x, labels = _batch(range(first, first + recipe.batch))
        with recording(gradient=True) as recorder:
            logits = classes_of(model, x)
        loss = F.cross_entropy(logits, _at_tokens(labels))
        if router == "taught":
            loss = loss + recipe.routing * routing_loss(recorder.captures, LabelTarget(labels))
        optimizer.zero_grad()
        loss.backward()     # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            progress(f"{router}: step {step + 1} of {recipe.steps}, loss {loss.item():.3f}")
    model.eval()
    return model, accuracy(model)


@torch.no_grad()
def accuracy(model: BiFormer, scenes: int = 64) -> float:
    """Share of tokens whose class is right, on scenes from seed 0 on, which no training draws."""
    x, labels = _batch(range(scenes))
    return float((classes_of(model, x).argmax(1) == _at_tokens(labels)).float().mean())


def ship_scenes(folder: Path = WEIGHTS, recipe: Recipe | None = None, progress: Callable[[str], None] = print) -> None:
    """Train all three and write their weights in half precision."""
    for router in ROUTERS:
        model, right = train_scenes(router, recipe, progress)
        progress(f"{router}: {right:.1%} of the tokens right")
        half: dict[str, Any] = {name: (t.half() if t.is_floating_point() else t).contiguous()
                                for name, t in model.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"scenes-{router}.safetensors").write_bytes(safetensors.torch.save(half))


def open_scene_net(router: Router, folder: Path = WEIGHTS) -> OpenClassifier:
    """One of the three, as it was trained."""
    model = scene_net(router)
    model.load_state_dict(safetensors.torch.load_file(folder / f"scenes-{router}.safetensors"))
    return OpenClassifier(model.eval(), message("Drawn scenes"), message("trained on drawn scenes"))


def _batch(seeds: range) -> tuple[Tensor, Tensor]:
    """((b, 3, SIDE, SIDE) normalised RGB, (b, SIDE, SIDE) labels)."""
    scenes = [draw_scene(seed) for seed in seeds]
    rgb = torch.from_numpy(np.stack([scene.rgb for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    return normalized(rgb), torch.from_numpy(np.stack([scene.labels for scene in scenes]))


def _at_tokens(labels: Tensor) -> Tensor:
    """Labels at the centre of every token of the answer."""
    return labels[:, STRIDE // 2::STRIDE, STRIDE // 2::STRIDE]
