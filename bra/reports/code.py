"""A view as a command, and as the shortest Python program that makes the same numbers.

Every function returns text; nothing is run. Names of files and layers are quoted, so that pasting is safe.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from bra.experiments.compare import CostName
from bra.models.catalog import CATALOG, ModelSettings

PATCHES_ONLY: Final = ("n_win", "topk", "num_heads", "stride", "kv_downsample_mode", "kv_downsample_ratio",
                       "mask_padding")
"""Settings that only a patch model takes from here."""
FLAGS: Final = {"n_win": "--model-n-win", "topk": "--model-topk", "num_heads": "--heads", "stride": "--stride",
                "kv_downsample_mode": "--pool", "kv_downsample_ratio": "--pool-ratio",
                "mask_padding": "--mask-padding"}


# as a command ---------------------------------------------------------------------------------------------


def sweep_command(settings: ModelSettings, n_wins: Sequence[int], topks: Sequence[int], equal_to: int | None = None,
                  layers: Sequence[str] = (), file: str = "", folder: str = "FOLDER", out: str = "sweep",
                  jobs: int = 2) -> str:
    """`bra sweep` of this model and these settings.

    Args:
        settings: the model, its weights, and the side at which it reads pictures.
        n_wins: windows per side.
        topks: routed windows.
        equal_to: the n_win for which the topks are meant, where coverage is kept equal.
        layers: names of layers; none for all that are routed.
        file: name of a model of one's own.
        folder: of the pictures.
        out: folder of the results.
        jobs: tasks at once.
    """
    chosen = ["--layers", *layers] if layers else []
    return _line("sweep", folder, *_model(settings, file), *_windows(n_wins, topks, equal_to), *chosen,
                 "--jobs", str(jobs), "-o", out)


def compare_command(settings: ModelSettings, n_wins: Sequence[int], topks: Sequence[int], equal_to: int | None = None,
                    layer: str = "", file: str = "", picture: str = "photo.jpg", cost: CostName = "macs") -> str:
    """`bra compare` of one layer on one picture; `layer` "" for the first, the rest as for `sweep_command`."""
    weighed = {"macs": [], "peak_bytes": ["--cost", cost], "seconds": ["--cost", cost, "--time", "5"]}[cost]
    return _line("compare", picture, *_model(settings, file), *_windows(n_wins, topks, equal_to),
                 *(["--layer", layer] if layer else []), *weighed)


def probe_command(settings: ModelSettings, file: str = "", picture: str = "photo.jpg") -> str:
    """`bra probe` of a model on a picture."""
    return _line("probe", picture, *_model(settings, file))


def inspect_command(settings: ModelSettings, layer: str = "", file: str = "", picture: str = "photo.jpg") -> str:
    """`bra inspect` of a layer on a picture, other windows included."""
    windows = ["--n-win", str(settings.n_win), "--topk", str(settings.topk)] if _patches(settings) or settings.changed \
        else []
    return _line("inspect", picture, *_model(settings, file, ("n_win", "topk")),
                 *(["--layer", layer] if layer else []), *windows)


def cost_command(settings: ModelSettings, imgsz: int | tuple[int, int] = 640, file: str = "") -> str:
    """`bra cost` of a model at an image size in pixels, one side or (h, w)."""
    h, w = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return _line("cost", _name(settings, file), "--imgsz", str(h) if h == w else f"{h}x{w}")


def _line(*words: str) -> str:
    return shlex.join(["bra", *words])


def _name(settings: ModelSettings, file: str) -> str:
    if settings.entry.family == "own":
        return file or "best.pt"
    return settings.chosen_variant or settings.model


def _patches(settings: ModelSettings) -> bool:
    return settings.entry.family == "patches"


def _model(settings: ModelSettings, file: str, without: Sequence[str] = ()) -> list[str]:
    """Which model, with which weights, at which side: always said, since a default may be another."""
    words = ["--model", _name(settings, file), "--side", str(settings.side)]
    if settings.untrained:
        words.append("--untrained")
    if _patches(settings):
        usual = ModelSettings()
        for name, flag in FLAGS.items():
            if name in without:
                continue
            value = getattr(settings, name)
            if value != getattr(usual, name):
                words += [flag] if value is True else [flag, str(value)]
    return words


def _windows(n_wins: Sequence[int], topks: Sequence[int], equal_to: int | None) -> list[str]:
    words = ["--n-win", ",".join(map(str, n_wins)), "--topk", ",".join(map(str, topks))]
    return words if equal_to is None else [*words, "--equal-coverage", str(equal_to)]


# as a program ---------------------------------------------------------------------------------------------


def explore_code(settings: ModelSettings, layer: str, window: int, token: int | None = None, file: str = "",
                 picture: str = "photo.jpg", routed: bool = True) -> str:
    """The program that makes what Explore shows of one query.

    It ends with `r_idx` (k,), `r_weight` (k,) and `attention`: (heads, keys) of one token, (heads, tokens, keys) of
    all. Of a routed layer these are what the module itself returns with `ret_attn_mask=True`.

    Args:
        settings: the model and its settings.
        layer: the layer's name in the model.
        window: the query window.
        token: its token; None for all.
        file: name of a model of one's own.
        picture: name of the picture's file.
        routed: False for full attention, which has no such call: its trace is asked, as is that of a layer that runs
            again, "name#2".
    """
    imports, model = _opened(settings, file)
    rows = "" if token is None else f", :, {token}"
    changed = settings.changed and not _patches(settings)
    if not routed or "#" in layer:
        asked, change = "" if token is None else f", token={token}", ""
        if changed:
            imports.append("from bra.models.base import Change")
            change = f", Change({layer.split('#')[0]!r}, n_win={settings.n_win}, topk={settings.topk})"
        return _program([*imports, PHOTO], [
            *model, _photo(picture), f"layer = model.look(photo, {settings.side}{change}).trace.layers[{layer!r}]",
            f"r_idx, r_weight = layer.r_idx[0, {window}], layer.r_weight[0, {window}]",
            f"attention = layer.attention({window}{asked})", *_printed()])
    imports = [*imports, PHOTO, "from bra.experiments.compare import layer_input"]
    lines = [*model, _photo(picture), f"given = layer_input(model, photo, {settings.side}, {layer!r})"]
    module = "given.layer"
    if changed:
        imports.append("from bra.models.base import Change, with_windows")
        lines.append(f'layer = with_windows(given.layer, Change("", n_win={settings.n_win}, topk={settings.topk}))')
        module = "layer"
    return _program(imports, [
        *lines, f"y, r_weight, r_idx, attn = {module}(given.x, ret_attn_mask=True)",
        f"r_idx, r_weight, attention = r_idx[0, {window}], r_weight[0, {window}], attn[{window}{rows}]", *_printed()])


def recording_code(path: str, layer: str, window: int, token: int | None = None) -> str:
    """The program that makes what Explore shows of one query of a recording, a trace that `bra.record` wrote.

    Args:
        path: name of the recording's file.
        layer: the layer's name in it.
        window: the query window.
        token: its token; None for all.
    """
    asked = f"{window}" if token is None else f"{window}, token={token}"
    return _program(["import bra"], [
        f"layer = bra.load({path!r}).layers[{layer!r}]",
        f"r_idx, r_weight = layer.r_idx[0, {window}], layer.r_weight[0, {window}]",
        f"attention = layer.attention({asked})", *_printed()])


def compare_code(settings: ModelSettings, layer: str, n_wins: Sequence[int], topks: Sequence[int],
                 equal_to: int | None = None, file: str = "", picture: str = "photo.jpg") -> str:
    """The program that makes the table of Compare: `rows`, one of each setting."""
    imports, model = _opened(settings, file)
    equal = "" if equal_to is None else f", equal_to={equal_to}"
    named = f", {layer!r}" if layer else ""
    return _program([*imports, PHOTO, "from bra.experiments.compare import compare, layer_input, settings_of"], [
        *model, _photo(picture), f"given = layer_input(model, photo, {settings.side}{named})",
        f"rows = compare(given, settings_of({tuple(n_wins)}, {tuple(topks)}{equal})).rows",
        "for row in rows:", "    print(row.n_win, row.topk, row.recall, row.nearest, row.chance, row.macs)"])


def probe_code(settings: ModelSettings, file: str = "", picture: str = "photo.jpg") -> str:
    """The program that makes the table of the probes: `rows`, one of each layer and probe."""
    imports, model = _opened(settings, file)
    return _program([*imports, PHOTO, "from bra.experiments.probes import probe"], [
        *model, _photo(picture), f"rows = probe(model, photo, {settings.side})",
        "for row in rows:", "    print(row.layer, row.probe, row.survived, row.stayed, row.nearest, row.chance)"])


def cost_code(settings: ModelSettings, imgsz: int | tuple[int, int] = 640, file: str = "") -> str:
    """The program that makes the table of Cost: `cost`."""
    imports, model = _opened(settings, file)
    return _program(["import bra", *imports], [*model, f"cost = bra.cost(model, imgsz={imgsz})", "print(cost)"])


PHOTO: Final = "from bra.photo import Photo"


def _opened(settings: ModelSettings, file: str) -> tuple[list[str], list[str]]:
    if settings.entry.family == "own":
        name = file or "best.pt"
        return (["from pathlib import Path", "from bra.opening import open_file"],
                [f"model = open_file(Path({name!r}).read_bytes(), {name.replace(chr(92), '/').split('/')[-1]!r})"])
    return (["from bra.models.catalog import ModelSettings", "from bra.opening import open_model"],
            [f"model = open_model({_settings(settings)})"])


def _settings(settings: ModelSettings) -> str:
    """The settings that open the model, as Python, without those that are at their default."""
    usual, wanted = ModelSettings(settings.model), settings.opens
    given = [f"{one.name}={getattr(wanted, one.name)!r}" for one in fields(ModelSettings)
             if one.name not in ("model", "side", "changed")
             and (one.name not in PATCHES_ONLY or _patches(settings))
             and getattr(wanted, one.name) != getattr(usual, one.name)
             and not (one.name == "variant" and wanted.variant == CATALOG[settings.model].variants[0])]
    return f"ModelSettings({', '.join([repr(settings.model), *given])})"


def _photo(picture: str) -> str:
    return f"photo = Photo.from_bytes(Path({picture!r}).read_bytes())"


def _printed() -> list[str]:
    return ["print(r_idx, r_weight, attention.shape)"]


def _program(imports: Sequence[str], lines: Sequence[str]) -> str:
    """A file: imports in order, each once, then the lines."""
    needed = {*imports, *(["from pathlib import Path"] if any("Path(" in line for line in lines) else [])}
    bare = sorted(line for line in needed if line.startswith("import "))
    standard = [line for line in needed if line == "from pathlib import Path"]
    ours = sorted(line for line in needed if line not in (*bare, *standard))
    blocks = [standard, [*bare, *ours], lines]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
