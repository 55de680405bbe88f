// The stage's picture: photograph, padding, grid, and for each query its windows in its colour, as in the paper's Figure 1.

function drawBase(view, g, scale) {
  const { grid } = view.data, { width, height, photo } = extent(grid);
  g.fillStyle = "#70757d"; g.fillRect(0, 0, width * scale, height * scale);
  g.imageSmoothingQuality = "high";
  g.drawImage(view.picture, photo.x * scale, photo.y * scale, photo.w * scale, photo.h * scale);
  for (const rect of paddingRects(grid, scale)) hatch(g, ...rect, "#d8dbe0");
}

function drawGrid(view, g, scale) {
  const { grid } = view.data, { width, height } = extent(grid);
  g.beginPath();
  for (let n = 1; n < grid.n_win; n++) {
    const x = Math.round(n * grid.window_w * grid.stride[1] * scale), y = Math.round(n * grid.window_h * grid.stride[0] * scale);
    g.moveTo(x, 0); g.lineTo(x, height * scale);
    g.moveTo(0, y); g.lineTo(width * scale, y);
  }
  g.strokeStyle = "rgba(0,0,0,.35)"; g.lineWidth = 2; g.stroke();
  g.strokeStyle = "rgba(255,255,255,.7)"; g.lineWidth = 0.75; g.stroke();
}

// The windows that belong to a query: those it chose, or in the reverse view those that chose it.
function related(view, query) {
  const { data } = view, k = data.topk, n = data.grid.n_win ** 2;
  // A layer that does not route gives a share to all that it reaches: most first, and the reverse by who gives most.
  if (!data.routed) {
    const share = (w) => (view.reverse ? data.affinity[w * n + query] : data.affinity[query * n + w]);
    return Array.from({ length: n }, (_, window) => ({ window, weight: share(window) })).filter((r) => r.weight > 0)
      .sort((x, y) => y.weight - x.weight).map((r, at) => ({ ...r, rank: at + 1 }));
  }
  if (!view.reverse) {
    return Array.from({ length: k }, (_, r) => ({
      window: data.r_idx[query * k + r], rank: r + 1, weight: data.r_weight[query * k + r] }));
  }
  const found = [];
  for (let w = 0; w < n; w++) {
    for (let r = 0; r < k; r++) {
      if (data.r_idx[w * k + r] === query) found.push({ window: w, rank: r + 1, weight: data.r_weight[w * k + r] });
    }
  }
  return found.sort((x, y) => x.rank - y.rank || y.weight - x.weight);
}

// The windows that a query would choose, or in the reverse view those that would choose it, if every window were wanted
// equally by all queries together. Not what the layer did: drawn dashed, without ranks or weights.
function wouldRelate(view, query) {
  const { data } = view, k = data.topk, n = data.grid.n_win ** 2, every = Array.from({ length: n }, (_, w) => w);
  const chosen = (w) => data.would_choose.subarray(w * k, (w + 1) * k);
  return view.reverse ? every.filter((w) => chosen(w).includes(query)) : Array.from(chosen(query));
}

function drawTint(view, g, scale, queries) {
  const { data } = view, n = data.grid.n_win ** 2;
  if (view.tint === "route" || !queries.length) return null;
  if (view.tint === "class_map") return drawHeat(view, g, scale);
  let values, low = 0, high;
  if (view.tint === "affinity" || view.tint === "query_part") {
    const q = queries[queries.length - 1].window, from = data[view.tint];
    values = Array.from({ length: n }, (_, w) => (view.reverse ? from[w * n + q] : from[q * n + w]));
    const finite = values.filter(Number.isFinite);
    low = Math.min(...finite); high = Math.max(...finite);
  } else if (data.routed) {
    values = Array.from(data.in_degree); high = Math.max(...values);
  } else {
    values = Array.from({ length: n }, (_, w) => { let sum = 0; for (let q = 0; q < n; q++) sum += data.affinity[q * n + w]; return sum / n; });
    high = Math.max(...values);
  }
  for (let w = 0; w < n; w++) {
    const r = windowRect(data.grid, w, scale);
    g.fillStyle = css(cividis(high > low ? (values[w] - low) / (high - low) : 0), 0.72);
    g.fillRect(r.x, r.y, r.w, r.h);
    if (view.tint === "in_degree" && values[w] === 0) hatch(g, r.x, r.y, r.w, r.h, "rgba(255,255,255,.75)");
  }
  return { low, high };
}

// The class heat map over the photograph; nothing until it has come.
function drawHeat(view, g, scale) {
  const { data } = view, [rows, cols] = data.heat_size, { photo } = extent(data.grid);
  if (!rows) return null;
  const heat = offscreen(cols, rows, (b) => {
    const image = b.createImageData(cols, rows);
    for (let n = 0; n < rows * cols; n++) image.data.set([...cividis(data.heat[n] / 255), 184], 4 * n);
    b.putImageData(image, 0, 0);
  });
  g.drawImage(heat, photo.x * scale, photo.y * scale, photo.w * scale, photo.h * scale);
  return { low: 0, high: 1 };
}

function drawWindows(view, g, scale, query) {
  const { data } = view, { grid } = data, colour = view.data.roles[query.role];
  if (view.tint === "query_part") {
    g.setLineDash([7, 5]);
    for (const window of wouldRelate(view, query.window)) frame(g, windowRect(grid, window, scale), colour, 2.25);
    g.setLineDash([]);
    return;
  }
  const list = related(view, query.window);
  const most = Math.max(...list.map((r) => r.weight), 1e-9), filled = view.tint === "route";
  for (const { window, weight } of list) {
    const r = windowRect(grid, window, scale);
    if (filled) { g.fillStyle = hex(colour, (data.routed ? 0.16 : 0.06) + (data.routed ? 0.44 : 0.6) * (weight / most)); g.fillRect(r.x, r.y, r.w, r.h); }
    if (data.routed || list.length <= 9) frame(g, r, colour, 2.25);
  }
}

// After the windows of every query, so that no query's tint lies over another's numbers.
function drawMarks(view, g, scale, query) {
  const { grid } = view.data, colour = view.data.roles[query.role];
  const own = windowRect(grid, query.window, scale);
  const list = view.tint === "query_part" ? [] : related(view, query.window);
  if (view.arrows) {
    for (const { window } of list.slice(0, 4)) {
      const other = windowRect(grid, window, scale);
      if (view.reverse) arrow(g, other, own, colour); else arrow(g, own, other, colour);
    }
  }
  frame(g, own, colour, 4);
  star(g, query.x * scale, query.y * scale, clamp(Math.min(own.w, own.h) * 0.2, 6, 11), colour);
  const size = clamp(Math.min(own.w, own.h) * 0.32, 11, 18);
  // With B, badges move to the other corner, so that two queries may share a window.
  // A crowd of numbers hides the picture: beyond forty, only the first nine are written.
  // Where nothing was chosen, only the first three are.
  for (const { window, rank } of !view.data.routed ? list.slice(0, 3) : list.length > 40 ? list.slice(0, 9) : list) badge(g, windowRect(grid, window, scale), rank, size, colour, query.role === "b");
}

// What the model found. Names of a crowd would hide the picture: then only of what is pointed at.
function drawFound(view, g, scale, queries) {
  const { data } = view, { photo } = extent(data.grid), live = queries[queries.length - 1];
  data.found.forEach(([label, score], n) => {
    const [x0, y0, x1, y1] = data.boxes.subarray(4 * n, 4 * n + 4);
    const x = (photo.x + x0 * photo.w) * scale, y = (photo.y + y0 * photo.h) * scale;
    const w = (x1 - x0) * photo.w * scale, h = (y1 - y0) * photo.h * scale;
    g.strokeStyle = "rgba(0,0,0,.7)"; g.lineWidth = 3.5; g.strokeRect(x, y, w, h);
    g.strokeStyle = "#fff"; g.lineWidth = 1.5; g.strokeRect(x, y, w, h);
    const at = { x: live.x * scale, y: live.y * scale }, inside = at.x >= x && at.x <= x + w && at.y >= y && at.y <= y + h;
    if (data.found.length > 12 && !inside) return;
    const text = `${label} ${percent(score)}`;
    g.font = "12px sans-serif"; g.textAlign = "left"; g.textBaseline = "middle";
    const wide = g.measureText(text).width + 8, above = y > 18 ? y - 17 : y + 1;
    g.fillStyle = "rgba(17,17,17,.85)"; g.fillRect(x, above, wide, 16);
    g.fillStyle = "#fff"; g.fillText(text, x + 4, above + 8.5);
  });
}

function frame(g, r, colour, width) {
  g.lineJoin = "round";
  for (const [stroke, w] of [["rgba(0,0,0,.75)", width + 2], ["#fff", width + 0.75], [colour, width]]) {
    g.strokeStyle = stroke; g.lineWidth = w;
    g.strokeRect(r.x + width / 2, r.y + width / 2, r.w - width, r.h - width);
  }
}

function badge(g, r, rank, size, colour, right) {
  const text = String(rank), w = Math.max(size, size * 0.5 * text.length + 6);
  const x = right ? r.x + r.w - w - 2 : r.x + 2, y = r.y + 2;
  g.fillStyle = "#111"; g.fillRect(x - 1, y - 1, w + 2, size + 2);
  g.fillStyle = colour; g.fillRect(x, y, w, size);
  g.fillStyle = "#111"; g.font = `700 ${size * 0.78}px sans-serif`;
  g.textAlign = "center"; g.textBaseline = "middle";
  g.fillText(text, x + w / 2, y + size / 2 + 0.5);
}

function star(g, x, y, radius, colour) {
  g.beginPath();
  for (let n = 0; n < 10; n++) {
    const a = -Math.PI / 2 + (n * Math.PI) / 5, r = n % 2 ? radius * 0.45 : radius;
    g.lineTo(x + r * Math.cos(a), y + r * Math.sin(a));
  }
  g.closePath();
  g.lineJoin = "round";
  g.strokeStyle = "#111"; g.lineWidth = 4; g.stroke();
  g.strokeStyle = "#fff"; g.lineWidth = 1.5; g.stroke();
  g.fillStyle = colour; g.fill();
}

function arrow(g, from, to, colour) {
  const x0 = from.x + from.w / 2, y0 = from.y + from.h / 2, x1 = to.x + to.w / 2, y1 = to.y + to.h / 2;
  const dx = x1 - x0, dy = y1 - y0, length = Math.hypot(dx, dy);
  if (length < 1) return;
  // Bent to one side, so that an arrow and its way back do not lie on each other.
  const cx = (x0 + x1) / 2 - dy * 0.18, cy = (y0 + y1) / 2 + dx * 0.18;
  const angle = Math.atan2(y1 - cy, x1 - cx), head = 9;
  for (const [stroke, width] of [["#111", 6], ["#fff", 4.25], [colour, 2.5]]) {
    g.strokeStyle = stroke; g.fillStyle = stroke; g.lineWidth = width; g.lineCap = "round";
    g.beginPath(); g.moveTo(x0, y0); g.quadraticCurveTo(cx, cy, x1, y1); g.stroke();
    g.beginPath(); g.moveTo(x1, y1);
    g.lineTo(x1 - head * Math.cos(angle - 0.45), y1 - head * Math.sin(angle - 0.45));
    g.lineTo(x1 - head * Math.cos(angle + 0.45), y1 - head * Math.sin(angle + 0.45));
    g.closePath(); g.stroke(); g.fill();
  }
}

function offscreen(width, height, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  paint(canvas.getContext("2d"));
  return canvas;
}
