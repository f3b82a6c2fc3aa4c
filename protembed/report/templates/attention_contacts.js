
// Contacts of the chosen protein: above the diagonal the predicted ones, right or wrong; below it those of the structure.

const PROBABILITIES = "all";
const BEST_PAIRS = { L: "the L best pairs (as many as residues)", "L/2": "the L/2 best pairs", "L/5": "the L/5 best pairs" };
const RANGES = {
  long: { name: "long-range", distance: "24 residues and more (long range)" },
  medium: { name: "medium-range", distance: "12 to 23 residues (medium range)" },
  short: { name: "short-range", distance: "6 to 11 residues (short range)" },
};
const NO_CONTACT = 0, CONTACT = 1, UNKNOWN = 2; // as in `ranked_contacts.py`
// A colour and a shape for each state, so that neither is needed to understand the other.
const STATES = [
  { state: CONTACT, name: "right", colour: "accent", draw: drawSquare },
  { state: NO_CONTACT, name: "wrong", colour: "contrast", draw: drawCross },
  { state: UNKNOWN, name: "unknown", colour: "fourth", draw: drawRing },
];
const styleOf = (state) => STATES.find((each) => each.state === state);

function drawSquare(pen, x, y, size, fill) {
  pen.rect(x - size / 2, y - size / 2, size, size, { fill });
}

function drawCross(pen, x, y, size, stroke) {
  const reach = size / 2 + 0.5;
  const path = `M ${x - reach} ${y - reach} l ${2 * reach} ${2 * reach} m 0 ${-2 * reach} l ${-2 * reach} ${2 * reach}`;
  pen.path(path, { stroke, thick: 1.5 });
}

function drawRing(pen, x, y, size, stroke) {
  const radius = size / 2, half = (width) => `a ${radius} ${radius} 0 1 0 ${width} 0`;
  pen.path(`M ${x - radius} ${y} ${half(size)} ${half(-size)}`, { stroke, thick: 1.2 });
}

const contactView = new View("contacts");

// The top-scoring pairs of each range, the best first; `encode_ranked` in `pictures.py` stores the arrays one by one.
const rankedPairs = remembered(async (ranked) => {
  const { buffer } = await unpack(ranked), total = buffer.byteLength / 5, pairs = {};
  let start = 0;
  for (const [range, { number }] of Object.entries(ranked.ranges)) {
    const first = new Uint16Array(buffer, 2 * start, number), second = new Uint16Array(buffer, 2 * (total + start), number);
    const state = new Uint8Array(buffer, 4 * total + start, number);
    pairs[range] = Array.from(first, (residue, pair) => ({ first: residue, second: second[pair], state: state[pair] }));
    start += number;
  }
  return pairs;
});

function remembered(load) {
  const results = new WeakMap();
  return (key) => {
    if (!results.has(key)) results.set(key, load(key));
    return results.get(key);
  };
}

const unpackedContacts = remembered(unpack);
const chosenRange = () => byId("contacts-range").value;
const chosenFraction = () => byId("contacts-shows").value;

async function showContacts() {
  const ofProtein = protein(), { contacts, ranked } = ofProtein;
  byId("contacts").hidden = !contacts;
  byId("contacts-missing").hidden = Boolean(contacts);
  byId("contacts-missing").textContent = `${short(ofProtein.id)} has neither predicted contacts nor a structure.`;
  if (!contacts) return;
  const pixels = await unpackedContacts(contacts), pairs = ranked ? await rankedPairs(ranked) : {};
  if (ofProtein !== protein()) return; // the reader has chosen another protein in the meantime
  const top = ranked?.ranges[chosenRange()].top[chosenFraction()] ?? 0;
  const marks = (pairs[chosenRange()] ?? []).slice(0, top);
  byId("contacts-meaning").textContent = meaningOf(contacts);
  contactView.show(contactPicture(ofProtein, pixels, marks));
  describePrecision(ofProtein, pairs);
}

function meaningOf({ predicted, known }) {
  const above = "Above the diagonal are pairs of residues that are predicted to be in contact";
  const below = "are the contacts of the structure";
  if (!known) return `${above}.`;
  if (!predicted) return `Below the diagonal ${below}.`;
  return `${above}; below it ${below}, coloured where they are predicted.`;
}

function contactPicture(ofProtein, pixels, marks) {
  const side = Math.sqrt(pixels.length), { block, levels, predicted, known } = ofProtein.contacts;
  const value = (step) => clamp(step, 0, levels - 1) / (levels - 1), isShaded = predicted && chosenFraction() === PROBABILITIES;
  const inBlock = block > 1 ? ", maximum of the block" : "", cellOf = (index) => Math.floor(index / block);
  const places = marks.map(({ first, second, state }) => ({ row: cellOf(first), column: cellOf(second), state }));
  const states = new Map(places.map(({ row, column, state }) => [row * side + column, state]));
  const nameOf = (state) => (known ? styleOf(state).name : "predicted");
  const marked = STATES.filter(({ state }) => marks.some((mark) => mark.state === state));
  const legend = marked.map(({ state, colour }) => ({ name: nameOf(state), colour }));
  return {
    protein: ofProtein, side, block,
    title: `${short(ofProtein.id)}: contacts${predicted ? "" : " in the structure"}`,
    file: `${short(ofProtein.id)}_contacts`,
    image: (colours) =>
      paint(side, side, (pixel) => {
        const row = Math.floor(pixel / side), column = pixel % side;
        if (row === column) return channels(colours.rule);
        if (row < column && isShaded) return shade(colours.scales.contact, value(pixels[pixel]));
        return channels(row > column && pixels[pixel] ? colours.grey : colours.surface);
      }),
    draw: (pen, view, frame) => drawMarks(pen, places, view, frame),
    axes: ["residue", "residue"],
    scale: isShaded ? { title: "predicted", use: "contact", marks: QUARTERS.map((mark) => [mark, format(mark)]) } : null,
    legend: [...legend, ...(known ? [{ name: "structure", colour: "grey" }] : [])],
    pair(row, column) {
      const [low, high] = [Math.min(row, column), Math.max(row, column)];
      if (low === high) return cellName(this, low);
      const words = [], step = pixels[low * side + high], state = states.get(low * side + high);
      if (predicted) words.push(`predicted ${between(value(step - 0.5), value(step + 0.5))}${inBlock}`);
      if (known) words.push(`${pixels[high * side + low] ? "in contact" : "no contact"} in the structure`);
      if (state !== undefined) words.push(`marked as ${nameOf(state)}`);
      return `${cellName(this, low)} – ${cellName(this, high)}: ${words.join(", ")}`;
    },
  };
}

// The worse are drawn first, so that the better lie on top; contacts of the structure that were found are marked, too.
function drawMarks(pen, marks, { left, top, span }, { plot }) {
  const unit = plot / span, size = Math.max(unit, 4);
  const isInView = (row, column) => row >= top && row < top + span && column >= left && column < left + span;
  const mark = (row, column, { draw, colour }) => {
    const [x, y] = [LEFT + (column - left + 0.5) * unit, TOP + (row - top + 0.5) * unit];
    if (isInView(row, column)) draw(pen, x, y, size, pen.theme[colour]);
  };
  for (const { row, column, state } of [...marks].reverse()) {
    mark(row, column, styleOf(state));
    if (state === CONTACT) mark(column, row, styleOf(CONTACT));
  }
}

// Precision

const share = (value) => (value === undefined || value === null ? "undefined" : value.toPrecision(2));
const cellOfTable = (tag, words, isCurrent, scope) => {
  const cell = element(tag, { textContent: words, ...(scope && { scope }) });
  if (isCurrent) cell.setAttribute("aria-current", "true");
  return cell;
};

// The right and wrong pairs among the best, by the name of their number.
function countStates(pairs, top) {
  const count = (name, state) => pairs.slice(0, top[name]).filter((pair) => pair.state === state).length;
  return (name) => ({ right: count(name, CONTACT), wrong: count(name, NO_CONTACT), unknown: count(name, UNKNOWN) });
}

function describePrecision({ id, contacts, ranked }, pairs) {
  byId("contacts-precision").hidden = !ranked;
  byId("contacts-shows").disabled = byId("contacts-range").disabled = !ranked;
  if (!ranked) return;
  const range = chosenRange(), { top, precision, random } = ranked.ranges[range], overall = data.precisions[range] ?? {};
  const names = Object.keys(BEST_PAIRS).filter((name) => name in top), counts = countStates(pairs[range], top);
  const unknown = names.map((name) => counts(name).unknown);
  const rows = contacts.known
    ? [
        ["right", ...names.map((name) => counts(name).right)],
        ["wrong", ...names.map((name) => counts(name).wrong)],
        ...(unknown.some(Boolean) ? [["unknown (without coordinates)", ...unknown]] : []),
        ["precision", ...names.map((name) => share(precision[name]))],
        ["precision of random pairs", ...names.map(() => share(random))],
      ]
    : [["pairs", ...names.map((name) => top[name])]];
  if (names.some((name) => name in overall))
    rows.push(["mean precision of all proteins with a structure", ...names.map((name) => share(overall[name]?.value))]);
  const isCurrent = (column) => names[column] === chosenFraction();
  const line = ([name, ...values]) => [
    cellOfTable("th", name, false, "row"),
    ...values.map((words, column) => cellOfTable("td", words, isCurrent(column))),
  ];
  byId("contacts-title").textContent = `The best ${RANGES[range].name} pairs of ${short(id)}`;
  const header = names.map((name, column) => cellOfTable("th", name, isCurrent(column), "col"));
  byId("contacts-fractions").replaceChildren(element("td"), ...header);
  byId("contacts-rows").replaceChildren(...rows.map((cells) => element("tr", {}, ...line(cells))));
  byId("contacts-words").textContent = precisionWords(contacts, ranked.ranges[range], range, counts);
}

function precisionWords(contacts, { top, random }, range, counts) {
  const name = chosenFraction() === PROBABILITIES ? "L" : chosenFraction();
  if (!(name in top)) return "The protein has too few pairs at this distance to choose the best among them.";
  if (!contacts.known) return "No structure of this protein was given, so which of these pairs are right is not known.";
  const { right, wrong } = counts(name), number = right + wrong, byChance = Math.round(random * number);
  const best = `Of the ${number.toLocaleString("en")} best ${RANGES[range].name} pairs, ${right.toLocaleString("en")}`;
  return `${best} touch in the structure; of as many random pairs, about ${byChance.toLocaleString("en")} would.`;
}

// The controls

for (const [value, words] of Object.entries({ ...BEST_PAIRS, [PROBABILITIES]: "the probability of every pair" }))
  byId("contacts-shows").append(new Option(words, value));
for (const [value, { distance }] of Object.entries(RANGES)) byId("contacts-range").append(new Option(distance, value));
for (const name of ["contacts-shows", "contacts-range"]) byId(name).onchange = showContacts;
whenChosen(["protein"], showContacts);
