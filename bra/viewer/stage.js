// The stage: point and see, click and keep. Its state lives here, per place on the page; Python is told of pins only.

const stages = new WeakMap();

export default function mount({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".stage");
  let view = stages.get(root);
  if (!view) { view = build(root); stages.set(root, view); }
  view.tell = setStateValue;
  const message = unpack(data);
  if (view.data && message.version === view.data.version) { render(view); return undefined; }
  // The pins here are newer than those in a message, except where a new picture or a new visit begins, or where they were
  // chosen in a chart of the page.
  const known = Boolean(view.data), fresh = !view.data || view.data.photo !== message.photo || view.data.follow !== message.follow;
  if (fresh) {
    view.pins = { a: message.pins.a ?? null, b: message.pins.b ?? null };
    view.active = view.pins.a && !view.pins.b ? "b" : "a";
    view.hover = view.cursor = null;
  }
  // A model may have no class heat map: the stage then shows the routing as before.
  view.ui.tint.querySelector('[value="class_map"]').hidden = !message.heat_offered;
  if (!known) adopt(view, message.show);
  if (view.tint === "class_map" && !message.heat_offered) { view.tint = "route"; view.ui.tint.value = view.tint; }
  view.data = message; view.base = null; view.pointed = null;
  for (const [role, colour] of Object.entries(message.roles)) root.style.setProperty(`--role-${role}`, colour);
  const words = reachWords(message.reach);
  message.caption = [message.caption, words && tr("{reach}, under a grid of {n}×{n}", { reach: words, n: message.grid.n_win })].filter(Boolean).join(" · ");
  for (const caption of root.querySelectorAll('[data-part="caption"]')) caption.textContent = message.caption;
  // Nothing is chosen where nothing routes: what would say so goes.
  for (const tint of ["affinity", "query_part"]) view.ui.tint.querySelector(`[value="${tint}"]`).hidden = !message.routed;
  if (!message.routed && ["affinity", "query_part"].includes(view.tint)) { view.tint = "route"; view.ui.tint.value = view.tint; }
  const named = (tint, text) => { view.ui.tint.querySelector(`[value="${tint}"]`).textContent = text; };
  named("route", message.routed ? tr("Tint: routed") : tr("Tint: attention"));
  named("in_degree", message.routed ? tr("Tint: how often chosen") : tr("Tint: attention of all"));
  view.ui.reverse.textContent = message.routed ? tr("Who routes here") : tr("Who looks here");
  view.ui.note.textContent = !message.routed
    ? tr("This layer does not route: there is no n_win and no topk to choose. The grid only sums attention up.")
    : message.weights_used
    ? tr("This layer multiplies keys and values by these weights.")
    : tr("This layer uses only which windows were chosen, not these weights.");
  if (!known) render(view);     // what lies below has its place before the picture is decoded
  withPicture(view, render);
  return undefined;
}

function build(root) {
  translate(root);
  const $ = (name) => root.querySelector(`[data-part="${name}"]`);
  const ui = Object.fromEntries(["canvas", "readout", "live", "caption", "note", "rank", "rows",
    "tip", "stats", "title", "a", "b", "reverse", "arrows", "bare", "tint", "size", "save"].map((name) => [name, $(name)]));
  const view = { root, ui, pins: { a: null, b: null }, active: "a", hover: null, cursor: null, reverse: false, arrows: false, bare: false,
    tint: "route", pointed: null };
  const move = (event) => { view.hover = placeOnStage(view, event); view.cursor = null; schedule(view); };
  ui.canvas.addEventListener("pointermove", move);
  ui.canvas.addEventListener("pointerleave", () => { view.hover = null; schedule(view); });
  ui.canvas.addEventListener("click", (event) => { pin(view, placeOnStage(view, event)); if (event.pointerType === "touch") view.hover = null; });
  ui.canvas.addEventListener("keydown", (event) => key(view, event));
  for (const role of ["a", "b"]) {
    ui[role].addEventListener("click", () => { view.active = role; schedule(view); });
    $(`clear-${role}`).addEventListener("click", () => { view.pins[role] = null; view.active = role; sendPins(view); });
  }
  for (const name of ["reverse", "arrows", "bare"]) ui[name].addEventListener("click", () => { view[name] = !view[name]; switched(view); });
  ui.tint.addEventListener("change", () => { view.tint = ui.tint.value; switched(view); });
  ui.save.addEventListener("click", () => savePicture(view));
  hits(view, ui.rank, (x) => { const bar = view.rankHit(x); view.pointed = bar.window; schedule(view);
    return { text: view.data.routed ? tr("window {window}: affinity {affinity}", { window: bar.window, affinity: number(bar.value) })
      : tr("window {window}: {share} of the attention", { window: bar.window, share: percent(bar.value) }), query: null }; });
  new ResizeObserver(() => { view.base = null; schedule(view); }).observe(root);
  return view;
}

// Numbers under the pointer, and a click that pins the row one points at.
function hits(view, canvas, read) {
  canvas.addEventListener("pointermove", (event) => {
    const hit = read(event.offsetX, event.offsetY), { tip } = view.ui;
    tip.hidden = !hit;
    if (!hit) return;
    tip.textContent = hit.text;
    if (hit.key !== undefined && hit.key !== view.pointed) { view.pointed = hit.key; schedule(view); }
    const box = view.root.getBoundingClientRect();
    tip.style.left = `${clamp(event.clientX - box.left + 12, 0, box.width - tip.offsetWidth)}px`;
    tip.style.top = `${event.clientY - box.top + 16}px`;
  });
  canvas.addEventListener("pointerleave", () => { view.ui.tip.hidden = true; view.pointed = null; schedule(view); });
  canvas.addEventListener("click", (event) => {
    const hit = read(event.offsetX, event.offsetY);
    if (hit && hit.query !== null) pin(view, centre(view, hit.query));
  });
}

function centre(view, window) {
  const { grid } = view.data, j = Math.floor(window / grid.n_win), i = window % grid.n_win;
  return placeOfToken(grid, j * grid.window_h + (grid.window_h >> 1), i * grid.window_w + (grid.window_w >> 1));
}

function placeOnStage(view, event) {
  const { grid } = view.data, x = event.offsetX / view.scale + grid.box[1], y = event.offsetY / view.scale + grid.box[0];
  return [Math.round((x / grid.width) * FULL), Math.round((y / grid.height) * FULL)];
}

// First click A, second click B; from then on the one whose button is pressed moves.
function pin(view, place) {
  view.pins[view.active] = place;
  if (view.active === "a" && !view.pins.b) view.active = "b";
  sendPins(view);
}

// The switches of the stage travel as a list of words, so that a link can hold them.
function adopt(view, words) {
  for (const name of ["reverse", "arrows", "bare"]) view[name] = words.includes(name);
  view.tint = ["affinity", "query_part", "in_degree", "class_map"].find((name) => words.includes(name)) ?? "route";
  view.ui.tint.value = view.tint;
}

function switched(view) {
  tell(view, "show", [view.reverse && "reverse", view.arrows && "arrows", view.bare && "bare", view.tint !== "route" && view.tint].filter(Boolean));
  schedule(view);
}

// The picture answers first: what the page does with a message takes longer than a frame.
function tell(view, name, value) { requestAnimationFrame(() => setTimeout(() => view.tell(name, value))); }

// A browser may say once more what it said: by the time, the page knows it.
function sendPins(view) { schedule(view); tell(view, "pins", { ...view.pins, sent: Date.now() }); view.ui.live.textContent = view.ui.readout.textContent; }

function key(view, event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const { grid } = view.data;
  const at = tokenAt(grid, view.cursor ?? view.hover ?? view.pins[view.active] ?? view.pins.a ?? view.data.focus);
  if (step) {
    const [dy, dx] = event.shiftKey ? step : [step[0] * grid.window_h, step[1] * grid.window_w];
    view.cursor = placeOfToken(grid, clamp(at.row + dy, 0, grid.H - 1), clamp(at.col + dx, 0, grid.W - 1));
    view.hover = null;
    render(view);
    view.ui.live.textContent = view.ui.readout.textContent;
  } else if (event.key === "Enter" || event.key === " ") {
    pin(view, placeOfToken(grid, at.row, at.col));
  } else if (event.key === "Escape") {
    view.pins = { a: null, b: null }; view.active = "a"; view.cursor = null; sendPins(view);
  } else if (event.key.toLowerCase() === "r") { view.reverse = !view.reverse; switched(view);
  } else return;
  event.preventDefault(); event.stopPropagation();
}

function schedule(view) {
  if (view.frame) return;
  view.frame = requestAnimationFrame(() => { view.frame = null; render(view); });
}

// The queries on show: pins, and in the place of the active one whatever is pointed at.
function queriesOf(view) {
  const { grid, focus } = view.data, live = view.cursor ?? view.hover, found = [];
  for (const role of ["a", "b"]) {
    const place = live && role === view.active ? live : view.pins[role];
    if (place) found.push({ role, place });
  }
  if (!found.length) found.push({ role: "a", place: focus });
  return found.map(({ role, place }) => ({ role, place, ...tokenAt(grid, place), live: live && role === view.active,
    x: (place[0] / FULL) * grid.width - grid.box[1], y: (place[1] / FULL) * grid.height - grid.box[0] }))
    .sort((p, q) => Number(p.role === view.active) - Number(q.role === view.active));
}

function render(view) {
  const { ui, data } = view;
  if (!data || (view.ready && !view.picture)) return;       // the last picture stays until the next is there
  const box = extent(data.grid), room = ui.canvas.parentElement.clientWidth;
  if (!room) return;
  view.scale = Math.min(room / box.width, Math.max(320, window.innerHeight - 345) / box.height);
  const width = box.width * view.scale, height = box.height * view.scale, started = performance.now();
  const g = fit(ui.canvas, width, height), queries = queriesOf(view), current = queries[queries.length - 1];
  view.root.dataset.sized = "";
  if (!view.picture) { panels(view, queries, current); return; }
  if (!view.base) {
    const ratio = window.devicePixelRatio || 1;
    view.base = offscreen(Math.round(width * ratio), Math.round(height * ratio), (b) => {
      b.scale(ratio, ratio); drawBase(view, b, view.scale); drawGrid(view, b, view.scale); });
  }
  g.drawImage(view.base, 0, 0, width, height);
  paint(view, g, height, queries);
  panels(view, queries, current);
  view.root.dataset.window = current.window; view.root.dataset.ready = data.version;
  view.root.dataset.painted = performance.now() - started;
  if (!view.ready) { view.ready = true; tell(view, "ready", true); }
}

// All that lies over the photograph and its grid.
function paint(view, g, height, queries) {
  const range = drawTint(view, g, view.scale, queries);
  for (const query of queries) drawWindows(view, g, view.scale, query);
  if (!view.bare) drawFound(view, g, view.scale, queries);
  for (const query of queries) drawMarks(view, g, view.scale, query);
  if (view.pointed !== null) frame(g, windowRect(view.data.grid, view.pointed, view.scale), "#ffffff", 3);
  if (range) legend(view, g, height, range);
}

function legend(view, g, height, { low, high }) {
  const words = view.tint === "query_part" ? tr("not what the layer did")
    : view.tint === "class_map" ? tr("LayerCAM: where the answer comes from, not attention") : "";
  g.font = "12px sans-serif";
  const room = extent(view.data.grid).width * view.scale - 16, wide = words ? g.measureText(words).width + 14 : 0;
  const above = 168 + wide > room ? linesOf(g, words, room - 12) : [], top = height - 38 - 16 * above.length;
  g.fillStyle = "rgba(17,17,17,.8)"; g.fillRect(8, top, above.length ? room : 168 + wide, height - 8 - top);
  colourBar(g, 14, height - 33, 156, low, high, "#fff");
  g.textAlign = "left"; g.textBaseline = "middle";
  if (!above.length) g.fillText(words, 182, height - 23);
  above.forEach((line, n) => g.fillText(line, 14, top + 11 + 16 * n));
}

function panels(view, queries, current) {
  const { ui, data, root } = view, colour = data.roles[current.role];
  for (const role of ["a", "b"]) {
    const place = view.pins[role];
    ui[role].setAttribute("aria-pressed", String(view.active === role));
    ui[role].querySelector("span").textContent = place ? tr("window {window}", tokenAt(data.grid, place))
      : role === "a" || view.pins.a ? tr("click to pin") : "";
    root.querySelector(`[data-part="clear-${role}"]`).hidden = !place;
  }
  for (const name of ["reverse", "arrows"]) ui[name].setAttribute("aria-pressed", String(view[name]));
  ui.bare.setAttribute("aria-pressed", String(!view.bare));
  ui.bare.hidden = !data.found.length;
  ui.bare.textContent = tr("Detections ({n})", { n: data.found.length });
  ui.readout.textContent = sentence(view, current);
  const k = data.topk, n = data.grid.n_win ** 2, all = k === n, role = current.role.toUpperCase();
  root.classList.toggle("reverse", view.reverse);
  root.classList.toggle("attends", !data.routed);
  ui.title.textContent = view.reverse && !data.routed ? tr("Who looks at query {role}: window {window}", { role, window: current.window })
    : view.reverse ? tr("Who chose query {role}: window {window}", { role, window: current.window })
    : tr("Query {role}: window {window}", { role, window: current.window });
  const heads = view.reverse ? [tr("its rank"), tr("chosen by"), tr("affinity"), tr("to the best"), tr("its weight")]
    : [tr("rank"), tr("window"), tr("affinity"), tr("to the best"), tr("weight")];
  const shown = data.routed ? heads : [tr("rank"), tr("window"), "", "", tr("share")];
  root.querySelectorAll("th").forEach((head, at) => { head.textContent = shown[at]; head.hidden = !shown[at]; });
  ui.stats.textContent = !data.routed ? attended(view, current.window) : view.reverse
    ? tr("Chosen by {n} of {all} windows; even routing would give {even}. Bars: how well it fits each.",
      { n: data.in_degree[current.window], all: n, even: k })
    : all ? tr("Every window is chosen: nothing is dropped.")
    : tr("Keeps {share} of the softmax over all windows (chance {chance}).",
      { share: percent(data.kept[current.window]), chance: percent(data.chance) });
  drawRank(view, ui.rank, current.window, colour);
  fillRankTable(view, ui.rows, current.window);
}

// What a layer that does not route gives from a window, or to it.
function attended(view, window) {
  const { data } = view, n = data.grid.n_win ** 2, reach = reachWords(data.reach), even = percent(1 / n);
  if (view.reverse) {
    let sum = 0;
    for (let q = 0; q < n; q++) sum += data.affinity[q * n + window] / n;
    return tr("It gets {share} of the attention of all windows (even: {even}).", { share: percent(sum), even });
  }
  return tr("No choice is made here: {reach}. Bars: share of attention, mean over heads and tokens.", { reach });
}

// What is on the stage, drawn anew at so many pixels for each or as vectors, so that lines and numbers stay sharp; below it
// what the colours mean, the caption, and the sentence about the query.
function savePicture(view) {
  const { data, ui } = view, vector = ui.size.value === "svg", factor = vector ? 1 : Number(ui.size.value);
  const box = extent(data.grid), width = box.width * view.scale, height = box.height * view.scale;
  const ruler = document.createElement("canvas").getContext("2d");
  ruler.font = SAVED_FONT;
  const queries = queriesOf(view).sort((p, q) => (p.role < q.role ? -1 : 1));
  const lines = [data.caption, ...queries.map((query) => `${query.role.toUpperCase()}: ${sentence(view, query)}`)]
    .flatMap((text) => linesOf(ruler, text, width - 16));
  const keys = keysOf(view, queries), rows = rowsOf(ruler, keys, width - 16), line = 20;
  const warning = data.untrained ? tr("Untrained weights, drawn at random") : "";
  const total = height + line * (rows.length + lines.length + (warning ? 1.2 : 0)) + 12;
  const draw = (g) => {
    g.fillStyle = "#fff"; g.fillRect(0, 0, width, total);
    g.save(); g.beginPath(); g.rect(0, 0, width, height); g.clip();
    drawBase(view, g, view.scale); drawGrid(view, g, view.scale);
    paint(view, g, height, queriesOf(view));
    g.restore();
    g.font = SAVED_FONT; g.textBaseline = "middle"; g.textAlign = "left";
    let y = height + 6 + line / 2;
    for (const row of rows) {
      for (const { x, swatch, text } of row) {
        swatch(g, 8 + x, y - 6); g.fillStyle = "#111"; g.font = SAVED_FONT; g.textBaseline = "middle"; g.textAlign = "left";
        g.fillText(text, 8 + x + SWATCH, y);
      }
      y += line;
    }
    g.fillStyle = "#111";
    for (const text of lines) { g.fillText(text, 8, y); y += line; }
    if (warning) {
      g.fillStyle = "#e69f00"; g.fillRect(0, total - line * 1.2, width, line * 1.2);
      g.fillStyle = "#111"; g.fillText(warning, 8, total - line * 0.6);
    }
  };
  const shown = [view.tint !== "route" && view.tint, view.reverse && "reverse"].filter(Boolean);
  const words = ["routescope", ...data.parts, data.name, `n${data.grid.n_win}_k${data.topk}`, queries.map((q) => q.role + q.window).join("-"), ...shown];
  const name = words.map((word) => word.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 60)).filter(Boolean).join("_");
  if (vector) {
    const sheet = new VectorContext(width, total);
    draw(sheet);
    download(new Blob([sheet.text(data.caption)], { type: "image/svg+xml" }), `${name}.svg`);
  } else {
    offscreen(Math.round(width * factor), Math.round(total * factor), (g) => { g.scale(factor, factor); draw(g); })
      .toBlob((blob) => download(blob, `${name}_${factor}x.png`));
  }
}

const SAVED_FONT = "13px sans-serif", SWATCH = 22;

// What the colours and hatches of a saved picture mean: how each is drawn, and its words.
function keysOf(view, queries) {
  const { data } = view, box = extent(data.grid), keys = [];
  for (const query of queries) {
    const role = query.role.toUpperCase(), colour = data.roles[query.role], values = { role, window: query.window };
    keys.push({ swatch: (g, x, y) => frame(g, { x, y, w: 14, h: 13 }, colour, 2.25),
      text: view.tint === "query_part" ? (view.reverse ? tr("{role}: window {window} and the windows that would choose it", values)
          : tr("{role}: window {window} and the windows it would choose", values))
        : !data.routed ? (view.reverse ? tr("{role}: window {window} and who attends to it, the stronger the more", values)
          : tr("{role}: window {window} and what it attends to, the stronger the more", values))
        : view.reverse ? tr("{role}: window {window} and the windows that chose it, with its rank", values)
        : tr("{role}: window {window} and the windows it is routed to, by rank", values) });
  }
  if (view.tint !== "route") {
    const name = view.tint === "in_degree" ? (data.routed ? tr("tint: how many windows chose a window") : tr("tint: share of all attention"))
      : view.tint === "query_part" ? tr("tint: affinity less what every query asks for alike")
      : view.tint === "class_map" ? tr("tint: class heat map (LayerCAM)") : tr("tint: affinity of all windows");
    keys.push({ swatch: (g, x, y) => { for (let n = 0; n < 14; n++) { g.fillStyle = css(cividis(n / 13)); g.fillRect(x + n, y, 1.5, 12); } }, text: name });
  }
  if (box.width - data.grid.width > 0.5 || box.height - data.grid.height > 0.5) {
    keys.push({ swatch: (g, x, y) => { g.fillStyle = "#70757d"; g.fillRect(x, y, 14, 12); hatch(g, x, y, 14, 12, "#d8dbe0"); }, text: tr("padding") });
  }
  return keys;
}

// Keys side by side as long as they fit: rows of keys with their places.
function rowsOf(g, keys, width) {
  const rows = [[]];
  let x = 0;
  for (const key of keys) {
    const wide = SWATCH + g.measureText(key.text).width + 18;
    if (x && x + wide > width) { rows.push([]); x = 0; }
    rows.at(-1).push({ ...key, x });
    x += wide;
  }
  return rows;
}

// A text in lines no wider than that; Chinese may be cut between any two letters.
function linesOf(g, text, width) {
  const lines = [""];
  for (const word of text.replaceAll(" %", "\u00a0%").match(/[\u3000-\u9fff\uff00-\uffef]|[^ \u3000-\u9fff\uff00-\uffef]+ *| +/g) ?? []) {
    if (lines.at(-1) && g.measureText(lines.at(-1) + word.trimEnd()).width > width) lines.push("");
    lines[lines.length - 1] += word;
  }
  return lines;
}
