"use strict";
// Strings from the data enter the page as text only (textContent, Option, fillText, createTextNode), never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const format = (value, digits = 3) =>
  value === null ? "undefined" : new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
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

const DENSITY = 2; // canvas pixels for each layout pixel, so that text is sharp on any screen
const FONT = "system-ui, sans-serif", INK = "#1d1d1f", FAINT = "#e4e4e7", TRUTH = "#d9730d", SITE = "#1a7f4b";

// Colours

const channels = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
const scales = Object.fromEntries(Object.entries(data.colours).map(([use, stops]) => [use, stops.map(channels)]));

function shade(stops, fraction) {
  const position = clamp(fraction, 0, 1) * (stops.length - 1);
  const low = Math.min(Math.floor(position), stops.length - 2);
  return stops[low].map((from, channel) => Math.round(from + (stops[low + 1][channel] - from) * (position - low)));
}

const css = (stops, fraction) => `rgb(${shade(stops, fraction).join(",")})`;

function paint(side, colourAt) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let pixel = 0; pixel < side * side; pixel++) image.data.set([...colourAt(pixel), 255], 4 * pixel);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The digits of base 85 in `pictures.py`.
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

// The pixels of a picture, row by row.
async function unpack({ pixels, differences }) {
  const stream = new Blob([decode85(pixels)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const values = new Uint8Array(await new Response(stream).arrayBuffer());
  return differences ? addPredictions(values) : values;
}

// The same prediction as `predict_pixels` in `pictures.py`.
function addPredictions(pixels) {
  const side = Math.sqrt(pixels.length);
  for (let pixel = 0; pixel < pixels.length; pixel++) {
    const isFirst = pixel % side === 0, isTop = pixel < side;
    const left = isFirst ? 0 : pixels[pixel - 1], above = isTop ? 0 : pixels[pixel - side];
    const corner = isFirst || isTop ? 0 : pixels[pixel - side - 1];
    pixels[pixel] += clamp(left + above - corner, Math.min(left, above), Math.max(left, above));
  }
  return pixels;
}

// Two pens with the same methods, so that the same functions draw to the screen, PNG and SVG.

class CanvasPen {
  constructor(canvas, width, height) {
    [canvas.width, canvas.height] = [width * DENSITY, height * DENSITY];
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.context.scale(DENSITY, DENSITY);
    this.context.imageSmoothingEnabled = false;
    this.rect(0, 0, width, height, { fill: "#fff" });
  }

  rect(x, y, width, height, { fill, stroke, thick = 1 }) {
    Object.assign(this.context, { fillStyle: fill ?? "", strokeStyle: stroke ?? "", lineWidth: thick });
    if (fill) this.context.fillRect(x, y, width, height);
    if (stroke) this.context.strokeRect(x, y, width, height);
  }

  text(x, y, words, { align = "start", size = 12, bold = false, turned = false } = {}) {
    this.context.save();
    this.context.translate(x, y);
    if (turned) this.context.rotate(-Math.PI / 2);
    const font = `${bold ? "600 " : ""}${size}px ${FONT}`;
    const textAlign = align === "middle" ? "center" : align;
    Object.assign(this.context, { fillStyle: INK, font, textAlign, textBaseline: "middle" });
    this.context.fillText(words, 0, 0);
    this.context.restore();
  }

  picture(source, { left, top, span }, x, y, size) {
    this.context.drawImage(source, left, top, span, span, x, y, size, size);
  }

  save(name) {
    this.canvas.toBlob((blob) => save(blob, `${name}.png`));
  }
}

class SvgPen {
  constructor(width, height) {
    this.root = this.make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT });
    this.rect(0, 0, width, height, { fill: "#fff" });
  }

  make(tag, attributes, words) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (words !== undefined) element.append(document.createTextNode(words));
    this.root?.append(element);
    return element;
  }

  rect(x, y, width, height, { fill = "none", stroke = "none", thick = 1 }) {
    this.make("rect", { x, y, width, height, fill, stroke, "stroke-width": thick });
  }

  text(x, y, words, { align = "start", size = 12, bold = false, turned = false } = {}) {
    const transform = `translate(${x} ${y})${turned ? " rotate(-90)" : ""}`;
    const style = { "text-anchor": align, "font-size": size, "font-weight": bold ? 600 : 400, fill: INK };
    this.make("text", { transform, dy: "0.35em", ...style }, words);
  }

  picture(source, { left, top, span }, x, y, size) {
    const part = document.createElement("canvas");
    part.width = part.height = span;
    part.getContext("2d").drawImage(source, -left, -top);
    const sharp = "image-rendering: pixelated";
    this.make("image", { x, y, width: size, height: size, href: part.toDataURL(), style: sharp });
  }

  save(name) {
    const text = new XMLSerializer().serializeToString(this.root);
    save(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_"); // an identifier is not a path
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const offerDownloads = (figure, draw) => {
  byId(`${figure}-png`).onclick = () => draw((...size) => new CanvasPen(document.createElement("canvas"), ...size));
  byId(`${figure}-svg`).onclick = () => draw((...size) => new SvgPen(...size));
};

// A square picture of residue pairs: attention or contacts. A cell is one of its pixels: a residue pair, or a block.

const PLOT = 540, LEFT = 66, TOP = 30, WIDTH = 704, HEIGHT = 624, MIN_CELLS = 8;

const residue = (protein, index) => `${protein.sequence[index]}${protein.first + index}`;

function cellName({ protein, block }, cell) {
  const first = cell * block, last = Math.min(first + block, protein.sequence.length) - 1;
  const isInCell = ({ residues }) => residues.some((index) => first <= index && index <= last);
  const labels = protein.sites.filter(isInCell).map(({ label }) => short(label)).join(", ");
  const name = block === 1 ? residue(protein, first) : `${residue(protein, first)}–${residue(protein, last)}`;
  return labels ? `${name} (${labels})` : name;
}

function rangeName(picture, cell, span) {
  const last = Math.min((cell + span) * picture.block, picture.protein.sequence.length) - 1;
  return `${residue(picture.protein, cell * picture.block)} to ${residue(picture.protein, last)}`;
}

function ticks({ protein, block }, start, span) {
  const width = PLOT / (span * block);
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => size * width >= 38) ?? 5000;
  const numbers = [], letters = [];
  for (let index = start * block; index < Math.min((start + span) * block, protein.sequence.length); index++) {
    const position = (((index + 0.5) / block - start) / span) * PLOT;
    if ((protein.first + index) % step === 0) numbers.push([position, residue(protein, index)]);
    if (width >= 9 && step > 1) letters.push([position, protein.sequence[index]]);
  }
  return { numbers, letters };
}

function drawAxes(pen, picture, { left, top, span }) {
  pen.rect(LEFT, TOP, PLOT, PLOT, { stroke: INK });
  const [across, down] = [ticks(picture, left, span), ticks(picture, top, span)];
  const bottom = TOP + PLOT, away = across.letters.length ? 14 : 0;
  for (const [position, text] of across.letters) pen.text(LEFT + position, bottom + 9, text, { align: "middle", size: 10 });
  for (const [position, text] of down.letters) pen.text(LEFT - 9, TOP + position, text, { align: "middle", size: 10 });
  for (const [position, text] of across.numbers) {
    if (!away) pen.rect(LEFT + position - 0.5, bottom, 1, 4, { fill: INK });
    pen.text(LEFT + position, bottom + 11 + away, text, { align: "middle", size: 11 });
  }
  for (const [position, text] of down.numbers) {
    if (!away) pen.rect(LEFT - 4, TOP + position - 0.5, 4, 1, { fill: INK });
    pen.text(LEFT - 7 - away, TOP + position, text, { align: "end", size: 11 });
  }
  pen.text(LEFT + PLOT / 2, HEIGHT - 10, picture.axes[1], { align: "middle" });
  pen.text(8, TOP + PLOT / 2, picture.axes[0], { align: "middle", turned: true });
}

// Labelled residues, along the upper and the right edge, which have no numbers.
function drawSites(pen, { protein, block }, { left, top, span }) {
  const unit = PLOT / span, thick = Math.max(unit, 2);
  for (const cell of new Set(protein.sites.flatMap(({ residues }) => residues.map((index) => Math.floor(index / block))))) {
    const [x, y] = [cell - left, cell - top];
    if (x >= 0 && x < span) pen.rect(LEFT + (x + 0.5) * unit - thick / 2, TOP - 6, thick, 5, { fill: SITE });
    if (y >= 0 && y < span) pen.rect(LEFT + PLOT + 1, TOP + (y + 0.5) * unit - thick / 2, 5, thick, { fill: SITE });
  }
}

function drawScale(pen, { scale, legend }) {
  const x = LEFT + PLOT + 16, y = TOP + 22, height = 200, steps = 50;
  if (legend) {
    pen.rect(x, y + height + 18, 12, 12, { fill: TRUTH });
    pen.text(x + 18, y + height + 24, legend, { size: 11 });
  }
  if (!scale) return;
  pen.text(x, TOP + 6, scale.title);
  for (let step = 0; step < steps; step++) {
    const fraction = 1 - step / (steps - 1); // the steps overlap a little, so that no gap shows between them
    pen.rect(x, y + (step * height) / steps, 12, height / steps + 0.6, { fill: css(scale.stops, fraction) });
  }
  for (const [fraction, text] of scale.marks) pen.text(x + 18, y + (1 - fraction) * height, text, { size: 11 });
}

function drawPicture(pen, picture, view) {
  pen.text(LEFT, TOP - 14, picture.title, { size: 13, bold: true });
  pen.picture(picture.image, view, LEFT, TOP, PLOT);
  drawAxes(pen, picture, view);
  drawSites(pen, picture, view);
  drawScale(pen, picture);
}
