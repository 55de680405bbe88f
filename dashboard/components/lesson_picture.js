// The lesson's picture: point at a window and see where it is routed, or mark the windows that one expects.

const views = new WeakMap();

export default function mount({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".lesson-picture");
  let view = views.get(root);
  if (!view) { view = build(root); views.set(root, view); }
  view.tell = setTriggerValue;
  const message = unpack(data);
  if (view.data && view.data.version === message.version) { plan(view); return undefined; }
  const before = view.data;
  // Of a picture that is the same but for its windows or its answer, what was pointed at and marked is kept.
  const same = before && before.photo === message.photo && before.mode === message.mode && before.query === message.query
    && before.grid.n_win === message.grid.n_win;
  if (!same) { view.at = message.query; view.hover = null; view.marked = new Set(message.marked ?? []); }
  if (message.answered) view.marked = new Set(message.marked);
  view.data = message; view.base = null;
  for (const [role, colour] of Object.entries(message.roles)) root.style.setProperty(`--role-${role}`, colour);
  view.caption.textContent = message.caption;
  view.show.hidden = message.mode !== "guess" || message.answered;
  view.canvas.setAttribute("aria-label", message.mode === "look"
    ? tr("Picture with its windows. Arrow keys move the query window.")
    : tr("Picture with its windows. Arrow keys move, Enter or Space marks a window."));
  withPicture(view, render);
  return undefined;
}

function build(root) {
  const canvas = el("canvas", { tabindex: 0, role: "application" });
  const readout = el("p", { class: "readout" }), live = el("p", { class: "hidden", "aria-live": "polite" });
  const caption = el("p", { class: "caption" }), show = el("button", { type: "button", class: "show" });
  const view = { root, canvas, readout, live, caption, show, at: 0, hover: null, marked: new Set(), base: null,
    tint: "route", reverse: false, arrows: false };
  root.append(canvas, readout, show, caption, live);
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") { view.hover = windowAt(view, event); plan(view); } });
  canvas.addEventListener("pointerleave", () => { view.hover = null; plan(view); });
  canvas.addEventListener("click", (event) => { view.at = windowAt(view, event); acted(view); });
  canvas.addEventListener("keydown", (event) => key(view, event));
  show.addEventListener("click", () => view.tell("guess", [...view.marked]));
  new ResizeObserver(() => { view.base = null; plan(view); }).observe(root);
  return view;
}

function windowAt(view, event) {
  const { grid } = view.data, w = grid.window_w * grid.stride[1] * view.scale, h = grid.window_h * grid.stride[0] * view.scale;
  const i = clamp(Math.floor(event.offsetX / w), 0, grid.n_win - 1), j = clamp(Math.floor(event.offsetY / h), 0, grid.n_win - 1);
  return j * grid.n_win + i;
}

function key(view, event) {
  const { grid } = view.data, step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (step) {
    const j = Math.floor(view.at / grid.n_win) + step[0], i = (view.at % grid.n_win) + step[1];
    view.at = clamp(j, 0, grid.n_win - 1) * grid.n_win + clamp(i, 0, grid.n_win - 1);
    view.hover = null; view.keys = true;
    render(view);
    view.live.textContent = view.data.mode === "look" ? view.readout.textContent : spokenCell(view);
  } else if (event.key === "Enter" || event.key === " ") acted(view);
  else return;
  event.preventDefault(); event.stopPropagation();
}

// A click or Enter: the query is kept, or the window marked or unmarked, as long as there are marks left.
function acted(view) {
  const { data, marked, at } = view;
  if (data.mode === "guess" && !data.answered) {
    if (marked.has(at)) marked.delete(at);
    else if (marked.size < data.topk) marked.add(at);
  }
  render(view);
  view.live.textContent = data.mode === "look" ? view.readout.textContent : `${spokenCell(view)} ${view.readout.textContent}`;
}

function spokenCell(view) {
  const { n_win } = view.data.grid, values = { row: Math.floor(view.at / n_win), column: view.at % n_win };
  return view.marked.has(view.at) ? tr("Row {row}, column {column}: marked.", values) : tr("Row {row}, column {column}.", values);
}

function plan(view) {
  if (view.frame) return;
  view.frame = requestAnimationFrame(() => { view.frame = null; render(view); });
}

function render(view) {
  const { data, canvas, root } = view;
  if (!data || !view.picture || !root.clientWidth) return;
  // How much of the window's height it may take is said by the style of the place that it stands in.
  const share = Number(getComputedStyle(root).getPropertyValue("--lesson-tallest")) || 0.5;
  const box = extent(data.grid), tallest = Math.max(160, window.innerHeight * share);
  view.scale = Math.min(root.clientWidth / box.width, tallest / box.height);
  const width = box.width * view.scale, height = box.height * view.scale, g = fit(canvas, width, height);
  if (!view.base) {
    const ratio = window.devicePixelRatio || 1;
    view.base = document.createElement("canvas");
    view.base.width = Math.round(width * ratio); view.base.height = Math.round(height * ratio);
    const b = view.base.getContext("2d");
    b.scale(ratio, ratio); drawBase(view, b, view.scale); drawGrid(view, b, view.scale);
  }
  g.drawImage(view.base, 0, 0, width, height);
  if (data.mode === "look") look(view, g); else guess(view, g);
  root.dataset.ready = data.version; root.dataset.window = view.hover ?? view.at; root.dataset.marked = [...view.marked].join(",");
}

function look(view, g) {
  const { data, readout } = view, window = view.hover ?? view.at, own = windowRect(data.grid, window, view.scale);
  const query = { role: "a", window, x: (own.x + own.w / 2) / view.scale, y: (own.y + own.h / 2) / view.scale };
  drawWindows(view, g, view.scale, query);
  drawMarks(view, g, view.scale, query);
  if (!data.routed) {
    const reached = related(view, window).length;
    readout.textContent = tr("Window {window} attends to {n} of {all} windows: the stronger the tint, the more.",
      { window, n: reached, all: data.grid.n_win ** 2 });
    return;
  }
  const list = Array.from(data.r_idx.subarray(window * data.topk, (window + 1) * data.topk));
  const more = list.length > 8 ? " …" : "";
  readout.textContent = tr("Window {window} is routed to {list}.", { window, list: list.slice(0, 8).join(", ") + more });
}

function guess(view, g) {
  const { data, marked, readout, show } = view, own = windowRect(data.grid, data.query, view.scale);
  const answer = Array.from(data.answer), size = clamp(Math.min(own.w, own.h) * 0.3, 12, 30);
  for (const w of answer) {
    const r = windowRect(data.grid, w, view.scale);
    g.fillStyle = hex(data.roles.a, 0.45); g.fillRect(r.x, r.y, r.w, r.h);
    frame(g, r, data.roles.a, 2.25);
  }
  for (const w of marked) {
    const r = inset(windowRect(data.grid, w, view.scale), 5);
    g.setLineDash([9, 5]); frame(g, r, data.roles.b, 3); g.setLineDash([]);
    sign(g, r, data.answered ? (answer.includes(w) ? "✓" : "✗") : "?", size, data.roles.b);
  }
  answer.forEach((w, n) => badge(g, windowRect(data.grid, w, view.scale), n + 1, Math.min(size, 18), data.roles.a));
  frame(g, own, "#ffffff", 3);
  star(g, own.x + own.w / 2, own.y + own.h / 2, clamp(Math.min(own.w, own.h) * 0.2, 7, 16), data.roles.a);
  const at = view.hover ?? (view.keys ? view.at : null);
  if (at !== null && !data.answered) { const r = windowRect(data.grid, at, view.scale); g.fillStyle = "rgba(255,255,255,.22)"; g.fillRect(r.x, r.y, r.w, r.h); frame(g, r, "#ffffff", 1.5); }
  readout.textContent = data.answered
    ? tr("Orange and numbered: where the window with the star is routed. Dashed: your marks, ✓ right, ✗ wrong.")
    : tr("Marked {n} of {k}.", { n: marked.size, k: data.topk });
  show.textContent = tr("Show the answer");
  show.disabled = marked.size !== data.topk;
}

const inset = (r, by) => ({ x: r.x + by, y: r.y + by, w: r.w - 2 * by, h: r.h - 2 * by });

// In the corner away from the rank's.
function sign(g, r, text, size, colour) {
  const x = r.x + r.w - size - 3, y = r.y + r.h - size - 3;
  g.fillStyle = "#111"; g.fillRect(x - 1, y - 1, size + 2, size + 2);
  g.fillStyle = colour; g.fillRect(x, y, size, size);
  g.fillStyle = "#111"; g.font = `700 ${size * 0.8}px sans-serif`; g.textAlign = "center"; g.textBaseline = "middle";
  g.fillText(text, x + size / 2, y + size / 2 + 1);
}
