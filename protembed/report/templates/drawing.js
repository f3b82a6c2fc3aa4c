// What pages with interactive pictures share: their data, numbers, colours, and pens for screens and files.
const data = JSON.parse(byId("data").textContent);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
function format(value, digits = 3) {
  if (value === null) return "undefined";
  if (value && Math.abs(value) < 1e-4) return value.toExponential(digits - 1);
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
}

const short = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
// A level represents an interval. Its ends are rounded outward, so that the value lies between them: by a millionth for
// the arithmetic, then to two digits.
function outward(value, round) {
  const unit = 10 ** (Math.floor(Math.log10(value)) - 1);
  return format(round(value / unit) * unit, 2);
}

function between(low, high) {
  if (high === 0) return "0";
  const to = outward(high * (1 + 1e-6), Math.ceil);
  return low > 0 ? `${outward(low * (1 - 1e-6), Math.floor)}–${to}` : `below ${to}`;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Colours. A theme has those of page.css by their names, and `scales` by what they show.

const channels = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
const withScales = (name) => ({
  ...data.colours[name],
  name,
  scales: Object.fromEntries(Object.entries(data.scales).map(([use, stops]) => [use, stops[name].map(channels)])),
});
const THEMES = { light: withScales("light"), dark: withScales("dark") };
const theme = () => THEMES[isDark() ? "dark" : "light"];

function shade(stops, fraction) {
  const position = clamp(fraction, 0, 1) * (stops.length - 1);
  const low = Math.min(Math.floor(position), stops.length - 2);
  return stops[low].map((from, channel) => Math.round(from + (stops[low + 1][channel] - from) * (position - low)));
}

const css = (stops, fraction) => `rgb(${shade(stops, fraction).join(",")})`;

// A canvas of some pixels, row by row.
function paint(width, height, colourAt) {
  const canvas = element("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) image.data.set([...colourAt(pixel), 255], 4 * pixel);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The digits of base 85 in `report/compression.py`.
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%,()*+-;.=:?@^_`{|}~";
const DIGIT_VALUES = Object.fromEntries([...DIGITS].map((digit, value) => [digit, value]));

function decode85(text) {
  const numMissing = (5 - (text.length % 5)) % 5, padded = text + "~".repeat(numMissing);
  const bytes = new DataView(new ArrayBuffer((padded.length / 5) * 4));
  for (let group = 0; group < padded.length / 5; group++) {
    let number = 0;
    for (let digit = 5 * group; digit < 5 * group + 5; digit++) number = number * 85 + DIGIT_VALUES[padded[digit]];
    bytes.setUint32(4 * group, number);
  }
  return new Uint8Array(bytes.buffer, 0, bytes.byteLength - numMissing);
}

// The bytes that `compress` in `report/compression.py` has made a text of.
async function inflate(text) {
  const stream = new Blob([decode85(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Two pens with the same methods, so that the same functions draw to the screen, PNG and SVG; files are always light.

const DENSITY = 2; // canvas pixels for each layout pixel, so that text is sharp on any screen
const FONT = "system-ui, sans-serif";

class CanvasPen {
  constructor(canvas, width, height, colours = THEMES.light) {
    [canvas.width, canvas.height] = [width * DENSITY, height * DENSITY];
    [this.canvas, this.theme] = [canvas, colours];
    this.context = canvas.getContext("2d");
    this.context.scale(DENSITY, DENSITY);
    this.context.imageSmoothingEnabled = false;
    this.rect(0, 0, width, height, { fill: colours.surface });
  }

  rect(x, y, width, height, { fill, stroke, thick = 1, opacity = 1 }) {
    Object.assign(this.context, { fillStyle: fill ?? "", strokeStyle: stroke ?? "", lineWidth: thick, globalAlpha: opacity });
    if (fill) this.context.fillRect(x, y, width, height);
    if (stroke) this.context.strokeRect(x, y, width, height);
    this.context.globalAlpha = 1;
  }

  text(x, y, words, { align = "start", size = 12, bold = false, turned = false, fill = this.theme.ink } = {}) {
    this.context.save();
    this.context.translate(x, y);
    if (turned) this.context.rotate(-Math.PI / 2);
    const font = `${bold ? "600 " : ""}${size}px ${FONT}`;
    const textAlign = align === "middle" ? "center" : align;
    Object.assign(this.context, { fillStyle: fill, font, textAlign, textBaseline: "middle" });
    this.context.fillText(words, 0, 0);
    this.context.restore();
  }

  path(d, { stroke, thick = 1, opacity = 1 }) {
    this.context.save();
    Object.assign(this.context, { strokeStyle: stroke, lineWidth: thick, globalAlpha: opacity });
    this.context.stroke(new Path2D(d));
    this.context.restore();
  }

  // A part of a canvas, [left, top, width, height], enlarged to a place of the same form.
  picture(source, part, place) {
    this.context.drawImage(source, ...part, ...place);
  }

  save(name) {
    this.canvas.toBlob((blob) => save(blob, `${name}.png`));
  }
}

class SvgPen {
  constructor(width, height, colours = THEMES.light) {
    this.theme = colours;
    this.root = this.make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT });
    this.rect(0, 0, width, height, { fill: colours.surface });
  }

  make(tag, attributes, words) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (words !== undefined) made.append(document.createTextNode(words));
    this.root?.append(made);
    return made;
  }

  rect(x, y, width, height, { fill = "none", stroke = "none", thick = 1, opacity }) {
    this.make("rect", { x, y, width, height, fill, stroke, "stroke-width": thick, ...(opacity && { opacity }) });
  }

  text(x, y, words, { align = "start", size = 12, bold = false, turned = false, fill = this.theme.ink } = {}) {
    const transform = `translate(${x} ${y})${turned ? " rotate(-90)" : ""}`;
    const style = { "text-anchor": align, "font-size": size, "font-weight": bold ? 600 : 400, fill };
    this.make("text", { transform, dy: "0.35em", ...style }, words);
  }

  path(d, { stroke, thick = 1, opacity = 1 }) {
    this.make("path", { d, fill: "none", stroke, "stroke-width": thick, "stroke-opacity": opacity });
  }

  picture(source, part, [x, y, width, height]) {
    const [, , columns, rows] = part, copy = element("canvas", { width: columns, height: rows });
    copy.getContext("2d").drawImage(source, ...part, 0, 0, columns, rows);
    const href = copy.toDataURL("image/png"), style = "image-rendering: pixelated";
    this.make("image", { href, x, y, width, height, preserveAspectRatio: "none", style });
  }

  save(name) {
    const text = new XMLSerializer().serializeToString(this.root);
    save(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
  }
}

const offerDownloads = (figure, draw) => {
  byId(`${figure}-png`).onclick = () => draw((...size) => new CanvasPen(element("canvas"), ...size));
  byId(`${figure}-svg`).onclick = () => draw((...size) => new SvgPen(...size));
};
