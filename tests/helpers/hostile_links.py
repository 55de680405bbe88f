"""Links that no page writes: what a stranger, a mangling mail program or a scanner puts behind the question mark."""

from __future__ import annotations

HUGE = "9" * 5_000
EVERYWHERE: tuple[dict[str, str], ...] = (
    {"x": "1"}, {"": ""}, {"lang": "xx"}, {"lang": "zh\0"}, {"lang": "zh", "model": "similarity"}, {"step": HUGE},
    {"step": "-1"}, {"step": "³"}, {"card": "../../etc/passwd"}, {"card": "\0"}, {"tab": "<script>"},
    {"model": "cells'; --"}, {"model": "CELLS"}, {"model": "own"}, {"model": "yolo", "variant": "biformer_tiny"},
    {"model": "biformer", "variant": "yolov8x-bra"}, {"model": "flowers", "layer": "model.16.attn"},
    {"model": "similarity", "layer": "stages.9.9.attn"}, {"model": "similarity", "layer": "layers.0#9"},
    {"model": "similarity", "n_win": HUGE, "topk": HUGE}, {"model": "similarity", "n_win": "٣", "topk": "２"},
    {"model": "similarity", "n_win": "²"}, {"model": "similarity", "n_win": "-7", "topk": "0"},
    {"model": "similarity", "n_win": "16", "topk": "257"}, {"model": "similarity", "side": "0", "stride": "-4"},
    {"model": "similarity", "stride": "32", "side": "224", "n_win": "16", "topk": "256"},
    {"model": "similarity", "stride": "4", "side": "640"}, {"model": "similarity", "num_heads": "3"},
    {"model": "similarity", "kv_downsample_mode": "conv", "kv_downsample_ratio": "4", "stride": "32", "n_win": "16"},
    {"model": "untrained", "kv_downsample_mode": "eval('1')", "mask_padding": "true"},
    {"model": "cells", "untrained": "1", "changed": "1", "n_win": "2", "topk": "4"},
    {"model": "cells", "changed": "1", "n_win": "2", "topk": "256"}, {"picture": "upload"}, {"picture": "\0" * 40},
    {"picture": "animal.jpg"}, {"picture": "x" * 100_000}, {"picture": "**bold** $x$ :red[y] <b>"},
    {"a": "0.0", "b": "20000.20000"}, {"a": "-1.-1", "b": "99999.99999"}, {"a": "nan.inf", "b": "1.1.1"},
    {"a": "1.²", "b": "."}, {"whole": "yes", "show": "reverse.reverse.\0"}, {"show": ".".join(["numbers"] * 5_000)},
    {"model": "flowers", "elsewhere": "swap", "replaced": "256", "a": "0.0", "b": "20000.20000"},
    {"elsewhere": "\0", "replaced": HUGE},
    {"layer": "\u202e\u2066"}, {"layer": "a" * 81}, {"layer": "__class__.__bases__"}, {"model": ""},
    dict.fromkeys(("picture", "model", "layer", "n_win", "topk", "a", "b", "show", "whole"), "\U000e0001"))
"""What every page must stand, since all share the view."""
COMPARE: tuple[dict[str, str], ...] = (
    {"tab": "versus", "b_model": "own"}, {"tab": "versus", "b_model": "biformer", "b_variant": "yolov8n-bra"},
    {"tab": "versus", "model": "flowers", "b_model": "cells", "b_layer": "stages.0.0.attn"},
    {"tab": "versus", "b_b_model": "cells"}, {"tab": "versus", "b_": "", "b_n_win": HUGE, "b_topk": "-1"},
    {"tab": "versus", "b_side": "1", "b_stride": "64"}, {"tab": "grid", "rows": ".".join(["7"] * 5_000)},
    {"rows": "2.3.4.5.6.7.8.10.12.14.16", "columns": "1.2.3.4.6.8.12.16.24.32"}, {"rows": "²", "columns": "٣"},
    {"rows": "-4", "columns": "1e3"}, {"rows": "16", "columns": "32", "equal": "1", "cost": "seconds\0"},
    {"cost": "recall"}, {"equal": "\0"}, {"tab": "sweeps"}, {"tab": "probes", "model": "similarity", "side": "224"})
COST: tuple[dict[str, str], ...] = (
    {"cost_height": "0", "cost_width": HUGE}, {"cost_height": "33", "cost_width": "1568"},
    {"cost_height": "32", "cost_width": "1536"}, {"cost_height": "32", "cost_width": "32", "model": "flowers"},
    {"cost_n_win": "16", "cost_topk": "256", "cost_pool": "4"}, {"cost_n_win": "2", "cost_topk": "256"},
    {"cost_narrow": "3"}, {"cost_narrow": "4", "cost_projections": "none"}, {"cost_projections": "qkvo\0"},
    {"cost_row": "199", "cost_after": "199", "cost_tried": "64"}, {"cost_row": "-1", "cost_tried": "²"},
    {"cost_measure": "ms"}, {"cost_measure": "__dict__"}, {"cost_row": "3", "model": "similarity"},
    {"cost_after": "٣", "model": "cells"}, {"cost_tried": "40", "model": "biformer"})
CARDS: tuple[dict[str, str], ...] = (
    {"card": ""}, {"card": "vehicles\0"},
    {"card": "x" * 100_000}, {"card": "Cells"}, {"card": "**x** <b>"}, {"card": "0"})
LEARN: tuple[dict[str, str], ...] = (
    {"part": "nowhere", "step": "3"}, {"step": "0"}, {"step": "99"}, {"step": "-1", "present": "1"}, {"scene": "\0"},
    {"part": "chapters", "step": "5", "present": "1", "scene": "see", "learn_n_win": "16", "learn_topk": "256"},
    {"part": "chapters", "step": "2", "learn_n_win": "²", "learn_topk": HUGE, "learn_factor": "0"},
    {"part": "chapters", "step": "4", "learn_pixels": "1", "learn_cut": "3", "learn_layer": "-1"},
    {"part": "example", "step": "6", "w_token": "99", "w_topk": "0", "w_x": "_".join(["0.0.9"] * 5_000)},
    {"part": "example", "step": "3", "w_x": "0.0.99999_1.1.-99999_0.0", "w_place": "-1.20000"},
    {"part": "photo", "step": "7", "w_n_win": "16", "w_k": "256", "w_channel": "-9", "w_lepe": "\0"},
    {"part": "predict", "step": "1", "learn_who": "<b>", "learn_weights": "likeness"})
