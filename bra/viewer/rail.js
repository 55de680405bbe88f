// All layers at once, a small map of how often each window is chosen; a radio group: click, or Tab to it and use the arrows.

const rails = new WeakMap();

export default function mount({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".rail");
  const message = unpack(data), view = rails.get(root) ?? {};
  rails.set(root, view);
  view.tell = setTriggerValue;
  if (view.version === message.version) return undefined;
  const held = root.contains(root.getRootNode().activeElement);
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
    button.addEventListener("keydown", (event) => stepRadio(event, [...root.children], at));
    return button;
  }));
  const chosen = root.querySelector("[aria-checked=true]");
  if (chosen) {
    if (held) chosen.focus();
    // Not scrollIntoView, which would move the page too.
    root.scrollLeft = chosen.offsetLeft - root.clientWidth / 2 + chosen.clientWidth / 2;
  }
  root.dataset.ready = message.version;
  return undefined;
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
