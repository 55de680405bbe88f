// A drawing context that writes SVG: it takes the calls of a canvas's that draw.js makes, so that one code draws both.

class VectorContext {
  constructor(width, height) {
    this.size = [width, height]; this.parts = []; this.clips = 0; this.stack = []; this.path = "";
    this.state = { fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, lineJoin: "miter", lineCap: "butt", dash: [],
      font: "12px sans-serif", textAlign: "left", textBaseline: "alphabetic", clip: "" };
    for (const name of ["fillStyle", "strokeStyle", "lineWidth", "lineJoin", "lineCap", "font", "textAlign", "textBaseline"]) {
      Object.defineProperty(this, name, { get: () => this.state[name], set: (value) => { this.state[name] = value; } });
    }
    this.ruler = document.createElement("canvas").getContext("2d");
  }

  save() { this.stack.push({ ...this.state }); }
  restore() { this.state = this.stack.pop(); }
  setLineDash(dash) { this.state.dash = dash; }
  measureText(text) { this.ruler.font = this.state.font; return this.ruler.measureText(text); }

  beginPath() { this.path = ""; }
  closePath() { this.path += "Z"; }
  moveTo(x, y) { this.path += `M${short(x)} ${short(y)}`; }
  lineTo(x, y) { this.path += `${this.path ? "L" : "M"}${short(x)} ${short(y)}`; }
  quadraticCurveTo(...at) { this.path += `Q${at.map(short).join(" ")}`; }
  rect(x, y, w, h) { this.path += `M${short(x)} ${short(y)}h${short(w)}v${short(h)}h${short(-w)}Z`; }
  clip() {
    this.parts.push(`<clipPath id="clip${++this.clips}"><path d="${this.path}"/></clipPath>`);
    this.state.clip = ` clip-path="url(#clip${this.clips})"`;
  }

  fill() { this.add("path", { d: this.path, ...paintOf("fill", this.state.fillStyle) }); }
  stroke() { this.add("path", { d: this.path, ...this.line() }); }
  fillRect(x, y, w, h) { this.add("rect", { ...boxOf(x, y, w, h), ...paintOf("fill", this.state.fillStyle) }); }
  strokeRect(x, y, w, h) { this.add("rect", { ...boxOf(x, y, w, h), ...this.line() }); }
  drawImage(image, x, y, w, h) {
    const sheet = offscreen(image.width, image.height, (g) => g.drawImage(image, 0, 0));
    // A canvas of ours may let through what is below it, which JPEG cannot; photographs are smaller as JPEG.
    const href = image instanceof HTMLCanvasElement ? sheet.toDataURL("image/png") : sheet.toDataURL("image/jpeg", 0.95);
    this.add("image", { ...boxOf(x, y, w, h), preserveAspectRatio: "none", href });
  }
  fillText(text, x, y) {
    const { font, textAlign, textBaseline, fillStyle } = this.state, size = parseFloat(font.match(/[\d.]+(?=px)/)[0]);
    // Where the letters stand, from their baseline: programs that read SVG differ in what they know of other lines.
    const drop = { middle: 0.35, top: 0.8 }[textBaseline] ?? 0;
    this.add("text", { x: short(x), y: short(y + drop * size), "font-size": short(size), "font-family": "sans-serif",
      "font-weight": /^(bold|[67]00)/.test(font) ? 700 : null, "text-anchor": { center: "middle", right: "end" }[textAlign] ?? null,
      ...paintOf("fill", fillStyle) }, text);
  }

  line() {
    const { strokeStyle, lineWidth, lineJoin, lineCap, dash } = this.state;
    return { fill: "none", ...paintOf("stroke", strokeStyle), "stroke-width": short(lineWidth), "stroke-linejoin": lineJoin,
      "stroke-linecap": lineCap, "stroke-dasharray": dash.length ? dash.join(" ") : null };
  }
  add(tag, attributes, text = "") {
    const written = Object.entries(attributes).filter(([, value]) => value !== null)
      .map(([name, value]) => ` ${name}="${quoted(value)}"`).join("");
    this.parts.push(`<${tag}${written}${this.state.clip}>${quoted(text)}</${tag}>`);
  }
  text(title) {
    const [width, height] = this.size.map(short);
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`
      + `<title>${quoted(title)}</title>${this.parts.join("\n")}</svg>`;
  }
}

const short = (x) => Number(x.toFixed(2));
const quoted = (text) => String(text).replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);

function boxOf(x, y, w, h) {
  return { x: short(Math.min(x, x + w)), y: short(Math.min(y, y + h)), width: short(Math.abs(w)), height: short(Math.abs(h)) };
}

// A colour and its opacity apart, since few programs read the two in one.
function paintOf(what, colour) {
  const parts = colour.match(/^rgba\(([^,]+),([^,]+),([^,]+),([^)]+)\)$/);
  if (parts) return { [what]: `rgb(${parts.slice(1, 4).join(",")})`, [`${what}-opacity`]: Number(parts[4]) };
  if (/^#[0-9a-f]{8}$/i.test(colour)) return { [what]: colour.slice(0, 7), [`${what}-opacity`]: short(parseInt(colour.slice(7), 16) / 255) };
  return { [what]: colour };
}
