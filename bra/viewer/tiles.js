// What the pinned tokens attend to: mean, maximum and every head as small pictures under one colour scale.

const tileSets = new WeakMap();

export default function mount({ parentElement, data }) {
  const root = parentElement.querySelector(".tiles");
  let view = tileSets.get(root);
  if (!view) {
    view = { root, at: null, across: 320 };
    tileSets.set(root, view);
    new ResizeObserver(() => paintTiles(view)).observe(root);
  }
  const message = unpack(data);
  if (view.data && view.data.version === message.version) { paintTiles(view); return undefined; }
  view.data = message; view.at = null;
  for (const [role, colour] of Object.entries(message.roles)) root.style.setProperty(`--role-${role}`, colour);
  layTiles(view);
  withPicture(view, paintTiles);
  return undefined;
}

function layTiles(view) {
  const { data, root } = view;
  view.tiles = [];
  const rows = data.queries.map((query, q) => {
    const what = query.whole ? tr("mean over the tokens of window {window}", query)
      : tr("token {token} of window {window} (the star; row {row}, column {col})", query);
    const row = el("div", { class: "row" });
    data.names.forEach((given, n) => {
      const name = n === 0 ? tr("mean") : n === 1 ? tr("max") : tr("head {n}", { n: n - 1 });
      const canvas = el("canvas", { "aria-label": tr("{name}: attention of {what}", { name, what }) }), value = el("span");
      canvas.addEventListener("pointermove", (event) => { view.at = tileToken(view, canvas, event); paintTiles(view); });
      canvas.addEventListener("pointerleave", () => { view.at = null; paintTiles(view); });
      row.append(el("figure", {}, canvas, el("figcaption", {}, el("span", {}, name), value)));
      view.tiles.push({ canvas, value, query, start: (q * data.names.length + n) * data.grid.H * data.grid.W });
    });
    const values = { windows: query.routed.join(tr(", ")), leak: percent(query.leak) };
    const head = el("div", { style: `--role: var(--role-${query.role})` },
      el("h3", {}, tr("{role} attends to: {what}", { role: query.role.toUpperCase(), what })),
      el("p", {}, query.leak > 0.0005
        ? tr("Routed windows {windows}; all else is 0 because it was not chosen. {leak} of it falls on padding.", values)
        : tr("Routed windows {windows}; all else is 0 because it was not chosen.", values)));
    return el("div", {}, head, row);
  });
  view.bar = el("canvas", { "aria-label": tr("Colour scale from 0 to {top}", { top: percent(data.top) }) });
  root.replaceChildren(...rows, view.bar, el("p", { class: "caption" }, 
    tr("One colour scale for all pictures, by square root, so that small shares show. {caption}", data)));
}

function tileToken(view, canvas, event) {
  const { grid } = view.data, scale = canvas.clientWidth / extent(grid).width;
  return { row: clamp(Math.floor(event.offsetY / scale / grid.stride[0]), 0, grid.H - 1),
    col: clamp(Math.floor(event.offsetX / scale / grid.stride[1]), 0, grid.W - 1) };
}

function heat(view, tile) {
  const { data } = view, { H, W } = data.grid;
  const canvas = document.createElement("canvas");
  canvas.width = W; canvas.height = H;
  const g = canvas.getContext("2d"), pixels = g.createImageData(W, H);
  for (let n = 0; n < H * W; n++) {
    const v = data.maps[tile.start + n];
    if (v > 0) pixels.data.set([...cividis(Math.sqrt(v / data.top)), 235], 4 * n);
  }
  g.putImageData(pixels, 0, 0);
  return canvas;
}

function paintTiles(view) {
  const { data, picture } = view;
  if (!data || !picture || !view.root.clientWidth) return;
  const { grid } = data, box = extent(grid);
  for (const tile of view.tiles) {
    const width = tile.canvas.parentElement.clientWidth, scale = width / box.width;
    const g = fit(tile.canvas, width, box.height * scale);
    g.fillStyle = "#70757d"; g.fillRect(0, 0, width, box.height * scale);
    g.globalAlpha = 0.45;
    g.drawImage(picture, box.photo.x * scale, box.photo.y * scale, box.photo.w * scale, box.photo.h * scale);
    g.globalAlpha = 1;
    for (const rect of paddingRects(grid, scale)) hatch(g, ...rect, "#d8dbe0");
    tile.heat ??= heat(view, tile);
    g.imageSmoothingEnabled = false;
    g.drawImage(tile.heat, 0, 0, width, box.height * scale);
    const w = windowRect(grid, tile.query.window, scale);
    g.strokeStyle = "#111"; g.lineWidth = 3; g.strokeRect(w.x + 1, w.y + 1, w.w - 2, w.h - 2);
    g.strokeStyle = data.roles[tile.query.role]; g.lineWidth = 2; g.strokeRect(w.x + 1, w.y + 1, w.w - 2, w.h - 2);
    if (!tile.query.whole) {
      const [x, y] = [tile.query.col * grid.stride[1] * scale, tile.query.row * grid.stride[0] * scale];
      g.strokeStyle = "#111"; g.lineWidth = 3; g.strokeRect(x - 1, y - 1, grid.stride[1] * scale + 2, grid.stride[0] * scale + 2);
      g.strokeStyle = "#fff"; g.lineWidth = 1; g.strokeRect(x - 1, y - 1, grid.stride[1] * scale + 2, grid.stride[0] * scale + 2);
    }
    tile.value.textContent = "";
    if (!view.at) continue;
    const x = view.at.col * grid.stride[1] * scale, y = view.at.row * grid.stride[0] * scale;
    g.strokeStyle = "#fff"; g.lineWidth = 1.5;
    g.strokeRect(x - 1, y - 1, grid.stride[1] * scale + 2, grid.stride[0] * scale + 2);
    tile.value.textContent = percent(data.maps[tile.start + view.at.row * grid.W + view.at.col]);
  }
  const g = fit(view.bar, 240, 26), tone = ink(view.bar);
  colourBar(g, 0, 0, 220, 0, data.top * 100, tone.text, (x) => tr("{n} %", { n: number(x) }));
  g.textAlign = "center"; g.fillText(percent(data.top / 4), 110, 11);
  view.root.dataset.ready = data.version;
}
