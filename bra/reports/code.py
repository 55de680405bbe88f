"""A view as a command, and as the shortest Python program that makes the same numbers.

Every function returns text; nothing is run. Names of files and layers are quoted, so that pasting is safe.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from bra.experiments.compare import CostName, Setting
from bra.experiments.reroute import Reroute
from bra.models.base import FileOptions
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
                  jobs: int = 2, rules: bool = False) -> str:
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
        rules: whether rules of routing are tried; without n_wins under each layer's own windows.
    """
    chosen = ["--layers", *layers] if layers else []
    windows = _windows(n_wins, topks, equal_to) if n_wins else []
    return _line("sweep", folder, *(["--rules"] if rules else []), *_model(settings, file), *windows, *chosen,
                 "--jobs", str(jobs), "-o", out)


def compare_command(settings: ModelSettings, n_wins: Sequence[int], topks: Sequence[int], equal_to: int | None = None,
                    layer: str = "", file: str = "", picture: str = "photo.jpg", cost: CostName = "macs",
                    rounds: int = 5) -> str:
    """`bra compare` of one layer on one picture.

    Args:
        settings: as for `sweep_command`, like n_wins, topks, equal_to and file.
        n_wins: windows per side.
        topks: routed windows.
        equal_to: the n_win for which the topks are meant.
        layer: its name; "" for the first.
        file: name of a model of one's own.
        picture: name of the picture's file.
        cost: what recall is weighed against.
        rounds: forwards that are timed, where that is time.
    """
    weighed = {"macs": [], "peak_bytes": ["--cost", cost], "seconds": ["--cost", cost, "--time", str(rounds)]}[cost]
    return _line("compare", picture, *_model(settings, file), *_windows(n_wins, topks, equal_to),
                 *(["--layer", layer] if layer else []), *weighed)


def probe_command(settings: ModelSettings, file: str = "", picture: str = "photo.jpg") -> str:
    """`bra probe` of a model on a picture."""
    return _line("probe", picture, *_model(settings, file))


def inspect_command(settings: ModelSettings, layer: str = "", file: str = "", picture: str = "photo.jpg",
                    pins: Mapping[str, tuple[int, int]] | None = None, whole: bool = False) -> str:
    """`bra inspect` of a layer on a picture, other windows included; "" where the command cannot say as much.

    Args:
        settings: the model and its settings.
        layer: the layer's name; "" for the first.
        file: name of a model of one's own.
        picture: name of the picture's file.
        pins: places of the queries "a" and "b", in ten-thousandths of the picture.
        whole: whether attention is that of the whole window.
    """
    if settings.changed and settings.entry.needs_file:
        return ""       # its --n-win would also be taken for what a file of weights does not hold
    if settings.mask_padding and not _patches(settings):
        return ""       # it masks patches only
    other = _patches(settings) or settings.changed
    windows = ["--n-win", str(settings.n_win), "--topk", str(settings.topk)] if other else []
    places = [word for role, (x, y) in (pins or {}).items() for word in (f"--{role}", f"{x / 100:g},{y / 100:g}")]
    return _line("inspect", picture, *_model(settings, file, ("n_win", "topk"), "--n-win"),
                 *(["--layer", layer] if layer else []), *windows, *places, *(["--window-mean"] if whole else []))


def cost_command(settings: ModelSettings, imgsz: int | tuple[int, int] = 640, file: str = "", rounds: int = 0) -> str:
    """`bra cost` of a model at an image size in pixels, one side or (h, w), `rounds` forwards of it timed; "" where
    the command cannot say as much: of patches it knows the usual settings alone."""
    h, w = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    if _patches(settings) and settings.opens != ModelSettings(settings.model).opens:
        return ""
    return _line("cost", _name(settings, file), "--imgsz", str(h) if h == w else f"{h}x{w}",
                 *(["--time", str(rounds)] if rounds else []), *_file_words(settings.file, "--n-win"))


def _line(*words: str) -> str:
    return shlex.join(["bra", *words])


def _name(settings: ModelSettings, file: str) -> str:
    if settings.entry.family == "own":
        return file or "best.pt"
    return settings.chosen_variant or settings.model


def _patches(settings: ModelSettings) -> bool:
    return settings.entry.family == "patches"


def _file_words(file: FileOptions, n_win: str) -> list[str]:
    """What was said of a file, `n_win` being the command's name for its windows."""
    return [*([n_win, str(file.n_win)] if file.n_win is not None else []),
            *([f"--topks={','.join(map(str, file.topks))}"] if file.topks else []),
            *(["--heads-first"] if file.heads_first else [])]


def _model(settings: ModelSettings, file: str, without: Sequence[str] = (), n_win: str = "--model-n-win") -> list[str]:
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
    return words + _file_words(settings.file, n_win)


def _windows(n_wins: Sequence[int], topks: Sequence[int], equal_to: int | None) -> list[str]:
    words = ["--n-win", ",".join(map(str, n_wins)), "--topk", ",".join(map(str, topks))]
    return words if equal_to is None else [*words, "--equal-coverage", str(equal_to)]


# as a program ---------------------------------------------------------------------------------------------


def explore_code(settings: ModelSettings, layer: str, window: int, token: int | None = None, file: str = "",
                 picture: str = "photo.jpg", routed: bool = True, b: tuple[int, int | None] | None = None,
                 reroute: Reroute | None = None) -> str:
    """The program that makes what Explore shows of one query, or of two.

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
        b: window and token of the second query, whose names begin with `b_`.
        reroute: where the routed layer looks instead; its program goes on to `found`, the answers before and after.
    """
    imports, model = _opened(settings, file)
    change = _change(settings, layer)
    if not routed or "#" in layer:
        imports += ["from bra.models.base import Change"] if change else []
        asked = f", {change}" if change else ""
        return _program([*imports, PHOTO], [
            *model, _photo(picture), f"layer = model.look(photo, {settings.side}{asked}).trace.layers[{layer!r}]",
            *_traced(window, token, b)])
    imports = [*imports, PHOTO, "from bra.experiments.compare import layer_input"]
    lines = [*model, _photo(picture), f"given = layer_input(model, photo, {settings.side}, {layer!r})"]
    module = "given.layer"
    if change:
        imports.append("from bra.models.base import Change, with_windows")
        lines.append(f"layer = with_windows(given.layer, {_change(settings, '')})")
        module = "layer"
    lines.append(f"y, weights, indices, attn = {module}(given.x, ret_attn_mask=True)")
    for name, at, of in _queries(window, token, b):
        rows = "" if of is None else f", :, {of}"
        lines.append(f"{name}r_idx, {name}r_weight, {name}attention = indices[0, {at}], weights[0, {at}], "
                     f"attn[{at}{rows}]")
    lines += _print_lines(b is not None)
    if reroute is not None:
        instead = f"swaps={reroute.swaps}" if reroute.swaps else repr(reroute.rule)
        other = f", {change}" if change else ""
        imports.append(f"from bra.experiments.reroute import Reroute, {'Swap, ' * bool(reroute.swaps)}look_elsewhere")
        lines += [f"found = look_elsewhere(model, photo, {settings.side}, Reroute({layer!r}, {instead}){other})",
                  "for row in found.rows:", "    print(row.label, row.before, row.after)"]
    return _program(imports, lines)


def recording_code(path: str, layer: str, window: int, token: int | None = None,
                   b: tuple[int, int | None] | None = None, settings: ModelSettings | None = None,
                   attention: bool = True) -> str:
    """The program that makes what Explore shows of a query of a recording, a trace that `bra.record` wrote.

    Args:
        path: name of the recording's file.
        layer: the layer's name in it.
        window: the query window.
        token: its token; None for all.
        b: window and token of the second query.
        settings: those of the view, which may give the layer other windows.
        attention: whether the recording knows it of this layer, and not its routing alone.
    """
    change = _change(settings, layer) if settings else ""
    if change:
        return _program(["from bra.models.base import Change", "from bra.opening import open_file"], [
            *_file(path), f"layer = model.look(model.photo, 640, {change}).trace.layers[{layer!r}]",
            *_traced(window, token, b)])
    epoch = "" if settings is None or settings.file.epoch is None else f", epoch={settings.file.epoch}"
    return _program(["import bra"], [f"layer = bra.load({path!r}{epoch}).layers[{layer!r}]",
                                     *_traced(window, token, b, attention)])


def compare_code(settings: ModelSettings, layer: str, n_wins: Sequence[int], topks: Sequence[int],
                 equal_to: int | None = None, file: str = "", picture: str = "photo.jpg", rounds: int = 0) -> str:
    """The program that makes the table of Compare: `rows`, one of each setting, each timed in so many rounds."""
    imports, model = _opened(settings, file)
    equal = "" if equal_to is None else f", equal_to={equal_to}"
    named = f", {layer!r}" if layer else ""
    return _program([*imports, PHOTO, "from bra.experiments.compare import compare, layer_input, settings_of"], [
        *model, _photo(picture), f"given = layer_input(model, photo, {settings.side}{named})",
        f"rows = compare(given, settings_of({tuple(n_wins)}, {tuple(topks)}{equal}){f', {rounds}' if rounds else ''})"
        ".rows",
        "for row in rows:", f"    print(row.n_win, row.topk, row.recall, row.nearest, row.chance, "
                            f"row.{'seconds' if rounds else 'macs'})"])


def pair_code(a: tuple[ModelSettings, str, Setting, str], b: tuple[ModelSettings, str, Setting, str],
              picture: str = "photo.jpg") -> str:
    """The program that holds A against B: `pair`.

    Args:
        a: model and settings, name of the layer, its windows, name of the model's file if it is one's own.
        b: the same of the other side.
        picture: name of the picture's file.
    """
    imports, lines = [PHOTO, "from bra.experiments.compare import Setting, compare, compare_pair, layer_input"], []
    for name, (settings, layer, windows, file) in (("a", a), ("b", b)):
        needed, model = _opened(settings, file, f"model_{name}")
        imports += needed
        lines += [*model, f"given_{name} = layer_input(model_{name}, photo, {settings.side}, {layer!r})",
                  f"{name} = compare(given_{name}, [Setting({windows.n_win}, {windows.topk})])"]
    return _program(imports, [_photo(picture), *lines, "pair = compare_pair(a, b)",
                              "print(pair, pair.shared.union_share.mean(), pair.chance)"])


def rules_code(settings: ModelSettings, layer: str, windows: Setting, file: str = "",
               picture: str = "photo.jpg") -> str:
    """The program that makes the table of rules of routing: `rows`, one of each rule."""
    imports, model = _opened(settings, file)
    return _program([*imports, PHOTO, "from bra.experiments.compare import Setting, layer_input",
                     "from bra.experiments.rules import rules_of"], [
        *model, _photo(picture), f"given = layer_input(model, photo, {settings.side}, {layer!r})",
        f"rows = rules_of(given, Setting({windows.n_win}, {windows.topk}))",
        "for row in rows:", "    print(row.rule, row.recall, row.change, row.macs, row.kv_bytes)"])


def sweep_table_code(path: str, layer: str) -> str:
    """The program that makes what is shown of a sweep's table: `rows`, one of each setting of a layer."""
    return _program(["from bra.experiments.sweep_table import read_table, summaries"], [
        f"table = read_table(Path({path!r}).read_bytes())",
        f"rows = [row for row in summaries(table.rows) if row.layer == {layer!r}]",
        "for row in rows:", "    print(row.n_win, row.topk, row.pictures, row.recall, row.nearest, row.chance)"])


def probe_code(settings: ModelSettings, file: str = "", picture: str = "photo.jpg") -> str:
    """The program that makes the table of the probes: `rows`, one of each layer and probe."""
    imports, model = _opened(settings, file)
    return _program([*imports, PHOTO, "from bra.experiments.probes import probe"], [
        *model, _photo(picture), f"rows = probe(model, photo, {settings.side})",
        "for row in rows:", "    print(row.layer, row.probe, row.survived, row.stayed, row.nearest, row.chance)"])


def cost_code(settings: ModelSettings, imgsz: int | tuple[int, int] = 640, file: str = "", rounds: int = 0,
              variants: Sequence[str] = (), second: Mapping[str, Any] | None = None, narrow: int = 1) -> str:
    """The program that makes the table of Cost: `cost`, and `others`, the same model otherwise.

    Args:
        settings: the model.
        imgsz: size of the image in pixels, one side or (h, w).
        file: name of a model of one's own.
        rounds: forwards that are timed.
        variants: names of functions of `bra.profiling.variants`.
        second: options of `with_settings` among them.
        narrow: what the channels of q and k are divided by in it.
    """
    imports, model = _opened(settings, file)
    timed = f", rounds={rounds}" if rounds else ""
    lines = [*model, f"cost = bra.cost(model, imgsz={imgsz}{timed})", "print(cost)"]
    if variants:
        imports.append(f"from bra.profiling.variants import {', '.join(sorted(variants))}")
        options = ", ".join([str(narrow), *(f"{name}={value!r}" for name, value in (second or {}).items())])
        made = [f"{name}(model.module{f', {options}' if name == 'with_settings' else ''})" for name in variants]
        lines += ["others = [", *(f"    bra.cost({one}, imgsz={imgsz})," for one in made), "]",
                  "for other in others:", "    print(other.total)"]
    return _program(["import bra", *imports], lines)


def card_code(name: str) -> str:
    """The program that makes what stands on a model's card: `card`."""
    return _program(["from bra.models.card import cards"], [
        f"card = cards()[{name!r}]", 'print(card.title, *card.verdict, *card.comparison, sep="\\n")',
        'for row in card.quality["trained"]:', "    print(row)"])


def example_code(tokens: Sequence[Sequence[float]], topk: int) -> str:
    """The program that runs the worked example on 16 tokens of two numbers: `y`, `r_weight`, `r_idx` and `attn`."""
    rows = [f"    {', '.join(f'({a:g}, {b:g})' for a, b in tokens[at:at + 4])}," for at in range(0, len(tokens), 4)]
    return _program(["import torch", "from bra.teaching.example import example_module"], [
        "tokens = [", *rows, "]", "x = torch.tensor(tokens, dtype=torch.float32).view(1, 4, 4, 2).permute(0, 3, 1, 2)",
        f"y, r_weight, r_idx, attn = example_module({topk})(x, ret_attn_mask=True)",
        "print(y, r_weight, r_idx, attn)"])


def layer_code(settings: ModelSettings, layer: str, imports: Sequence[str], lines: Sequence[str],
               picture: str = "photo.jpg", trace: bool = False) -> str:
    """A program that goes on from what a layer was given on a picture, `given`, or from its trace, `layer`.

    Args:
        settings: the model.
        layer: the layer's name in the model.
        imports: what the lines need.
        lines: what is done with it.
        picture: name of the picture's file.
        trace: whether the lines go on from the trace.
    """
    needed, model = _opened(settings, "")
    if trace:
        first = [f"layer = model.look(photo, {settings.side}).trace.layers[{layer!r}]"]
    else:
        needed = [*needed, "from bra.experiments.compare import layer_input"]
        first = [f"given = layer_input(model, photo, {settings.side}, {layer!r})"]
    return _program([*needed, PHOTO, *imports], [*model, _photo(picture), *first, *lines])


def growth_code(pixels: int) -> str:
    """The program that counts full attention and BRA on a picture of so many pixels a side: `growth`."""
    return _program(["from bra.teaching import experiments"], [
        f"growth = experiments.growth({pixels})",
        "print(growth.pairs, growth.routed_pairs, growth.full.macs, growth.routed.macs)"])


PHOTO: Final = "from bra.photo import Photo"


def _opened(settings: ModelSettings, file: str, name: str = "model") -> tuple[list[str], list[str]]:
    """Imports and lines that open the model under a name."""
    if settings.entry.needs_file:
        options = ["from bra.models.base import FileOptions"] if settings.file != FileOptions() else []
        return [*options, "from bra.opening import open_file"], _file(file or "best.pt", settings.file, name)
    return (["from bra.models.catalog import ModelSettings", "from bra.opening import open_model"],
            [f"{name} = open_model({_settings(settings)})"])


def _file(path: str, options: FileOptions | None = None, name: str = "model") -> list[str]:
    given = [f"{one.name}={getattr(options, one.name)!r}" for one in fields(FileOptions)
             if options is not None and getattr(options, one.name) != one.default]
    said = f", options=FileOptions({', '.join(given)})" if given else ""
    short = path.replace(chr(92), "/").split("/")[-1]
    return [f"{name} = open_file(Path({path!r}).read_bytes(), {short!r}{said})"]


def _change(settings: ModelSettings, layer: str) -> str:
    """The other windows, or the mask, of a layer as Python; "" where it is as the model has it."""
    change = settings.change_of(layer.split("#")[0])
    if change is None:
        return ""
    given = [f"{name}={getattr(change, name)}" for name in ("n_win", "topk", "mask_padding")
             if getattr(change, name) is not None]
    return f"Change({', '.join([repr(change.layer), *given])})"


def _queries(window: int, token: int | None, b: tuple[int, int | None] | None) -> list[tuple[str, int, int | None]]:
    """What the names of each query begin with, its window and token."""
    return [("", window, token), *([("b_", *b)] if b else [])]


def _traced(window: int, token: int | None, b: tuple[int, int | None] | None, attention: bool = True) -> list[str]:
    """Lines that ask a trace, `layer`."""
    lines = []
    for name, at, of in _queries(window, token, b):
        asked = "" if of is None else f", token={of}"
        lines += [f"{name}r_idx, {name}r_weight = layer.r_idx[0, {at}], layer.r_weight[0, {at}]",
                  *([f"{name}attention = layer.attention({at}{asked})"] if attention else [])]
    return [*lines, *_print_lines(b is not None, attention)]


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


def _print_lines(two: bool = False, attention: bool = True) -> list[str]:
    return [f"print({name}r_idx, {name}r_weight{f', {name}attention.shape' if attention else ''})"
            for name in ("", "b_")[:1 + two]]


def _program(imports: Sequence[str], lines: Sequence[str]) -> str:
    """A file: imports in order, each once, then the lines."""
    needed = {*imports, *(["from pathlib import Path"] if any("Path(" in line for line in lines) else [])}
    bare = sorted(line for line in needed if line.startswith("import "))
    standard = [line for line in needed if line == "from pathlib import Path"]
    ours = sorted(line for line in needed if line not in (*bare, *standard))
    blocks = [standard, [*bare, *ours], lines]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
