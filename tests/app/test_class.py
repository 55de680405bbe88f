"""A small class at once on the real server: everybody gets the numbers of their own image, and nothing fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import visitors


def test_six_explorers_and_two_comparers_for_ten_seconds(tmp_path: Path) -> None:
    seen, busy, taken = visitors.class_at_once(6, 2, 10, tmp_path / "log.txt")
    assert [error for one in (*seen, *busy) for error in one.errors] == []
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert all(one.checked >= visitors.LEAST for one in seen), "each saw an image of its own"
    assert all(one.heavy for one in busy)
    assert max(taken) < 3_000


def test_the_check_sees_another_visitors_image() -> None:
    one, other = (visitors.Explorer(number, "") for number in (1, 2))

    class LayerRequest:
        def component(self, name: str) -> visitors.Message:
            layer = other.truth[other.setting][other.layer]
            arrays = {"affinity": layer.affinity[0].numpy(), "r_idx": layer.r_idx[0].numpy(),
                      "in_degree": np.bincount(layer.r_idx[0].numpy().ravel(), minlength=49)}
            return {"photo": other.photo.digest, "name": "image1.png"}, b"", arrays

    one.check(LayerRequest())      # type: ignore[arg-type]
    assert len(one.seen.errors) == 2
    other.check(LayerRequest())    # type: ignore[arg-type]
    assert other.seen.errors == ["visitor 2 sees image1.png"]
