// Many small pictures with one query: point at any, and all show where theirs is routed. Two of them make A against B.

const sets = new WeakMap();
const BOTH = "#009E73";

export default function mount({ parentElement, data, setStateValue, setTriggerValue }) {
  const root = parentElement.querySelector(".multiples");
  let view = sets.get(root);
  if (!view) {
    view = { root, at: null, hover: null, cells: [] };
    sets.set(root, view);
    // What is scrolled out of sight need not follow the pointer.
    view.sight = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.target.dataset.seen = entry.isIntersecting ? "1" : "";
      plan(view);
    }, { rootMargin: "100px" });
    new ResizeObserver(() => { for (const cell of view.cells) cell.base = null; plan(view); }).observe(root);
  }
  view.tell = setStateValue; view.open = setTriggerValue;
  const message = unpack(data);
  if (view.data && view.data.version === message.version) { plan(view); return undefined; }
  if (!view.data || view.data.photo !== message.photo) { view.at = message.at; view.hover = null; }
  view.data = message;
  for (const [role, colour] of Object.entries(message.roles)) root.style.setProperty(`--role-${role}`, colour);
  lay(view);
  withPicture(view, plan);
  return undefined;
}

function lay(view) {
  const { data, root } = view;
  const sizes = [...new Set(data.cells.map((c) => c.n_win))];
  const columns = data.pair ? 4 : Math.max(...sizes.map((n) => data.cells.filter((c) => c.n_win === n).length));
  const sheet = el("div", { class: "many", style: `--columns:${columns}` });
  view.cells = data.cells.map((about, n) => cell(view, { ...about, lines: linesOf(view, about) }, `r_idx_${n}`));
  if (data.pair) {
    const [a] = data.cells;
    view.overlap = cell(view, { ...a, title: tr("What both and what only one sees"), lines: ["", ""] }, null);
    view.cells.push(view.overlap);
    if (data.map) {
      view.change = cell(view, { ...a, title: tr("How far the outputs differ"), lines: ["", ""] }, null);
      view.cells.push(view.change);
    } else view.change = null;
    sheet.append(...view.cells.map((c) => c.figure));
  } else {
    for (const n of sizes) {
      const row = view.cells.filter((c) => c.about.n_win === n);
      sheet.append(...row.map((c) => c.figure));
      for (let gap = row.length; gap < columns; gap++) sheet.append(el("div", { class: "gap" }));
    }
  }
  view.live = el("p", { class: "hidden", "aria-live": "polite" });
  view.sight.disconnect();
  for (const { figure } of view.cells) view.sight.observe(figure);
  root.replaceChildren(sheet, view.live, el("p", { class: "caption" }, data.caption));
}

// What stands below a picture: what its setting keeps, beside its controls, and what it costs.
function linesOf(view, about) {
  const [keeps, nearest, chance] = [about.keeps, about.nearest, about.chance].map((n) => tr("{n} %", { n }));
  const costs = about.costs.join(tr(", "));
  if (view.data.pair && about.reach.length) return [reachWords(about.reach), costs];
  return view.data.pair
    ? [tr("n_win {n_win}, topk {topk}: keeps {keeps} (nearest {nearest}, chance {chance})", { ...about, keeps, nearest, chance }), costs]
    : [tr("keeps {keeps}", { keeps }), tr("nearest {nearest}, chance {chance}", { nearest, chance }), costs];
}

function cell(view, about, routes) {
  const canvas = el("canvas", { tabindex: 0, role: "application",
    "aria-label": tr("{about} Arrow keys move the query of all pictures, Enter keeps it.",
      { about: [about.title, ...about.lines].join(tr(". ")) + tr(".") }) });
  // Its height is known before it is drawn: rows must not jump when they come into sight.
  const box = extent(about.grid);
  canvas.style.width = "100%"; canvas.style.aspectRatio = `${box.width} / ${box.height}`;
  const lines = about.lines.map((line) => el("span", {}, line));
  const title = view.data.pair ? el("b", {}, about.title)
    : el("button", { type: "button", title: tr("Open this setting in Explore"), onclick: () => view.open("opened", [about.n_win, about.topk]) }, about.title);
  const made = { about, canvas, lines, routes, base: null,
    figure: el("figure", { class: about.front ? "front" : "" }, canvas, el("figcaption", {}, title, ...lines)) };
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") { view.hover = placeIn(made, event); plan(view); } });
  canvas.addEventListener("pointerleave", () => { view.hover = null; plan(view); });
  canvas.addEventListener("click", (event) => { view.at = placeIn(made, event); keepQuery(view); });
  canvas.addEventListener("keydown", (event) => moved(view, made, event));
  return made;
}

function placeIn(cell, event) {
  const { grid } = cell.about;
  const x = event.offsetX / cell.scale + grid.box[1], y = event.offsetY / cell.scale + grid.box[0];
  return [clamp(Math.round((x / grid.width) * FULL), 0, FULL), clamp(Math.round((y / grid.height) * FULL), 0, FULL)];
}

function moved(view, cell, event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (step) {
    const far = event.shiftKey ? FULL / 100 : FULL / cell.about.n_win;
    view.at = (view.hover ?? view.at).map((v, n) => clamp(Math.round(v + step[n] * far), 0, FULL));
    view.hover = null;
    plan(view);
    view.live.textContent = tr("Query at {x} % across, {y} % down. {spoken}",
      { x: Math.round(view.at[0] / 100), y: Math.round(view.at[1] / 100), spoken: spoken(view, cell) });
  } else if (event.key === "Enter" || event.key === " ") keepQuery(view);
  else return;
  event.preventDefault(); event.stopPropagation();
}

function spoken(view, cell) {
  if (!cell.routes) return cell.lines.map((line) => line.textContent).join(" ");
  const { window } = tokenAt(cell.about.grid, view.at);
  if (cell.about.reach?.length) return tr("{title}: window {window}, {reach}.", { title: cell.about.title, window, reach: reachWords(cell.about.reach) });
  return tr("{title}: window {window} is routed to {windows}.",
    { title: cell.about.title, window, windows: chosen(view, cell, window).join(tr(", ")) });
}

function keepQuery(view) { view.tell("place", view.at); plan(view); }

function plan(view) {
  if (view.frame) return;
  view.frame = requestAnimationFrame(() => { view.frame = null; paint(view); });
}

const chosen = (view, cell, window) => view.data[cell.routes].subarray(window * cell.about.topk, (window + 1) * cell.about.topk);

function areaOf(view, cell, at, scale) {
  const { grid } = cell.about, path = new Path2D();
  for (const w of chosen(view, cell, tokenAt(grid, at).window)) { const r = windowRect(grid, w, scale); path.rect(r.x, r.y, r.w, r.h); }
  return path;
}

function paint(view) {
  const { data, picture, root } = view;
  if (!data || !picture || !root.clientWidth) return;
  const at = view.hover ?? view.at, started = performance.now();
  for (const cell of view.cells) {
    if (!cell.figure.dataset.seen) continue;
    const { grid } = cell.about, box = extent(grid), width = cell.figure.clientWidth;
    cell.scale = width / box.width;
    const height = box.height * cell.scale, g = fit(cell.canvas, width, height);
    if (!cell.base) cell.base = baseOf(view, cell, width, height);
    g.drawImage(cell.base, 0, 0, width, height);
    if (cell === view.overlap) drawOverlap(view, cell, g, at);
    else if (cell.routes) drawRoutes(view, cell, g, at);
    const x = ((at[0] / FULL) * grid.width - grid.box[1]) * cell.scale, y = ((at[1] / FULL) * grid.height - grid.box[0]) * cell.scale;
    star(g, x, y, clamp(width / 26, 5, 9), cell.about.role === "b" ? data.roles.b : data.roles.a);
  }
  if (data.pair) readPair(view, at);
  root.dataset.ready = data.version; root.dataset.at = at.join(","); root.dataset.painted = performance.now() - started;
}

// The picture and its grid under what moves: drawn once per size.
function baseOf(view, cell, width, height) {
  const ratio = window.devicePixelRatio || 1, canvas = document.createElement("canvas");
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  const g = canvas.getContext("2d"), one = { data: { grid: cell.about.grid }, picture: view.picture };
  g.scale(ratio, ratio);
  drawBase(one, g, cell.scale);
  if (cell.routes) drawGrid(one, g, cell.scale);
  if (cell === view.change) drawChange(view, cell, g);
  return canvas;
}

function drawRoutes(view, cell, g, at) {
  const { grid, role } = cell.about, colour = view.data.roles[role ?? "a"], path = areaOf(view, cell, at, cell.scale);
  const shares = view.data[cell.routes.replace("r_idx", "share")];
  if (shares) {
    // Nothing is chosen there: the stronger the tint, the more attention.
    const n = grid.n_win ** 2, from = tokenAt(grid, at).window * n, most = Math.max(...shares.subarray(from, from + n), 1e-9);
    for (let w = 0; w < n; w++) {
      if (!shares[from + w]) continue;
      const r = windowRect(grid, w, cell.scale);
      g.fillStyle = hex(colour, 0.08 + 0.62 * shares[from + w] / most); g.fillRect(r.x, r.y, r.w, r.h);
    }
  } else { g.fillStyle = hex(colour, 0.42); g.fill(path); }
  if (!shares) {
    g.strokeStyle = "rgba(0,0,0,.75)"; g.lineWidth = 3; g.stroke(path);
    g.strokeStyle = colour; g.lineWidth = 1.5; g.stroke(path);
  }
  const own = windowRect(grid, tokenAt(grid, at).window, cell.scale);
  g.strokeStyle = "#111"; g.lineWidth = 4; g.strokeRect(own.x + 1.5, own.y + 1.5, own.w - 3, own.h - 3);
  g.strokeStyle = "#fff"; g.lineWidth = 2; g.strokeRect(own.x + 1.5, own.y + 1.5, own.w - 3, own.h - 3);
}

// Grids may lie on the picture at different places: each path is moved from its own corner to that of A's.
function drawOverlap(view, cell, g, at) {
  const [a, b] = view.cells, { roles } = view.data, [ga, gb] = [a.about.grid, b.about.grid];
  const scale = cell.scale * (ga.width / gb.width), by = new DOMMatrix().translate(
    gb.box[1] * scale - ga.box[1] * cell.scale, gb.box[0] * scale - ga.box[0] * cell.scale);
  const inA = areaOf(view, a, at, cell.scale), inB = new Path2D();
  inB.addPath(areaOf(view, b, at, scale), by);
  g.fillStyle = hex(roles.a, 0.72); g.fill(inA);
  g.fillStyle = hex(roles.b, 0.72); g.fill(inB);
  g.save(); g.clip(inA); g.fillStyle = BOTH; g.globalAlpha = 0.95; g.fill(inB); g.restore();
}

function drawChange(view, cell, g) {
  const { data } = view, { grid } = cell.about, [h, w] = data.map, top = Math.max(...data.difference, 1e-9);
  const small = document.createElement("canvas");
  small.width = w; small.height = h;
  const s = small.getContext("2d"), pixels = s.createImageData(w, h);
  for (let n = 0; n < h * w; n++) pixels.data.set([...cividis(data.difference[n] / top), 225], 4 * n);
  s.putImageData(pixels, 0, 0);
  g.imageSmoothingEnabled = false;
  g.drawImage(small, 0, 0, w * grid.stride[1] * cell.scale, h * grid.stride[0] * cell.scale);
  const mean = data.difference.reduce((x, y) => x + y, 0) / data.difference.length;
  cell.lines[0].textContent = tr("mean {share} of the outputs' size", { share: percent(mean) });
  cell.top = top;
}

function readPair(view, at) {
  const { data } = view, [across, down] = data.places;
  const n = clamp(Math.floor((at[1] / FULL) * down), 0, down - 1) * across + clamp(Math.floor((at[0] / FULL) * across), 0, across - 1);
  const [both, a, b] = [data.both[n], data.only_a[n], data.only_b[n]], all = both + a + b;
  const { lines } = view.overlap;
  lines[0].replaceChildren(key(BOTH, tr("both {share}", { share: percent(both) })),
    key(data.roles.a, tr("only A {share}", { share: percent(a) })), key(data.roles.b, tr("only B {share}", { share: percent(b) })));
  lines[1].textContent = all > 0 ? tr("of the picture; {share} of what either sees", { share: percent(both / all) })
    : tr("neither sees the picture");
  if (view.change) {
    const [h, w] = data.map, { row, col } = tokenAt(data.cells[0].grid, at);
    const here = percent(data.difference[Math.min(row, h - 1) * w + Math.min(col, w - 1)]);
    view.change.lines[1].textContent = tr("here {here}; yellow is {top}", { here, top: percent(view.change.top ?? 0) });
  }
}

const key = (colour, text) => el("span", { class: "key", style: `--key:${colour}` }, text);
