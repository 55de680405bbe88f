// Shared by every view: reading a message, colours, geometry, canvases. Numbers come from Python; nothing is recomputed.

const KINDS = { f4: Float32Array, i4: Int32Array, u1: Uint8Array };
let words = {}; // English -> another language; a page in that language sets it, see viewer.script
const FULL = 10000; // a place is (x, y) in ten-thousandths of the picture

function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const start = bytes.byteOffset + 4 + length;
  const arrays = {};
  for (const [name, { kind, shape, at }] of Object.entries(header.arrays)) {
    const count = shape.reduce((a, b) => a * b, 1);
    // A copy is aligned whatever the message's own offset is.
    const copy = bytes.buffer.slice(start + at, start + at + count * KINDS[kind].BYTES_PER_ELEMENT);
    arrays[name] = new KINDS[kind](copy);
  }
  const picture = new Blob([bytes.buffer.slice(start, start + header.picture)]);
  return { ...header, ...arrays, picture };
}

// A text in the language of the page; values stand in it as {name}.
function tr(text, values = {}) { return (words[text] ?? text).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all); }

// What is written in the skeleton: data-tr names what is to be translated of an element, "text" or attributes.
function translate(root) {
  for (const element of root.querySelectorAll("[data-tr]")) {
    for (const what of element.dataset.tr.split(" ")) {
      if (what === "text") element.textContent = tr(element.textContent);
      else element.setAttribute(what, tr(element.getAttribute(what)));
    }
    element.removeAttribute("data-tr");
  }
}

// Cividis (Nuñez, Anderton, Renslow 2018) at nine places; monotone in lightness and safe for colour-blind eyes.
const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [254, 232, 56]];

function cividis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[low].map((c, n) => Math.round(c + (CIVIDIS[low + 1][n] - c) * (at - low)));
}

const css = (rgb, alpha = 1) => `rgba(${rgb.join(",")},${alpha})`;
const hex = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, "0");
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

// Grid ------------------------------------------------------------------------------------------------------

function tokenAt(grid, place) {
  const [top, left, bottom, right] = grid.box;
  const y = clamp((place[1] / FULL) * grid.height, top, bottom - grid.stride[0] / 2);
  const x = clamp((place[0] / FULL) * grid.width, left, right - grid.stride[1] / 2);
  const row = Math.floor((y - top) / grid.stride[0]), col = Math.floor((x - left) / grid.stride[1]);
  const window = Math.floor(row / grid.window_h) * grid.n_win + Math.floor(col / grid.window_w);
  return { row, col, window };
}

function placeOfToken(grid, row, col) {
  const x = (grid.box[1] + (col + 0.5) * grid.stride[1]) / grid.width;
  const y = (grid.box[0] + (row + 0.5) * grid.stride[0]) / grid.height;
  return [Math.round(x * FULL), Math.round(y * FULL)];
}

// Rectangle of a window on a canvas whose scale is pixels of the canvas per pixel of the grid.
function windowRect(grid, window, scale) {
  const w = grid.window_w * grid.stride[1] * scale, h = grid.window_h * grid.stride[0] * scale;
  const j = Math.floor(window / grid.n_win), i = window % grid.n_win;
  return { x: i * w, y: j * h, w, h };
}

// The picture and its padding: what the canvas covers. Letterboxed grids may begin above or left of the picture.
function extent(grid) {
  const [top, left, bottom, right] = grid.box;
  return { width: right - left, height: bottom - top,
    photo: { x: -left, y: -top, w: grid.width, h: grid.height } };
}

// Pictures that came by themselves, by their photo's digest; the last few, and who waits for one that is not here yet.
// Every component has a module of its own, so the page is the only place that they share.
function pictureCache() {
  globalThis.routescopePictures ??= { pictures: new Map(), waiting: [] };
  return globalThis.routescopePictures;
}

function putPicture(photo, blob) {
  const cache = pictureCache();
  cache.pictures.delete(photo); cache.pictures.set(photo, blob);
  while (cache.pictures.size > 4) cache.pictures.delete(cache.pictures.keys().next().value);
  for (const one of cache.waiting.filter((w) => w.photo === photo)) one.take(blob);
  cache.waiting = cache.waiting.filter((w) => w.photo !== photo);
}

function pictureOf(photo) {
  const cache = pictureCache(), blob = cache.pictures.get(photo);
  return blob ? Promise.resolve(blob) : new Promise((take) => { cache.waiting.push({ photo, take }); });
}

// The picture of a view's message, or the one that came by itself, decoded once. One that the next picture has overtaken
// is dropped: it must never lie under the other's numbers.
function withPicture(view, paint) {
  const { photo, picture } = view.data;
  if (view.photo === photo) { if (view.picture) paint(view); return; }
  view.photo = photo; view.picture = null;
  const smaller = view.across ? { resizeWidth: view.across, resizeQuality: "high" } : {};
  (picture.size ? Promise.resolve(picture) : pictureOf(photo)).then((blob) => createImageBitmap(blob, smaller)).then((decoded) => {
    if (view.photo !== photo) return;
    view.picture = decoded;
    paint(view);
  });
}

// Canvas ----------------------------------------------------------------------------------------------------

function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return g;
}

function hatch(g, x, y, w, h, colour) {
  if (w < 0.5 || h < 0.5) return;
  g.save();
  g.beginPath(); g.rect(x, y, w, h); g.clip();
  g.strokeStyle = colour; g.lineWidth = 1.5;
  g.beginPath();
  for (let d = -h; d < w; d += 8) { g.moveTo(x + d, y + h); g.lineTo(x + d + h, y); }
  g.stroke();
  g.restore();
}

// What of the canvas is not picture: right and below, and for letterboxed grids above and left.
function paddingRects(grid, scale) {
  const { width, height, photo } = extent(grid);
  const right = photo.x + photo.w, below = photo.y + photo.h;
  return [[0, 0, width, photo.y], [0, photo.y, photo.x, photo.h], [right, photo.y, width - right, photo.h],
    [0, below, width, height - below]].map((r) => r.map((v) => v * scale));
}

function colourBar(g, x, y, w, low, high, ink, write = number) {
  for (let n = 0; n < w; n++) { g.fillStyle = css(cividis(n / (w - 1))); g.fillRect(x + n, y, 1.5, 8); }
  g.fillStyle = ink; g.font = "12px sans-serif"; g.textBaseline = "top";
  g.textAlign = "left"; g.fillText(write(low), x, y + 11);
  g.textAlign = "right"; g.fillText(write(high), x + w, y + 11);
}

// What a layer that does not route attends to; nothing of one that routes.
function reachWords([kind, a, b] = []) {
  if (kind === "whole") return tr("full attention");
  if (kind === "stripes") return tr("attention within {n} stripes", { n: a });
  if (kind === "shifted") return tr("attention within shifted windows of {h}×{w} tokens", { h: a, w: b });
  return kind ? tr("attention within windows of {h}×{w} tokens", { h: a, w: b }) : "";
}

// Text ------------------------------------------------------------------------------------------------------

const number = (x) => (!Number.isFinite(x) ? (x > 0 ? "∞" : x < 0 ? "−∞" : "–")
  : (x !== 0 && Math.abs(x) < 0.001 ? x.toExponential(1) : Number(x.toPrecision(3)).toString()).replace("-", "−"));
// 0 % and 100 % are said of exact ones only.
function percent(x) {
  const n = x > 0 && x < 0.0005 ? "<0.1" : x < 1 && x >= 0.995 ? Math.min(99.9, 100 * x).toFixed(1)
    : (100 * x).toFixed(100 * x < 10 ? 1 : 0);
  return tr("{n} %", { n });
}

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children); // strings become text nodes: nothing here is parsed as HTML
  return node;
}

// Arrow keys in a radio group: the next button is chosen and takes the focus.
function stepRadio(event, buttons, at) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault(); event.stopPropagation();
  const next = buttons[(at + step + buttons.length) % buttons.length];
  next.focus(); next.click();
}

function ink(node) {
  const style = getComputedStyle(node);
  return { text: style.color, faint: style.getPropertyValue("--faint").trim() || "#8a8f98" };
}

function download(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
