// Beside the stage: every window's affinity to the query, ranked; what was chosen, what was rejected, and by how little.

// In the reverse view a window is chosen where its chooser's row says so, which is no single line in the ranking.
function ranked(view, query) {
  const { data } = view, n = data.grid.n_win ** 2, list = related(view, query), picked = new Set(list.map((r) => r.window));
  const value = (w) => (view.reverse ? data.affinity[w * n + query] : data.affinity[query * n + w]);
  const bars = Array.from({ length: n }, (_, w) => ({ window: w, value: value(w), chosen: picked.has(w) }));
  if (view.reverse) return bars.sort((x, y) => y.value - x.value);
  // The module's own order for the chosen: ties are broken there, not here.
  const order = new Map(list.map((r) => [r.window, r.rank]));
  return bars.sort((x, y) => (order.get(x.window) ?? n + 1) - (order.get(y.window) ?? n + 1) || y.value - x.value);
}

// Whether the last chosen and the first rejected window differ by less than 1 % of the row's spread, or by no more than
// float32 rounds away.
function tossUp(data, query) {
  const n = data.grid.n_win ** 2, row = Array.from(data.affinity.slice(query * n, (query + 1) * n)).filter(Number.isFinite);
  const spread = Math.max(...row) - Math.min(...row), largest = Math.max(...row.map(Math.abs));
  return data.margin[query] <= Math.max(0.01 * spread, 8 * 2 ** -23 * largest);
}

function rankLayout(bars, width, height) {
  const finite = bars.map((b) => b.value).filter(Number.isFinite);
  const high = Math.max(...finite, 0), low = Math.min(...finite, 0), span = high - low || 1;
  const top = 22, left = 66, bottom = height - 26;     // above it, the words about the margin
  const y = (v) => top + ((high - v) / span) * (bottom - top);
  const step = (width - left - 4) / bars.length;
  return { high, low, y, step, left, bottom, top };
}

function drawRank(view, canvas, query, colour) {
  const width = canvas.parentElement.clientWidth, height = 168;
  const g = fit(canvas, width, height), tone = ink(canvas), bars = ranked(view, query).filter((b) => view.data.routed || b.chosen);
  const at = rankLayout(bars, width, height), k = view.data.topk;
  bars.forEach(({ window, value, chosen }, n) => {
    if (!Number.isFinite(value)) return; // masked padding has no affinity
    const x = at.left + n * at.step, y = at.y(value), w = Math.max(at.step - (at.step > 4 ? 1 : 0), 0.75);
    g.fillStyle = chosen ? colour : view.data.roles.rejected;
    g.globalAlpha = chosen || window === view.pointed ? 1 : 0.9;
    g.fillRect(x, Math.min(y, at.y(0)), w, Math.max(Math.abs(at.y(0) - y), 1));
    if (chosen || window === view.pointed) {
      g.strokeStyle = tone.text; g.lineWidth = window === view.pointed ? 1.5 : 0.5;
      g.strokeRect(x, Math.min(y, at.y(0)), w, Math.max(Math.abs(at.y(0) - y), 1));
    }
    g.globalAlpha = 1;
  });
  g.strokeStyle = tone.faint; g.lineWidth = 1;
  g.beginPath(); g.moveTo(at.left, at.y(0) + 0.5); g.lineTo(width, at.y(0) + 0.5); g.stroke();
  if (k < bars.length && !view.reverse && view.data.routed) {
    const x = at.left + k * at.step - 0.5;
    g.setLineDash([4, 3]); g.strokeStyle = tone.text;
    g.beginPath(); g.moveTo(x, 4); g.lineTo(x, at.bottom); g.stroke(); g.setLineDash([]);
    g.fillStyle = tone.text; g.font = "12px sans-serif"; g.textAlign = "left"; g.textBaseline = "top";
    const margin = number(view.data.margin[query]);
    const words = tossUp(view.data, query) ? tr("a toss-up, margin {margin}", { margin })
      : tr("chosen | rejected, margin {margin}", { margin });
    const long = g.measureText(words).width;     // left of the line where there is no room at its right
    g.fillText(words, x + 5 + long <= width ? x + 5 : Math.max(0, x - 5 - long), 4);
  }
  g.fillStyle = tone.text; g.font = "12px sans-serif"; g.textAlign = "right"; g.textBaseline = "middle";
  if (at.high > 0) g.fillText(view.data.routed ? number(at.high) : percent(at.high), at.left - 5, at.y(at.high) + 4);
  if (at.low < 0) g.fillText(number(at.low), at.left - 5, at.y(at.low) - 4);
  if ((at.y(at.low) - at.y(0) > 20 || at.low === 0) && (at.y(0) - at.y(at.high) > 20 || at.high === 0)) g.fillText("0", at.left - 5, at.y(0));
  g.textBaseline = "bottom"; g.textAlign = "left"; g.fillText(tr("rank {n}", { n: 1 }), at.left, height - 4);
  g.textAlign = "right"; g.fillText(tr("rank {n}", { n: bars.length }), width - 4, height - 4);
  view.rankHit = (x) => bars[clamp(Math.floor((x - at.left) / at.step), 0, bars.length - 1)];
}

function fillRankTable(view, body, query) {
  const { data } = view, n = data.grid.n_win ** 2;
  const value = (window) => (view.reverse ? data.affinity[window * n + query] : data.affinity[query * n + window]);
  const list = related(view, query), best = Math.max(...list.map((r) => value(r.window)));
  body.replaceChildren(...list.map(({ window, rank, weight }) => el("tr", { "data-window": window },
    el("td", {}, String(rank)), el("td", {}, String(window)), ...(data.routed
      ? [el("td", {}, number(value(window))), el("td", {}, number(value(window) - best))] : []), el("td", {}, percent(weight)))));
}

// One sentence that says what the picture shows; it is the lecture's caption and the screen reader's picture.
function sentence(view, query) {
  const { data } = view, { grid } = data, w = query.window, list = related(view, w);
  const row = Math.floor(w / grid.n_win), column = w % grid.n_win, more = list.length > 8, first = list.slice(0, 8);
  const place = row * grid.window_h >= grid.h || column * grid.window_w >= grid.w
    ? tr("Window {window} (row {row}, column {column}) holds padding only. It", { window: w, row, column })
    : tr("Window {window} (row {row}, column {column})", { window: w, row, column });
  if (view.tint === "query_part") {
    const would = wouldRelate(view, w), values = { place, windows: would.slice(0, 8).join(tr(", ")) + (would.length > 8 ? ", …" : "") };
    if (!would.length) return tr("{place} would be chosen by no window. Not what the layer did: its affinities less what every query asks for alike.", { place });
    return view.reverse ? tr("{place} would be chosen by windows {windows}. Not what the layer did: its affinities less what every query asks for alike.", values)
      : tr("{place} would choose windows {windows}. Not what the layer did: its affinities less what every query asks for alike.", values);
  }
  if (!data.routed) {
    const shown = first.map((r) => tr("window {window} ({share})", { ...r, share: percent(r.weight) })).join(tr(", "));
    const values = { place, shown };
    if (!list.length) return tr("{place} is padding and attends to nothing.", { place });
    if (view.reverse) return more ? tr("{place} gets most attention from {shown}, …", values) : tr("{place} gets most attention from {shown}.", values);
    const said = more ? tr("{place} attends most to {shown}, …", values) : tr("{place} attends most to {shown}.", values);
    const beside = data.outside ? data.outside_share[w] : 0;
    return beside > 0 ? tr("{said} {share} of its attention goes to tokens that are no places of the picture, such as the class token.",
      { said, share: percent(beside) }) : said;
  }
  if (view.reverse) {
    if (!list.length) return tr("{place} is chosen by no window.", { place });
    const shown = first.map((r) => tr("{window} (as its no. {rank})", r)).join(tr(", "));
    const values = { place, n: list.length, all: grid.n_win ** 2, shown };
    return more ? tr("{place} is chosen by {n} of {all} windows: {shown}, …", values)
      : tr("{place} is chosen by {n} of {all} windows: {shown}.", values);
  }
  const shown = first.map((r) => tr("{rank}. window {window} ({share})", { ...r, share: percent(r.weight) })).join(tr(", "));
  const said = more ? tr("{place} routes to {shown}, …", { place, shown }) : tr("{place} routes to {shown}.", { place, shown });
  return tossUp(data, w) ? tr("{said} The last of these was a toss-up.", { said }) : said;
}
