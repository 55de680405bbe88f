"""`bra_route`: off by default, added as it says, kept when a run is resumed, and worth its cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics")
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG

import bra.yolo  # noqa: F401
from bra.cli.main import main
from bra.errors import YoloError
from bra.recorder import recording
from bra.training import routing_loss
from bra.yolo.routing_loss import target_of, weight_of


def batch_of(n: int = 2, side: int = 96) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    boxes = torch.cat([torch.rand(6, 2, generator=draw) * 0.6 + 0.2, torch.rand(6, 2, generator=draw) * 0.3 + 0.1], 1)
    return {"img": torch.rand(n, 3, side, side, generator=draw), "bboxes": boxes, "cls": torch.arange(6.0)[:, None] % 3,
            "batch_idx": torch.arange(6) * n // 6}


def network(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = YOLO(name).model.train()
    model.args = get_cfg(DEFAULT_CFG, arguments)
    return model


def total(loss: Any) -> float:
    return float(loss[0].detach().sum())


@pytest.mark.parametrize("name", ["yolov8n-bra.yaml", "yolov8n-bra-residual.yaml", "yolov8n-bra-c2f.yaml"])
def test_it_is_the_weighted_routing_loss_of_every_row_times_the_pictures(name: str) -> None:
    batch = batch_of()
    model = network(name)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plain = total(model.loss(batch))
    model.load_state_dict(state)
    model.args = get_cfg(DEFAULT_CFG, {"bra_route": 0.3})
    with_it = total(model.loss(batch))
    model.load_state_dict(state)
    with recording() as recorder:
        model.forward(batch["img"])
    assert len(recorder.captures) >= 3
    wanted = float(routing_loss(recorder.captures, target_of(batch)))
    assert with_it - plain == pytest.approx(0.3 * 2 * wanted, rel=1e-3)


def test_gradient_reaches_routers_that_had_none() -> None:
    # Before training the residual row's gate is zero, so that nothing else reaches its queries and keys.
    rows = []
    for weight in (0.0, 0.2):
        model = network("yolov8n-bra-residual.yaml", bra_route=weight)
        model.loss(batch_of())[0].sum().backward()
        rows.append([p.grad for key, p in model.named_parameters() if key.endswith("attn.qkv.qkv.weight")])
    assert len(rows[0]) == 3
    assert all(grad.abs().max() == 0 for grad in rows[0])
    assert all(grad.abs().max() > 0 for grad in rows[1])


def test_what_cannot_be_is_refused_in_words() -> None:
    batch = batch_of()
    with pytest.raises(YoloError, match="no row that routes"):
        network("yolov8n.yaml", bra_route=0.2).loss(batch)
    assert total(network("yolov8n.yaml").loss(batch)) > 0
    model = network("yolov8n-bra-p5.yaml", bra_route=0.2)
    with pytest.raises(YoloError, match="compile=True"):
        model.loss(batch, model(batch["img"]))
    assert total(model.eval().loss(batch)) > 0               # validation is left alone
    with pytest.raises(YoloError, match="needs boxes"):
        target_of({"img": batch["img"], "cls": torch.zeros(2)})
    for wrong in (-0.1, "much", True, float("nan"), float("inf")):
        with pytest.raises(YoloError, match=r"bra_route=.* is not possible: give a number from 0 on"):
            weight_of({"bra_route": wrong})
    assert weight_of(None) == weight_of({}) == 0
    assert weight_of({"bra_route": 1}) == 1


def test_the_command_takes_it_keeps_it_and_resumes_with_it(rectangles: Path, tmp_path: Path) -> None:
    asked = ["train", "model=yolov8n-bra-p5.yaml", f"data={rectangles}", "imgsz=96", "epochs=2", "batch=4", "workers=0",
             "device=cpu", "plots=False", f"project={tmp_path}", "name=run", "bra_route=0.2", "save_period=1"]
    assert main(asked) == 0
    weights = tmp_path / "run" / "weights"
    cut_off = torch.load(weights / "epoch0.pt", map_location="cpu", weights_only=False)
    assert cut_off["train_args"]["bra_route"] == 0.2
    model, weighed = YOLO(weights / "epoch0.pt"), []
    model.add_callback("on_train_batch_end", lambda trainer: weighed.append(weight_of(trainer.model.args)))
    model.train(resume=True)
    assert weighed == [0.2, 0.2]                             # the second epoch's two batches
    assert model.val(data=str(rectangles), imgsz=96, device="cpu", workers=0, plots=False).box.map >= 0


def test_from_python_it_teaches_the_router(rectangles: Path, small: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 1.0):
        model = YOLO("yolov8n-bra-residual.yaml")
        model.train(data=str(rectangles), epochs=10, project=str(tmp_path), name=f"run{weight}", bra_route=weight,
                    optimizer="AdamW", lr0=5e-3, warmup_epochs=0, mosaic=0.0, **small)
        batch = next(iter(model.trainer.train_loader))
        batch["img"] = batch["img"].float() / 255
        with torch.no_grad(), recording() as recorder:
            model.trainer.model.eval()(batch["img"])
        found[weight] = float(routing_loss(recorder.captures, target_of(batch)))
    assert found[1.0] < found[0.0] - 0.1, found


@pytest.mark.parametrize("name", ["yolov8n-bra.yaml", "yolov8n-bra-residual.yaml"])
def test_a_step_costs_at_most_1_15_of_what_it_did(name: str) -> None:
    batch = batch_of(4, 224)
    models = {weight: network(name, bra_route=weight) for weight in (0.0, 0.2)}
    seconds: dict[float, list[float]] = {0.0: [], 0.2: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)        # of two, one that waits for the other counts as busy
    try:
        for _ in range(10):
            for weight, model in models.items():
                began = time.process_time()
                model.loss(batch)[0].sum().backward()
                seconds[weight].append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds[0.2][1:]) <= 1.15 * min(seconds[0.0][1:])
