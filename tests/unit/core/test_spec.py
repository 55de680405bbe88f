"""Settings: each refusal names the value, what is allowed and the cure."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from chinese import in_chinese

from bra import BRASpec
from bra.errors import BRAError, SpecError

REFUSALS: list[tuple[dict[str, Any], str, str, str]] = [
    # settings, value as named, range, cure
    ({"dim": 0}, "dim=0", "1 to 65,536 channels", "channels of the map"),
    ({"dim": 65_537}, "dim=65537", "1 to 65,536 channels", "channels of the map"),
    ({"dim": 64.0}, "dim=64.0", "whole number", "dim=4, without"),
    ({"dim": True}, "dim=True", "whole number", "dim=4, without"),
    ({"qk_dim": 0}, "qk_dim=0", "1 to 65,536 channels, or None", "None for qk_dim = dim"),
    ({"qk_dim": 70_000}, "qk_dim=70000", "1 to 65,536", "None"),
    ({"qk_dim": "64"}, "qk_dim='64'", "whole number", "without quotes"),
    ({"n_win": 0}, "n_win=0", "1 to 64 windows per side", "write [] or [7]"),
    ({"n_win": 256}, "n_win=256", "1 to 64 windows per side", "write [] or [7]"),
    ({"n_win": None}, "n_win=None", "whole number", "n_win=4"),
    ({"topk": 0}, "topk=0", "1 to n_win² = 49", "lower topk, or raise n_win above 7"),
    ({"topk": 50}, "topk=50", "1 to n_win² = 49", "lower topk, or raise n_win above 7"),
    ({"n_win": 1}, "topk=4", "1 to n_win² = 1", "lower topk, or raise n_win above 1"),
    ({"num_heads": 7}, "num_heads=7", "divide dim=64, for example 1, 2, 4, 8, 16, 32", "write [7, 8]"),
    ({"num_heads": 0}, "num_heads=0", "divide dim=64", "write [7, 8]"),
    ({"num_heads": -8}, "num_heads=-8", "divide dim=64", "write [7, 8]"),
    ({"num_heads": 8, "qk_dim": 12}, "num_heads=8", "divide qk_dim=12, for example 1, 2, 3, 4, 6, 12", "write [7, 8]"),
    ({"qk_scale": 0}, "qk_scale=0", "above 0", "None for qk_dim**-0.5"),
    ({"qk_scale": -1.0}, "qk_scale=-1.0", "above 0", "None"),
    ({"qk_scale": math.nan}, "qk_scale=nan", "finite", "None"),
    ({"qk_scale": math.inf}, "qk_scale=inf", "finite", "None"),
    ({"qk_scale": True}, "qk_scale=True", "finite number", "None"),
    ({"kv_per_win": 0}, "kv_per_win=0", "1 or more", "kv_downsample_mode='identity'"),
    ({"kv_downsample_ratio": 0}, "kv_downsample_ratio=0", "1 or more", "identity"),
    ({"kv_downsample_kernel": -3}, "kv_downsample_kernel=-3", "1 or more", "identity"),
    ({"kv_downsample_mode": "mean"}, "kv_downsample_mode='mean'", "one of identity, maxpool, avgpool", "choose"),
    ({"param_attention": "qkvx"}, "param_attention='qkvx'", "one of qkvo, qkv, none", "choose"),
    ({"side_dwconv": 4}, "side_dwconv=4", "odd kernel side up to 63, or 0", "use 3 or 5"),
    ({"side_dwconv": -1}, "side_dwconv=-1", "odd", "use 3 or 5"),
    ({"side_dwconv": 65}, "side_dwconv=65", "up to 63", "use 3 or 5"),
    ({"auto_pad": 1}, "auto_pad=1", "True or False", "name the ones you mean"),
    ({"mask_padding": None}, "mask_padding=None", "True or False", "name the ones you mean"),
    ({"soft_routing": "yes"}, "soft_routing='yes'", "True or False", "name the ones you mean"),
    ({"param_routing": True}, "param_routing=True", "diff_routing=True", "set diff_routing=True too"),
    ({"param_attention": "none", "qk_dim": 32}, "qk_dim=32", "must be dim=64", "leave qk_dim out"),
]


@pytest.mark.parametrize(("settings", "value", "allowed", "cure"), REFUSALS,
                            ids=[f"{'-'.join(map(str, s))}:{v}" for s, v, *_ in REFUSALS])
def test_refuses_with_value_range_and_cure(settings: dict[str, Any], value: str, allowed: str, cure: str) -> None:
    with pytest.raises(SpecError) as refused:
        BRASpec(**{"dim": 64, **settings})
    in_chinese(refused.value.args[0])
    message = str(refused.value)
    assert message.startswith(f"{value} is not possible: ")
    assert allowed in message
    assert cure in message.partition("; ")[2]
    assert message.count("\n") == 0
    assert isinstance(refused.value, BRAError)


def test_every_setting_that_can_be_wrong_is_refused_above() -> None:
    refused = {value.partition("=")[0] for _, value, _, _ in REFUSALS}
    assert {f.name for f in dataclasses.fields(BRASpec)} - refused == {"diff_routing"}
    with pytest.raises(SpecError, match="diff_routing=0"):
        BRASpec(64, diff_routing=0)


@pytest.mark.parametrize("settings", [
    {"dim": 1, "num_heads": 1}, {"dim": 65_536}, {"n_win": 64}, {"n_win": 1, "topk": 1}, {"topk": 49},
    {"side_dwconv": 0}, {"side_dwconv": 63}, {"qk_scale": 2}, {"kv_per_win": 1}])
def test_accepts_the_ends_of_each_range(settings: dict[str, Any]) -> None:
    assert BRASpec(**{"dim": 64, **settings}).to_dict().items() >= settings.items()


def test_equal_settings_are_equal_and_hash_alike() -> None:
    implied, written = BRASpec(64), BRASpec(64, qk_dim=64, qk_scale=0.125)
    assert implied == written
    assert len({implied, written, BRASpec(64, topk=5)}) == 2


def test_none_becomes_the_number_it_stands_for() -> None:
    spec = BRASpec(64, qk_dim=16)
    assert spec.qk_scale == spec.scale == 0.25
    assert BRASpec(64).qk_dim == BRASpec(64).qk_channels == 64
    assert (BRASpec(64).kernel, BRASpec(64, kv_downsample_kernel=3).kernel) == (4, 3)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BRASpec(64).topk = 5  # type: ignore[misc]


def test_to_dict_leads_back() -> None:
    spec = BRASpec(96, 5, 3, 48, topk=9, diff_routing=True, param_routing=True, mask_padding=True)
    assert BRASpec(**spec.to_dict()) == spec
    assert list(spec.to_dict()) == [f.name for f in dataclasses.fields(BRASpec)]


def test_a_copy_with_one_change_is_the_spec_made_so() -> None:
    assert dataclasses.replace(BRASpec(64), topk=2) == BRASpec(64, topk=2)


@pytest.mark.parametrize(("soft", "diff", "expected"), [
    (False, False, "none"), (False, True, "hard"), (True, False, "soft"), (True, True, "soft")])
def test_what_the_routing_weights_multiply(soft: bool, diff: bool, expected: str) -> None:
    assert BRASpec(64, soft_routing=soft, diff_routing=diff).mul_weight == expected
