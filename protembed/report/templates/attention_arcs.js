
// Arcs over the sequence: what the chosen residue attends to and what attends to it, or the strongest pairs of the map.
// A place is a residue, or a block of them in a long protein, by its first and last residue. A link joins two places.

const NUM_LINKS = 10, MIN_SHARE = 0.02; // what a residue gives or gets is listed down to this share of the strongest
const MIN_SEPARATION = 6; // of contacts
const ARC_HEIGHT = 130, ARC_MARGIN = 16, LETTERS_HEIGHT = 42, MIN_UNIT = 12, MAX_UNIT = 22, LETTER_UNIT = 9;
// On the screen, colours are properties of page.css, so that they follow light, dark and paper.
const PAGE_THEME = Object.fromEntries(Object.keys(data.colours.light).map((name) => [name, `var(--${name})`]));

function placeOf({ protein: ofProtein, block }, cell) {
  const start = cell * block, end = Math.min(start + block, ofProtein.sequence.length) - 1;
  return { start, end, name: cellName({ protein: ofProtein, block }, cell) };
}

const signed = (offset) => (offset > 0 ? `+${offset}` : offset < 0 ? `−${-offset}` : "0");
const centre = ({ start, end }) => (start + end) / 2;
const isSame = (one, other) => one.start === other.start;

// Links

const unpackedPairs = new WeakMap();

// Those of a head, by residue: `encode_strongest` in `pictures.py` stores all rows, then all columns, then all weights.
async function storedPairs(ofProtein, head, separation) {
  const { strongest } = ofProtein, { separations } = strongest;
  if (!unpackedPairs.has(strongest)) unpackedPairs.set(strongest, unpack(strongest));
  const { buffer } = await unpackedPairs.get(strongest), total = buffer.byteLength / 8;
  const number = total / (data.layers.length * numHeads * separations.length);
  const start = (head * separations.length + separations.indexOf(separation)) * number;
  const [rows, columns] = [0, 2 * total].map((offset) => new Uint16Array(buffer, offset + 2 * start, number));
  const weights = [...new Float32Array(buffer, 4 * total + 4 * start, number)].filter((weight) => weight > 0);
  const place = (index) => placeOf({ protein: ofProtein, block: 1 }, index);
  return weights.map((weight, pair) => {
    const [from, to] = [rows, columns].map((residues) => place(residues[pair]));
    return { from, to, weight, words: weight.toPrecision(3) };
  });
}

const linkOf = (picture, row, column) => {
  const { map } = picture, step = map.steps[row * map.side + column], [low, high] = [map.low(step), map.high(step)];
  return { from: placeOf(picture, row), to: placeOf(picture, column), step, weight: high, words: between(low, high) };
};

// Those of a mean, as the map shows them.
function pairsOfMap(picture, separation) {
  const { steps, side } = picture.map, cells = [];
  steps.forEach((step, cell) => {
    const [row, column] = [Math.floor(cell / side), cell % side];
    if (step && Math.abs(row - column) * picture.block >= separation) cells.push([row, column, step]);
  });
  cells.sort((a, b) => b[2] - a[2]);
  return cells.slice(0, NUM_LINKS).map(([row, column]) => linkOf(picture, row, column));
}

// Those from a residue, or to it.
function linksOf(picture, cell, isFrom) {
  const others = Array.from({ length: picture.map.side }, (_, other) => other);
  const links = others.map((other) => (isFrom ? linkOf(picture, cell, other) : linkOf(picture, other, cell)));
  const distance = ({ from, to }) => Math.abs(from.start - to.start), highest = Math.max(...links.map(({ weight }) => weight));
  const strong = links.filter(({ step, weight }) => step && weight >= MIN_SHARE * highest);
  return strong.sort((a, b) => b.step - a.step || distance(a) - distance(b)).slice(0, NUM_LINKS);
}

// Drawing

// Short arcs are half circles; long ones approach the full height.
const arcHeight = (radius) => (radius ? ARC_HEIGHT * (1 - Math.exp(-radius / ARC_HEIGHT)) : 18);

function arcPath(from, to, base, isAbove) {
  const [left, right] = [Math.min(from, to), Math.max(from, to)], radius = (right - left) / 2, away = isAbove ? -1 : 1;
  if (!radius) return `M ${left} ${base} c -16 ${24 * away} 16 ${24 * away} 0 0`; // a loop, to the same place
  return `M ${left} ${base} A ${radius} ${arcHeight(radius)} 0 0 ${isAbove ? 1 : 0} ${right} ${base}`;
}

// The heights of the arcs above and below, and the size of the figure.
function arcsLayout({ ofProtein, unit, above, below }) {
  const height = ({ from, to }) => arcHeight((Math.abs(centre(from) - centre(to)) * unit) / 2);
  const [up, down] = [above, below].map((links) => Math.ceil(Math.max(0, ...links.map(height))) + 8);
  return { up, width: ofProtein.sequence.length * unit + 2 * ARC_MARGIN, height: up + LETTERS_HEIGHT + down };
}

// `figure` has `ofProtein`, `unit` (the width of a letter), `above` and `below` (links), and `chosenPlace` or null.
function drawArcs(pen, figure, top) {
  const { unit, above, below } = figure, base = top + arcsLayout(figure).up, links = [...above, ...below];
  const x = (position) => ARC_MARGIN + (position + 0.5) * unit, highest = Math.max(...links.map(({ weight }) => weight));
  const drawLinks = (group, y, stroke, isAbove) =>
    [...group].reverse().forEach(({ from, to, weight }) => { // the strongest lies on top
      const share = weight / highest, path = arcPath(x(centre(from)), x(centre(to)), y, isAbove);
      pen.path(path, { stroke, thick: 1 + 5 * share, opacity: 0.4 + 0.5 * share });
    });
  drawLinks(above, base, pen.theme.accent, true);
  drawLinks(below, base + LETTERS_HEIGHT, pen.theme.contrast, false);
  drawLetters(pen, figure, links.flatMap(({ from, to }) => [from, to]), base, x);
}

function drawLetters(pen, { ofProtein, unit, chosenPlace }, places, y, x) {
  const widen = (width) => Math.max(width, 3); // to be seen where a residue is narrower than a pixel
  const box = ({ start, end }) => [x(start) - unit / 2, y + 2, widen((end - start + 1) * unit), 21];
  for (const place of places) pen.rect(...box(place), { fill: pen.theme.tint });
  for (const index of new Set(ofProtein.sites.flatMap(({ residues }) => residues)))
    pen.rect(x(index) - widen(unit - 2) / 2, y + 20, widen(unit - 2), 3, { fill: pen.theme.third });
  if (chosenPlace) pen.rect(...box(chosenPlace), { stroke: pen.theme.accent, thick: 2 });
  const step = [10, 20, 50, 100, 200, 500, 1000].find((size) => size * unit >= 40) ?? 5000;
  if (unit < LETTER_UNIT) pen.rect(x(-0.5), y + 11, ofProtein.sequence.length * unit, 2, { fill: pen.theme.grey });
  [...ofProtein.sequence].forEach((letter, index) => {
    const isChosen = chosenPlace && chosenPlace.start <= index && index <= chosenPlace.end, number = ofProtein.first + index;
    if (unit >= LETTER_UNIT) pen.text(x(index), y + 12, letter, { align: "middle", size: 12, bold: isChosen });
    if (number % step === 0) pen.text(x(index), y + 34, number, { align: "middle", size: 11, fill: pen.theme.muted });
  });
}

function describeBlocks({ block, protein: { sequence } }) {
  if (block === 1) return "";
  const size = `The map of a protein of ${sequence.length.toLocaleString("en")} residues is shown in blocks of ${block}.`;
  return `${size} What a residue attends to is therefore that of its block; the strongest pairs are single residues.`;
}

// The figure with its controls and lists

class Arcs {
  constructor() {
    this.strip = byId("arcs-strip");
    this.isWhole = false; // whether a long protein is shown without letters, as wide as the page
    this.strip.onclick = (event) => this.press(event);
    this.strip.onkeydown = (event) => this.type(event);
    byId("arcs-residue").onchange = ({ target }) => target.value !== "" && this.go(Number(target.value) - protein().first);
    byId("arcs-before").onclick = () => this.move(-this.picture.block);
    byId("arcs-after").onclick = () => this.move(this.picture.block);
    byId("arcs-strongest").onclick = () => choose({ residue: null });
    byId("arcs-whole").onclick = () => this.showWhole(!this.isWhole);
    byId("arcs-apart").onchange = () => this.show(this.picture);
    new ResizeObserver(() => this.picture && this.draw()).observe(this.strip);
    offerDownloads("arcs", (newPen) => this.save(newPen));
    whenChosen(["residue"], () => this.picture?.protein === protein() && this.show(this.picture));
  }

  // Show a `picture`: a `map` with its `protein`, `block`, `title` and `file`; `head` is null for the map of a mean.
  async show(picture) {
    const separation = byId("arcs-apart").checked ? MIN_SEPARATION : 0, cell = Math.floor(chosen.residue / picture.block);
    const isStored = picture.head !== null && picture.protein.strongest;
    const pairs = isStored ? await storedPairs(picture.protein, picture.head, separation) : pairsOfMap(picture, separation);
    if (picture.protein !== protein()) return; // the reader has chosen another protein in the meantime
    const isChosen = chosen.residue !== null;
    const [gives, receives] = [true, false].map((isFrom) => (isChosen ? linksOf(picture, cell, isFrom) : []));
    Object.assign(this, { picture, pairs, gives, receives, chosenPlace: isChosen ? placeOf(picture, cell) : null });
    this.list();
    this.draw();
  }

  showWhole(isWhole) {
    this.isWhole = isWhole;
    byId("arcs-whole").setAttribute("aria-pressed", isWhole);
    if (this.picture) this.draw();
  }

  figure(unit) {
    const isForward = ({ from, to }) => to.start >= from.start, { pairs, chosenPlace } = this;
    const [above, below] = chosenPlace
      ? [this.gives, this.receives]
      : [pairs.filter(isForward), pairs.filter((pair) => !isForward(pair))];
    return { ofProtein: this.picture.protein, unit, above, below, chosenPlace };
  }

  draw() {
    const room = this.strip.clientWidth - 2 * ARC_MARGIN, { length } = this.picture.protein.sequence;
    const isLong = room / length < MIN_UNIT;
    this.unit = isLong && this.isWhole ? room / length : clamp(Math.floor(room / length), MIN_UNIT, MAX_UNIT);
    byId("arcs-whole").hidden = !isLong;
    const figure = this.figure(this.unit), { width, height } = arcsLayout(figure), pen = new SvgPen(width, height, PAGE_THEME);
    drawArcs(pen, figure, 0);
    this.strip.replaceChildren(pen.root);
    this.reveal(this.chosenPlace ?? this.pairs[0]?.from);
  }

  // Scroll the strip, and not the page, until a place is in view.
  reveal(place) {
    if (!place) return;
    const x = ARC_MARGIN + (centre(place) + 0.5) * this.unit, { scrollLeft, clientWidth } = this.strip;
    if (x < scrollLeft + 40 || x > scrollLeft + clientWidth - 40) this.strip.scrollLeft = x - clientWidth / 2;
  }

  list() {
    const { picture, pairs, gives, receives, chosenPlace } = this, { sequence, first } = picture.protein;
    const value = chosenPlace ? first + chosen.residue : "", last = first + sequence.length - 1;
    Object.assign(byId("arcs-residue"), { value, min: first, max: last, placeholder: `${first}–${last}` });
    byId("arcs-strongest").setAttribute("aria-pressed", !chosenPlace);
    for (const [id, isShown] of [["arcs-of-pairs", !chosenPlace], ["arcs-of-residue", chosenPlace]]) byId(id).hidden = !isShown;
    const name = chosenPlace?.name ?? "the residue";
    byId("arcs-above").textContent = chosenPlace ? `${name} attends to` : "attention to a later residue";
    byId("arcs-below").textContent = chosenPlace ? `attends to ${name}` : "attention to an earlier residue";
    byId("arcs-gives-title").textContent = `${name} attends to`;
    byId("arcs-receives-title").textContent = `Residues that attend to ${name}`;
    const offset = ({ from, to }) => signed(to.start - from.start);
    this.fill("pairs", pairs.map((pair) => [pair.from, pair.to, pair.words, offset(pair)]));
    this.fill("gives", gives.map((link) => [link.to, link.words, offset(link)]));
    this.fill("receives", receives.map((link) => [link.from, link.words, offset(link)]));
    byId("arcs-blocks").textContent = describeBlocks(picture);
    byId("arcs-sites").hidden = !picture.protein.sites.length;
    byId("arcs-title").textContent = picture.title;
    byId("arcs-words").textContent = this.words();
    this.strip.setAttribute("aria-label", `Arcs over the sequence. ${picture.title}`);
  }

  // A cell of a list is words, or a place, which becomes a button that chooses it.
  fill(list, rows) {
    const button = ({ name, start }) => element("button", { type: "button", textContent: name, onclick: () => this.go(start) });
    const cell = (content) => element("td", {}, content.name === undefined ? content : button(content));
    byId(`arcs-${list}`).replaceChildren(...rows.map((row) => element("tr", {}, ...row.map(cell))));
    byId(`arcs-${list}-none`).hidden = rows.length > 0;
  }

  words() {
    const { chosenPlace, gives: [most], receives: [best], pairs: [pair] } = this;
    if (!chosenPlace) return pair ? `The strongest: ${pair.from.name} attends to ${pair.to.name} (${pair.words}).` : "";
    const to = most && (isSame(most.to, chosenPlace) ? "itself" : most.to.name), { name } = chosenPlace;
    const from = best && (isSame(best.from, chosenPlace) ? "itself" : best.from.name);
    const gives = most ? `${name} attends most to ${to} (${most.words})` : `${name} attends to no residue`;
    return `${gives}${best ? ` and gets most from ${from} (${best.words})` : ", and no residue attends to it"}.`;
  }

  go(index) {
    if (Number.isFinite(index)) choose({ residue: clamp(Math.round(index), 0, protein().sequence.length - 1) });
  }

  move(residues) {
    this.go(chosen.residue === null ? this.pairs[0]?.from.start ?? 0 : chosen.residue + residues);
  }

  press(event) {
    const { left } = this.strip.firstElementChild.getBoundingClientRect();
    this.go(Math.floor((event.clientX - left - ARC_MARGIN) / this.unit));
  }

  type(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = this.picture.block * (event.shiftKey ? 10 : 1);
    if (event.key === "ArrowLeft") this.move(-step);
    else if (event.key === "ArrowRight") this.move(step);
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.go(protein().sequence.length - 1);
    else if (event.key === "Escape") choose({ residue: null });
    else return;
    event.preventDefault();
  }

  save(newPen) {
    const figure = this.figure(this.unit), { width, height } = arcsLayout(figure);
    const pen = newPen(Math.max(width, 480), height + 64);
    pen.text(ARC_MARGIN, 16, this.picture.title, { size: 13, bold: true });
    drawArcs(pen, figure, 26);
    [["above", "accent"], ["below", "contrast"]].forEach(([side, colour], column) => {
      const x = ARC_MARGIN + 230 * column, words = `${side}: ${byId(`arcs-${side}`).textContent}`;
      pen.rect(x, height + 42, 12, 4, { fill: pen.theme[colour] });
      pen.text(x + 18, height + 44, words, { size: 11 });
    });
    pen.save(`${this.picture.file}_arcs${this.chosenPlace ? `_${this.chosenPlace.name}` : ""}`);
  }
}

const arcs = new Arcs();

// Paper does not scroll.
let wasWhole = false;
addEventListener("beforeprint", () => {
  wasWhole = arcs.isWhole;
  arcs.showWhole(true);
});
addEventListener("afterprint", () => arcs.showWhole(wasWhole));

whenChosen(["protein", "layer", "head"], withChosenMap((map, ofProtein, layer, head) => arcs.show({
  map,
  protein: ofProtein,
  block: ofProtein.block,
  head: head === MEAN ? null : layer * numHeads + head,
  title: `${short(ofProtein.id)}: ${headName(layer, head)}`,
  file: `${short(ofProtein.id)}_${headName(layer, head).replaceAll(",", "")}`,
})));
