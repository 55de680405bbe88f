// Beside the stage: the routing matrix (who fits whom) and the in-degree map (who is read by many, who by nobody).

function offscreen(width, height, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  paint(canvas.getContext("2d"));
  return canvas;
}

// One pixel per pair, stretched, and a dot on each that was chosen. There may be thousands of dots, so it is drawn once
// for a message and a size, not while one points.
function matrixSheet(data, side) {
  const n = data.grid.n_win ** 2, k = data.topk, cell = side / n, sorted = data.affinity.filter(Number.isFinite).sort();
  // One loud pair would leave all others one colour; colours end where one in a hundred is beyond.
  const low = sorted[Math.floor(0.01 * (sorted.length - 1))], high = sorted[Math.ceil(0.99 * (sorted.length - 1))];
  const image = offscreen(n, n, (g) => {
    const pixels = g.createImageData(n, n);
    for (let p = 0; p < n * n; p++) {
      const v = data.affinity[p];
      const c = Number.isFinite(v) ? cividis(high > low ? (v - low) / (high - low) : 0) : [128, 128, 128];
      pixels.data.set([...c, 255], 4 * p);
    }
    g.putImageData(pixels, 0, 0);
  });
  const ratio = window.devicePixelRatio || 1;
  const sheet = offscreen(Math.round(side * ratio), Math.round(side * ratio), (g) => {
    g.scale(ratio, ratio);
    g.imageSmoothingEnabled = false;
    g.drawImage(image, 0, 0, side, side);
    if (cell < 3) return;
    g.fillStyle = "#fff"; g.strokeStyle = "#111"; g.lineWidth = 1;
    for (let q = 0; q < n; q++) {
      for (let r = 0; r < k; r++) {
        g.beginPath();
        g.arc((data.r_idx[q * k + r] + 0.5) * cell, (q + 0.5) * cell, clamp(cell * 0.22, 1.1, 5), 0, 7);
        if (cell >= 6) g.stroke();
        g.fill();
      }
    }
  });
  return { sheet, low, high, side };
}

function drawMatrix(view, canvas, queries) {
  const { data } = view, n = data.grid.n_win ** 2, k = data.topk, left = 34, foot = 52;
  const side = Math.min(canvas.parentElement.clientWidth - left - 4, 420);
  const g = fit(canvas, side + left + 4, side + foot), tone = ink(canvas), cell = side / n;
  if (view.matrix?.side !== side) view.matrix = matrixSheet(data, side);
  g.drawImage(view.matrix.sheet, left, 0, side, side);
  for (const { window, role } of queries) {
    g.lineWidth = 3; g.strokeStyle = "#111"; g.strokeRect(left - 1, window * cell - 1, side + 2, cell + 2);
    g.lineWidth = 2; g.strokeStyle = data.roles[role]; g.strokeRect(left - 1, window * cell - 1, side + 2, cell + 2);
  }
  g.fillStyle = tone.text; g.font = "12px sans-serif"; g.textAlign = "right"; g.textBaseline = "top";
  g.fillText("0", left - 5, 0);
  g.textBaseline = "bottom"; g.fillText(String(n - 1), left - 5, side);
  g.save(); g.translate(11, side / 2); g.rotate(-Math.PI / 2); g.textAlign = "center"; g.textBaseline = "middle";
  g.fillText(tr("query window"), 0, 0); g.restore();
  g.textAlign = "center"; g.textBaseline = "top"; g.fillText(tr("key window"), left + side / 2, side + 3);
  const bar = Math.min(side * 0.4, 180);
  colourBar(g, left, side + 25, bar, view.matrix.low, view.matrix.high, tone.text);
  g.textAlign = "left"; g.fillText(tr("affinity, middle 98 %"), left + bar + 12, side + 20);
  if (cell >= 3) g.fillText(tr("dots: chosen"), left + bar + 12, side + 35);
  view.matrixHit = (x, y) => {
    const key = Math.floor((x - left) / cell), query = Math.floor(y / cell);
    if (key < 0 || key >= n || query < 0 || query >= n) return null;
    const rank = Array.from(data.r_idx.subarray(query * k, query * k + k)).indexOf(key);
    const values = { query, key, affinity: number(data.affinity[query * n + key]), rank: rank + 1,
      weight: percent(data.r_weight[query * k + rank]) };
    return { query, key, text: rank < 0 ? tr("window {query} → {key}: affinity {affinity}, rejected", values)
      : tr("window {query} → {key}: affinity {affinity}, chosen as no. {rank}, weight {weight}", values) };
  };
}

function drawDegree(view, canvas, queries) {
  const { data } = view, { grid } = data, n = grid.n_win, box = extent(grid), foot = 30;
  const width = Math.min(canvas.parentElement.clientWidth, 460), scale = width / box.width, height = box.height * scale;
  const g = fit(canvas, width, height + foot), tone = ink(canvas), high = Math.max(...data.in_degree);
  g.drawImage(view.picture, box.photo.x * scale, box.photo.y * scale, box.photo.w * scale, box.photo.h * scale);
  for (let w = 0; w < n * n; w++) {
    const r = windowRect(grid, w, scale), value = data.in_degree[w];
    g.fillStyle = css(cividis(value / high), 0.82); g.fillRect(r.x, r.y, r.w, r.h);
    if (value === 0) hatch(g, r.x, r.y, r.w, r.h, "rgba(255,255,255,.6)");
    if (Math.min(r.w, r.h) < 17) continue;
    g.font = "12px sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
    g.fillStyle = value / high > 0.55 ? "#111" : "#fff";
    g.fillText(String(value), r.x + r.w / 2, r.y + r.h / 2);
  }
  for (const { window, role } of queries) frame(g, windowRect(grid, window, scale), data.roles[role], 2);
  colourBar(g, 0, height + 4, Math.min(width, 140), 0, high, tone.text);
  g.fillStyle = tone.text; g.textAlign = "left"; g.textBaseline = "top"; g.font = "12px sans-serif";
  g.fillText(tr("chosen by so many windows"), Math.min(width, 140) + 12, height + 2);
  view.degreeHit = (x, y) => {
    const i = Math.floor(x / scale / (grid.window_w * grid.stride[1])), j = Math.floor(y / scale / (grid.window_h * grid.stride[0]));
    if (i < 0 || j < 0 || i >= n || j >= n) return null;
    const w = j * n + i;
    return { query: w, key: w, text: tr("window {window} is chosen by {n} of {all} windows",
      { window: w, n: data.in_degree[w], all: n * n }) };
  };
}

function degreeSummary(data) {
  const n = data.grid.n_win ** 2, all = Array.from(data.in_degree), never = all.filter((v) => v === 0).length;
  const hub = all.indexOf(Math.max(...all));
  return tr("Most chosen: window {hub}, by {most} of {all}. Never chosen: {never} of {all} windows. Even routing would give {even} each.",
    { hub, most: all[hub], all: n, never, even: data.topk });
}
