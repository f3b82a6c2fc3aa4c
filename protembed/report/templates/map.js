// The map's data, and what the reader has chosen. A protein is its row; parts that depend on a choice are in `showers`.

const numProteins = data.ids.length;
const NO_CODE = 255, NOTHING = -1;

function decode64(text, Kind) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let place = 0; place < letters.length; place++) bytes[place] = letters.charCodeAt(place);
  return new Kind(bytes.buffer);
}

// Coordinates from 0 to 1 along the longer side, the second upward.
for (const projection of data.projections) {
  const steps = decode64(projection.points, Uint16Array);
  projection.x = Float32Array.from({ length: numProteins }, (_, row) => steps[2 * row] / 65535);
  projection.y = Float32Array.from({ length: numProteins }, (_, row) => steps[2 * row + 1] / 65535);
}
for (const colouring of data.colourings) {
  if (colouring.classes) colouring.codes = decode64(colouring.codes, Uint8Array);
  else Object.assign(colouring, ranged(decode64(colouring.values, Float32Array)));
}
const nearestRows = decode64(data.neighbours.rows, Uint32Array);
const nearestCosines = decode64(data.neighbours.cosines, Float32Array);

// The colours of values end at the 2nd and 98th percentile, so that a few extreme ones do not take them all.
function ranged(values) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort();
  const at = (fraction) => sorted[Math.round(fraction * (sorted.length - 1))] ?? 0;
  return { values, low: at(0.02), high: at(0.98) };
}

const chosen = {
  projection: data.projections.length - 1,
  colouring: 0,
  off: new Set(), // codes of classes that the legend has switched off
  protein: NOTHING,
  selected: new Set(),
};
const showers = [];
const whenChosen = (names, show) => showers.push({ names, show });

function choose(change) {
  if ("colouring" in change) change.off = new Set();
  Object.assign(chosen, change);
  for (const { names, show } of showers) if (names.some((name) => name in change)) show();
}

const projection = () => data.projections[chosen.projection];
const colouring = () => data.colourings[chosen.colouring];
const isShown = (row) => !colouring().classes || !chosen.off.has(colouring().codes[row]);

function neighboursOf(row) {
  const { number } = data.neighbours, start = row * number;
  return Array.from({ length: number }, (_, rank) => [nearestRows[start + rank], nearestCosines[start + rank]]);
}

function valueOf(row, { classes, codes, values }) {
  if (classes) return codes[row] === NO_CODE ? "" : classes[codes[row]];
  return Number.isNaN(values[row]) ? "" : format(values[row], 4);
}

// Colours of points

function colourOf({ classColours }, code, colours) {
  return code < classColours[colours.name].length ? classColours[colours.name][code] : colours.grey;
}

const NUM_SHADES = 32;
const shadeOf = (fraction, { scales }) => css(scales.point, fraction);

// Where a value is between the ends of the scale; in the middle if all values are the same.
const fractionOf = (value, low, high) => (high > low ? clamp((value - low) / (high - low), 0, 1) : 0.5);

// The rows that have each colour, those that are drawn first at first.
function rowsByColour(colours) {
  const { classes, codes, values, low, high } = colouring(), groups = new Map();
  const add = (colour, row) => (groups.get(colour) ?? groups.set(colour, []).get(colour)).push(row);
  const shades = Array.from({ length: NUM_SHADES }, (_, step) => shadeOf(step / (NUM_SHADES - 1), colours));
  groups.set(colours.grey, []);
  for (let row = 0; row < numProteins; row++) {
    if (!isShown(row)) continue;
    if (classes) add(colourOf(data, codes[row], colours), row);
    else if (Number.isNaN(values[row])) add(colours.grey, row);
    else add(shades[Math.round(fractionOf(values[row], low, high) * (NUM_SHADES - 1))], row);
  }
  return groups;
}
