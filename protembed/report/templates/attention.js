// What the reader has chosen, and the map of it. Each part of the page says by `whenChosen` on which choices it depends.

// A layer or head of MEAN is the mean of all: of the heads of a layer, or, without a layer, of all heads.
const MEAN = -1;
const numHeads = data.heads.length;
const chosen = { protein: 0, layer: 0, head: 0, statistic: 0, residue: null }; // indices in the lists of `data`
const showers = [];
const whenChosen = (names, show) => showers.push({ names, show });

function choose(change) {
  if ("protein" in change && !("residue" in change)) change.residue = null;
  if (change.layer === MEAN) change.head = MEAN;
  else if ("layer" in change && !("head" in change) && chosen.layer === MEAN) change.head = 0;
  Object.assign(chosen, change);
  for (const { names, show } of showers) if (names.some((name) => name in change)) show();
}

const protein = () => data.proteins[chosen.protein];
const headName = (layer, head) => {
  if (layer === MEAN) return "mean of all heads";
  return head === MEAN ? `layer ${data.layers[layer]}, mean of its heads` : `layer ${data.layers[layer]}, head ${data.heads[head]}`;
};
const capital = (words) => words[0].toUpperCase() + words.slice(1);
const QUARTERS = [0, 0.25, 0.5, 0.75, 1];

// Maps

const unpacked = new WeakMap();

function encodedMap({ maps, means }, layer, head) {
  if (layer === MEAN) return means.at(-1);
  return head === MEAN ? means[layer] : maps[layer * numHeads + head];
}

// The map of a head or of a mean: `steps`, row by row, each an interval from `low(step)` to `high(step)`.
async function loadMap(ofProtein, layer, head) {
  const encoded = encodedMap(ofProtein, layer, head), top = encoded.levels - 1;
  if (!unpacked.has(encoded)) unpacked.set(encoded, unpack(encoded));
  const steps = await unpacked.get(encoded);
  const value = (step) => encoded.peak * (clamp(step, 0, top) / top) ** 2;
  const [low, high] = [(step) => value(step - 0.5), (step) => value(step + 0.5)];
  return { steps, side: Math.sqrt(steps.length), peak: encoded.peak, levels: encoded.levels, low, high };
}

// Run `draw` with the chosen map, unless the reader chooses another in the meantime.
function withChosenMap(draw) {
  let turn = 0;
  return async () => {
    const thisTurn = ++turn, { layer, head } = chosen, ofProtein = protein();
    const map = await loadMap(ofProtein, layer, head);
    if (thisTurn === turn) draw(map, ofProtein, layer, head);
  };
}

// A canvas of a map for each theme, painted when it is first needed; `shrink` cells on a side become their maximum.
function painter({ steps, side, levels }, shrink = 1) {
  const painted = {}, cells = Math.ceil(side / shrink);
  const highest = new Uint8Array(cells * cells);
  steps.forEach((step, pixel) => {
    const cell = Math.floor(Math.floor(pixel / side) / shrink) * cells + Math.floor((pixel % side) / shrink);
    if (step > highest[cell]) highest[cell] = step;
  });
  return (colours) =>
    (painted[colours.name] ??= (() => {
      const ramp = Array.from({ length: levels }, (_, step) => shade(colours.scales.attention, step / (levels - 1)));
      return paint(cells, cells, (cell) => ramp[highest[cell]]);
    })());
}

const mapView = new View("map");

const showMap = withChosenMap((map, ofProtein, layer, head) => {
  const { block } = ofProtein, { side, steps, peak } = map, isMean = head === MEAN;
  const inBlock = isMean ? "the mean of the heads' maxima" : "the maximum";
  const number = layer === MEAN ? "mean" : `layer_${data.layers[layer]}_${isMean ? "mean" : `head_${data.heads[head]}`}`;
  mapView.show({
    protein: ofProtein, side, block,
    title: `${short(ofProtein.id)}: ${headName(layer, head)}`,
    file: `${short(ofProtein.id)}_${number}`,
    image: painter(map),
    inBlock,
    axes: ["residue", "residue that it attends to"],
    scale: {
      title: "attention",
      use: "attention",
      marks: QUARTERS.map((fraction) => [fraction, format(peak * fraction ** 2, 2)]),
    },
    pair(row, column) {
      const step = steps[row * side + column];
      const cells = `${cellName(this, row)} → ${cellName(this, column)}`, note = block > 1 ? `, ${inBlock} of the block` : "";
      return `${cells}: ${between(map.low(step), map.high(step))}${note}`;
    },
  });
  performance.mark("first picture");
});

whenChosen(["protein", "layer", "head"], showMap);

// The lists of proteins, layers and heads

function offer(name, options) {
  const list = byId(name);
  list.append(...options.map(([words, value]) => new Option(words, value)));
  list.onchange = () => choose({ [name]: Number(list.value) });
  whenChosen(["protein", "layer", "head"], () => (list.value = chosen[name]));
}

const numbered = (words) => words.map((word, index) => [word, index]);
const withMean = (words, mean) => [...numbered(words), ...(data.proteins[0].means.length ? [[mean, MEAN]] : [])];
offer("protein", numbered(data.proteins.map(({ id }) => short(id))));
offer("layer", withMean(data.layers, "mean of all heads"));
offer("head", withMean(data.heads, "mean of the layer"));
whenChosen(["layer"], () => (byId("head").disabled = chosen.layer === MEAN));
byId("content").prepend(byId("choose")); // where it stays in view in all sections

// The script ends with the parts of the page. The first choice is shown by its map, and then by all of them.
async function start() {
  Object.assign(chosen, data.start);
  await showMap();
  choose({ ...chosen });
}

document.addEventListener("DOMContentLoaded", () => {
  if ("DecompressionStream" in window) return start();
  byId("trouble").hidden = false;
  byId("trouble").textContent = "This browser cannot show the pictures of this page, because it lacks DecompressionStream.";
});
