// All layers at once, a small map of how often each window is chosen; a radio group: click, or Tab to it and use the arrows.

const rails = new WeakMap();

export default function mount({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".rail");
  const message = unpack(data), view = rails.get(root) ?? {};
  rails.set(root, view);
  view.tell = setTriggerValue;
  if (view.version === message.version) return undefined;
  const hadFocus = root.contains(root.getRootNode().activeElement);
  view.version = message.version;
  root.setAttribute("role", "radiogroup");
  root.setAttribute("aria-label", tr("Layers"));
  root.replaceChildren(...message.layers.map((layer, at) => {
    const canvas = el("canvas", { "aria-hidden": "true" }), on = layer.name === message.chosen;
    const counts = message[`in_degree_${at}`], most = Math.max(...counts), unread = counts.filter((n) => !n).length;
    const button = el("button", { type: "button", role: "radio", "aria-checked": String(on), tabindex: on ? 0 : -1,
      "data-layer": layer.name,
      title: layer.reach.length
        ? tr("{name}: {h}×{w} tokens, {reach}. A window gets at most {most} of all attention.",
          { ...layer, reach: reachWords(layer.reach), most: percent(most) })
        : tr("{name}: {h}×{w} tokens. A window is chosen at most {most} times; {unread} are never chosen.",
          { ...layer, most, unread }) },
    canvas, el("b", {}, layer.name),
    el("span", {}, layer.reach.length ? reachWords(layer.reach) : `${layer.n_win}×${layer.n_win}, topk ${layer.topk}`),
    ...(layer.collapsed ? [el("i", { title: tr("Every window is routed to much the same windows: it hardly matters where one points.") }, tr("collapsed"))] : []));
    paintThumbnail(canvas, layer, counts, most);
    button.addEventListener("click", () => view.tell("picked", layer.name));
    button.addEventListener("keydown", (event) => stepRadio(event, [...root.querySelectorAll("button")], at));
    return button;
  }));
  const routed = message.layers.map((_, at) => at).filter((at) => message.alike[at * message.layers.length + at] === 1);
  if (routed.length > 1) root.prepend(alikeness(message, routed));
  const chosen = root.querySelector("[aria-checked=true]");
  if (chosen) {
    if (hadFocus) chosen.focus();
    // Not scrollIntoView, which would move the page too.
    root.scrollLeft = chosen.offsetLeft - root.clientWidth / 2 + chosen.clientWidth / 2;
  }
  root.dataset.ready = message.version;
  return undefined;
}

// A square of cells, brighter the more two layers are routed to the same places; the chosen layer's row is framed.
function alikeness(message, routed) {
  const n = routed.length, cell = clamp(Math.floor(46 / n), 3, 16), canvas = el("canvas", { "aria-hidden": "true" });
  const share = (row, column) => message.alike[routed[row] * message.layers.length + routed[column]];
  const name = (at) => message.layers[routed[at]].name, percent = (row, column) => Math.round(100 * share(row, column));
  const pair = (row, column) => !Number.isFinite(share(row, column)) ?
    tr("{a} and {b}: neither is routed to the picture", { a: name(row), b: name(column) }) : tr("{a} and {b}: {share} % of the area that either is routed to is shared", {
    a: name(row), b: name(column), share: percent(row, column) });
  const about = routed.slice(1).map((_, at) => pair(at, at + 1)).join("; ");
  const figure = el("figure", { role: "img", "aria-label": about, title: about }, canvas,
    el("figcaption", {}, tr("Do layers choose alike?")));
  const g = fit(canvas, n * cell, n * cell);
  for (let row = 0; row < n; row += 1) {
    for (let column = 0; column < n; column += 1) {
      g.fillStyle = row === column || !Number.isFinite(share(row, column)) ? "#8a8f98" : css(cividis(share(row, column)));
      g.fillRect(column * cell, row * cell, cell - (cell > 4), cell - (cell > 4));
    }
  }
  const on = routed.findIndex((at) => message.layers[at].name === message.chosen);
  if (on >= 0) {
    g.strokeStyle = "#e69f00";
    g.lineWidth = 2;
    g.strokeRect(1, on * cell, n * cell - 2, cell);
  }
  canvas.addEventListener("pointermove", (event) => {
    const at = [event.offsetY, event.offsetX].map((pixels) => clamp(Math.floor(pixels / cell), 0, n - 1));
    figure.title = at[0] === at[1] ? name(at[0]) : pair(...at);
  });
  return figure;
}

function paintThumbnail(canvas, layer, counts, most) {
  const height = 46, width = clamp(height / layer.aspect, 28, 80), g = fit(canvas, width, height);
  const w = width / layer.n_win, h = height / layer.n_win;
  counts.forEach((n, window) => {
    const x = (window % layer.n_win) * w, y = Math.floor(window / layer.n_win) * h;
    g.fillStyle = css(cividis(most ? n / most : 0));
    g.fillRect(x, y, w + 0.5, h + 0.5);
    if (!n) hatch(g, x, y, w, h, "rgba(255,255,255,.6)");
  });
}
