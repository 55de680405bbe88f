"""`bra.watch`: what it writes is what the model did, what it costs a training is nothing, and nothing ends one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bra
from bra.errors import BRAError, CheckpointError
from bra.metrics import dense, routing
from bra.metrics.overlap import semantic_overlap
from bra.metrics.query_dependence import query_dependence
from bra.metrics.watched import WatchedNumbers, collapsed_since, watched_numbers
from bra.models.biformer import biformer_nano
from bra.readers.timeline import MAGIC, Timeline, framed, frames, is_timeline, read_timeline, recording_of


def network(n_win: int = 3, **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.BatchNorm2d(16), nn.Dropout(0.3),
                         bra.BiLevelRoutingAttention(16, n_win=n_win, num_heads=2, **options))


X = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))


def timeline(path: Path) -> Timeline:
    return read_timeline(path.read_bytes())


def test_what_is_read_is_what_the_layer_did(tmp_path: Path) -> None:
    model = network()
    w = bra.watch(model, X, tmp_path)
    numbers = w(7)
    trace = bra.trace(model.eval(), X).layers["3"]
    read = timeline(w.path)
    layer = recording_of(read, w.path.read_bytes(), 0).trace.layers["3"]
    assert read.numbers == (7,)
    assert read.layers == ("3",)
    assert read.model == "Sequential"
    for name in ("r_idx", "r_weight", "affinity"):
        assert torch.equal(getattr(layer, name), getattr(trace, name))
    assert [layer.grid.box_of_window(n) for n in range(9)] == [trace.grid.box_of_window(n) for n in range(9)]
    assert not layer.attention_known
    assert read.epochs[0].layers == numbers
    found = numbers["3"]
    # 12×16 tokens in 9 windows of 4×6 have 24 tokens each, and 7 of each are asked.
    assert found.recall == pytest.approx(float(dense.recall(trace, dense.dense_attention(trace)).mean()), abs=0.01)
    assert found.shared_choices == routing.shared_choices(trace)
    assert found.query_dependence == query_dependence(trace)
    assert found.entropy == pytest.approx(routing.routing_entropy(trace).mean())
    assert found.in_degree_max == routing.in_degree(trace).max()
    assert (found.n_win, found.topk, found.chance) == (3, 4, 4 / 9)
    assert found.overlap is None


def test_recall_over_all_tokens_is_that_of_full_attention() -> None:
    for options in ({}, {"mask_padding": True}, {"soft_routing": True}, {"kv_downsample_mode": "avgpool",
                                                                         "kv_downsample_ratio": 2}):
        trace = bra.trace(network(5, **options).eval(), X).layers["3"]
        full = dense.dense_attention(trace).mass
        np.testing.assert_allclose(dense.sampled_mass(trace, 10**6), full, atol=1e-6)
        some = dense.sampled_mass(trace, 60)
        assert not np.allclose(some, full, atol=1e-9)
        np.testing.assert_allclose(some[:, routing.on_map(trace)].sum(-1), 1, atol=1e-6)


def test_one_token_of_each_window_is_its_first() -> None:
    trace = bra.trace(network().eval(), X).layers["3"]
    q, k = trace.q[0, :, :, 0], trace.k[0].flatten(1, 2)                   # (m, p2, ·), (m, N, ·)
    by_hand = (q @ k.mT * trace.spec.scale).softmax(-1).view(2, 9, 9, 24).sum(-1)
    np.testing.assert_allclose(dense.sampled_mass(trace, 1), by_hand.numpy(), atol=1e-6)


def test_label_overlap_is_that_of_the_boxes_in_the_pixels_that_the_network_reads(tmp_path: Path) -> None:
    picture = (np.random.default_rng(0).random((96, 128, 3)) * 255).astype(np.uint8)
    model = network()
    w = bra.watch(model, picture, tmp_path, size=64, boxes=[[2, 0, 0, 128, 48]])
    assert w.given.x.shape == (1, 3, 64, 64)      # sides are multiples of 32: 48 becomes 64
    found = w(0)["3"]
    trace = bra.trace(model.eval(), w.given.x).layers["3"]
    assert found.overlap == semantic_overlap(trace, [[2.0, 0, 0, 64, 32]]).to_dict()["routed"]
    assert None not in (found.overlap_nearest, found.overlap_chance)


def test_training_goes_on_as_if_nobody_watched(tmp_path: Path) -> None:
    ends = []
    for watched in (False, True):
        model = network().train()
        model[1].eval()                     # as people freeze it
        w = bra.watch(model, X, tmp_path) if watched else None
        learn = torch.optim.SGD(model.parameters(), 0.1)
        torch.manual_seed(3)
        for epoch in range(3):
            learn.zero_grad()
            model(X).square().mean().backward()
            learn.step()
            if w is not None:
                assert w(epoch)
        assert [module.training for module in model] == [True, False, True, True]
        assert not any(module._forward_hooks for module in model.modules())
        ends.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert timeline(tmp_path / "routing.bra").numbers == (0, 1, 2)


def test_epochs_between_are_left_out(tmp_path: Path) -> None:
    w = bra.watch(network(), X, tmp_path, every=3)
    assert [bool(w(epoch)) for epoch in range(7)] == [True, False, False, True, False, False, True]
    assert timeline(w.path).numbers == (0, 3, 6)
    assert [timeline(w.path).at(epoch) for epoch in (None, 0, 2, 3, 5, 99, -1)] == [2, 0, 0, 1, 1, 2, 0]


def test_a_killed_run_goes_on_appending(tmp_path: Path) -> None:
    w = bra.watch(network(), X, tmp_path)
    for epoch in range(4):
        w(epoch)
    whole = w.path.read_bytes()
    w.path.write_bytes(whole[:-7])                   # killed while it wrote the last
    assert timeline(w.path).numbers == (0, 1, 2)
    again = bra.watch(network(), X, tmp_path)        # another process, from its checkpoint after epoch 1
    again(2)
    again(3)
    again(4)
    found = timeline(w.path)
    assert found.numbers == (0, 1, 2, 3, 4)
    assert w.path.read_bytes()[:len(whole) // 2] == whole[:len(whole) // 2]     # appended to, not written anew
    again(1)
    assert timeline(w.path).numbers == (0, 1)        # gone back: what came after it then is of another life


def test_a_file_of_anything_else_is_left_alone_and_said_once(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "routing.bra"
    path.write_bytes(b"somebody's notes")
    w = bra.watch(network(), X, tmp_path)
    with caplog.at_level(logging.WARNING, "bra"):
        assert [w(epoch) for epoch in range(3)] == [{}, {}, {}]
    assert path.read_bytes() == b"somebody's notes"
    assert [record.message for record in caplog.records] == [
        f"routing is not watched: {path} is of no watched training, and is left as it is: give another folder."]
    path.unlink()
    assert w(3)
    other = bra.watch(network(), 1 - X, tmp_path)
    with caplog.at_level(logging.WARNING, "bra"):
        assert not other(4)
    assert "of another model, another picture or another size" in caplog.records[-1].message
    assert timeline(path).numbers == (3,)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = bra.BiLevelRoutingAttention(16, n_win=2, num_heads=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise MemoryError("no room")


@pytest.mark.parametrize(("model", "words"), [
    (Broken(), "MemoryError: no room"),
    (nn.Sequential(nn.Conv2d(3, 4, 1)), "ran without a BiLevelRoutingAttention layer")])
def test_nothing_that_goes_wrong_ends_a_training(model: nn.Module, words: str, tmp_path: Path,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    w = bra.watch(model, X, tmp_path)
    with caplog.at_level(logging.WARNING, "bra"):
        assert [w(epoch) for epoch in range(3)] == [{}, {}, {}]
    assert len(caplog.records) == 1
    assert words in caplog.records[0].message
    assert not w.path.exists()


def test_what_cannot_be_is_refused_before_the_training(tmp_path: Path) -> None:
    for every in (0, -1, True, 1.5, "2"):
        with pytest.raises(BRAError, match="give a whole number from 1 on"):
            bra.watch(network(), X, tmp_path, every=every)
    with pytest.raises(BRAError, match="is no picture"):
        bra.watch(network(), 5, tmp_path)
    with pytest.raises(BRAError, match="cannot be watched on"):
        bra.watch(network(), X[0], tmp_path)
    with pytest.raises(BRAError, match="boxes of shape"):
        bra.watch(network(), X, tmp_path, boxes=[[1, 2, 3]])
    with pytest.raises(BRAError, match="is no model"):
        bra.watch("model", X, tmp_path)


def test_layers_of_full_attention_are_left_out_and_wrappers_taken_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = biformer_nano(3)
    names = [name for name, layer in bra.trace(model.eval(), X).layers.items() if layer.routed]
    assert [*bra.watch(nn.DataParallel(model), X, tmp_path)(0)] == names
    assert names


def test_a_file_that_is_full_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    w = bra.watch(network(), X, tmp_path)
    w(0)
    monkeypatch.setattr("bra.training.watching.MAX_BYTES", w.path.stat().st_size + 10)
    with caplog.at_level(logging.WARNING, "bra"):
        w(1)
    assert "is as large as it may be" in caplog.records[-1].message
    assert timeline(w.path).numbers == (0,)


def test_a_masked_layer_is_judged_alike_when_it_is_read(tmp_path: Path) -> None:
    w = bra.watch(network(5, mask_padding=True), X, tmp_path)
    written = w(0)["3"]
    read = watched_numbers(recording_of(timeline(w.path), w.path.read_bytes(), 0).trace.layers["3"])
    for name in ("chance", "query_dependence", "shared_choices", "entropy", "in_degree_max", "never_chosen"):
        assert getattr(read, name) == pytest.approx(getattr(written, name))


def test_since_when_a_layer_is_collapsed() -> None:
    assert collapsed_since((1, 2, 3, 7, 8), (False, True, False, True, True)) == 7
    assert collapsed_since((1, 2), (True, True)) == 1
    assert collapsed_since((1, 2), (True, False)) is None
    assert collapsed_since((), ()) is None
    # Even routing shares 4/49; halfway to all is 0.54.
    made = {"n_win": 7, "topk": 4, "recall": None, "recall_nearest": None, "chance": 4 / 49, "entropy": 1.0,
            "in_degree_max": 49, "never_chosen": 0.9}
    assert WatchedNumbers(query_dependence=0.1, shared_choices=0.6, **made).collapsed
    assert WatchedNumbers(query_dependence=None, shared_choices=0.6, **made).collapsed
    assert not WatchedNumbers(query_dependence=0.4, shared_choices=0.6, **made).collapsed
    assert not WatchedNumbers(query_dependence=0.1, shared_choices=0.5, **made).collapsed


def test_a_frame_by_hand() -> None:
    frame = framed(b"EPOC", {"a": 1}, b"xyz")
    assert frame[:4] + frame[4:12] == b"EPOC" + b"\x07\0\0\0" + b"\x03\0\0\0"
    assert frame[16:] == b'{"a":1}xyz'
    found = [*frames(MAGIC + frame + frame)]
    assert [(one.start, one.middle, one.end) for one in found] == [(24, 31, 34), (50, 57, 60)]
    assert [*frames(MAGIC + frame[:-1] + b"y")] == []        # another checksum
    assert is_timeline(MAGIC)
    assert not is_timeline(b"BRAWATC")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    w = bra.watch(network(), X, tmp_path)
    w(0)
    data = w.path.read_bytes()
    first, second = frames(data)
    with pytest.raises(CheckpointError, match="no watched training"):
        read_timeline(data[1:])
    with pytest.raises(CheckpointError, match="no whole epoch"):
        read_timeline(data[:second.start])
    with pytest.raises(CheckpointError, match="its beginning"):
        read_timeline(MAGIC + data[first.end:])
    with pytest.raises(CheckpointError, match="version 9"):
        read_timeline(MAGIC + framed(b"PICT", {"version": 9}, b""))
    with pytest.raises(CheckpointError, match="two pictures"):
        read_timeline(data + data[len(MAGIC):first.end])
    with pytest.raises(CheckpointError, match="its picture"):
        read_timeline(MAGIC + framed(b"PICT", {"version": 1}, b"no picture") + data[first.end:])
    for head in ({"epoch": -1, "layers": {}}, {"epoch": 1, "layers": []}, {"epoch": True, "layers": {}},
                 {"epoch": 1, "layers": {"x": {}}}, {"epoch": 1, "layers": {"x": {"n_win": 3, "topk": 10}}}):
        with pytest.raises(CheckpointError, match="damaged"):
            read_timeline(data + framed(b"EPOC", head, b""))
