// The heat map of a scan: columns are positions, rows amino acids. The same functions draw to screen, paper and files.

const NUM_ROWS = data.rows.length, MAP_LEFT = 52, MAP_RIGHT = 96, MAP_TOP = 30, MAP_BOTTOM = 40;
const MEAN_HEIGHT = 58, MEAN_GAP = 6, MAPS_GAP = 34, MAX_ROW = 15, MIN_ROW = 12;

const floats = async (text) => new Float32Array((await inflate(text)).buffer);
const isScored = (value) => !Number.isNaN(value);

// Decompress a protein once: log probabilities, and from them scores and the means of the substitutions.
async function loadScan(encoded) {
  const logProbs = await floats(encoded.logProbs), num = encoded.sequence.length, size = data.aminoAcids.length;
  const wildTypes = Array.from(encoded.sequence, (letter) => data.aminoAcids.indexOf(letter));
  const scores = Float64Array.from(logProbs, (value, cell) => {
    const residue = Math.floor(cell / size);
    return wildTypes[residue] < 0 ? NaN : value - logProbs[residue * size + wildTypes[residue]];
  });
  const measured = encoded.measured ? await floats(encoded.measured) : null;
  const mean = (values, residue, keep) => {
    const known = [...values.subarray(residue * size, (residue + 1) * size)].filter(isScored);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / keep(known.length) : NaN;
  };
  const residues = Array.from({ length: num }, (_, residue) => residue);
  const maps = [
    {
      name: "score (nats)", values: scores, scale: encoded.scale, centre: "wild type",
      means: residues.map((residue) => mean(scores, residue, (count) => count - 1)), // the wild type has 0
    },
  ];
  if (measured)
    maps.push({
      name: "measured", values: measured, scale: encoded.measuredScale, centre: encoded.measuredCentre,
      means: residues.map((residue) => mean(measured, residue, (count) => count)),
    });
  return { ...encoded, size, logProbs, wildTypes, maps };
}

const residueName = (scan, index) => `${scan.sequence[index]}${scan.first + index}`;
const fractionOf = (value, [centre, limit]) => 0.5 + (value - centre) / (2 * limit);
const colourOf = (value, scale, colours) => (isScored(value) ? shade(colours.scales.effect, fractionOf(value, scale)) : channels(colours.raised));

function mapFrame(width, numMaps) {
  const plot = Math.max(Math.round(width), 320) - MAP_LEFT - MAP_RIGHT, row = plot < 500 ? MIN_ROW : MAX_ROW;
  const block = MEAN_HEIGHT + MEAN_GAP + NUM_ROWS * row;
  const height = MAP_TOP + numMaps * block + (numMaps - 1) * MAPS_GAP + MAP_BOTTOM;
  return { plot, row, block, width: MAP_LEFT + plot + MAP_RIGHT, height };
}

// Where the rows of a map begin, from the top of the picture.
const topOfMap = ({ block }, number) => MAP_TOP + number * (block + MAPS_GAP) + MEAN_HEIGHT + MEAN_GAP;

// What is drawn: `scan`, `columns` (indices of residues in their order), `rows` (letters), `title`.
function drawHeatMap(pen, picture, frame) {
  pen.text(MAP_LEFT, 13, picture.title, { size: 13, bold: true });
  picture.scan.maps.forEach((map, number) => {
    drawMeans(pen, picture, map, frame, topOfMap(frame, number));
    drawCells(pen, picture, map, frame, topOfMap(frame, number));
    drawColourScale(pen, map, frame, topOfMap(frame, number));
  });
  drawPositions(pen, picture, frame);
}

// The cells of a map, one pixel each; kept as long as the columns are shown, because the pointer moves over them.
const paintedCells = new WeakMap();

function paintCells({ scan, columns, rows }, { name, values, scale }, colours) {
  const key = [name, rows, colours.name].join(), width = columns.length;
  if (!paintedCells.has(columns)) paintedCells.set(columns, {});
  const order = [...rows].map((letter) => data.aminoAcids.indexOf(letter));
  return (paintedCells.get(columns)[key] ??= paint(width, NUM_ROWS, (pixel) => {
    const residue = columns[pixel % width];
    return colourOf(values[residue * scan.size + order[Math.floor(pixel / width)]], scale, colours);
  }));
}

function drawCells(pen, picture, map, { plot, row }, top) {
  const { scan, columns, rows } = picture, width = columns.length, image = paintCells(picture, map, pen.theme);
  pen.picture(image, [0, 0, width, NUM_ROWS], [MAP_LEFT, top, plot, NUM_ROWS * row]);
  const unit = plot / width, dot = clamp(unit * 0.4, 1, 4), ink = pen.theme.ink;
  columns.forEach((residue, column) => {
    const line = rows.indexOf(scan.sequence[residue]), x = MAP_LEFT + (column + 0.5) * unit;
    if (line >= 0) pen.rect(x - dot / 2, top + (line + 0.5) * row - dot / 2, dot, dot, { fill: ink });
    else hatch(pen, MAP_LEFT + column * unit, top, unit, NUM_ROWS * row);
  });
  pen.rect(MAP_LEFT, top, plot, NUM_ROWS * row, { stroke: pen.theme.grey });
  [...rows].forEach((letter, line) => pen.text(MAP_LEFT - 12, top + (line + 0.5) * row, letter, { align: "middle", size: 11, fill: pen.theme.muted }));
}

function hatch(pen, x, y, width, height) {
  const lines = [];
  for (let start = y; start + width < y + height; start += Math.max(width, 8)) lines.push(`M ${x} ${start + width} l ${width} ${-width}`);
  pen.path(lines.join(" "), { stroke: pen.theme.grey });
}

function drawMeans(pen, { columns }, { means, scale }, { plot }, top) {
  const known = columns.map((residue) => means[residue]).filter(isScored), [centre] = scale, unit = plot / columns.length;
  const low = Math.min(centre, ...known), high = Math.max(centre, ...known), span = high - low || 1;
  const bottom = top - MEAN_GAP, y = (value) => bottom - ((value - low) / span) * MEAN_HEIGHT;
  columns.forEach((residue, column) => {
    const value = means[residue];
    if (!isScored(value)) return;
    const [from, to] = [y(value), y(centre)].sort((a, b) => a - b), fill = `rgb(${colourOf(value, scale, pen.theme).join(",")})`;
    pen.rect(MAP_LEFT + column * unit, from, Math.max(unit - (unit > 4 ? 1 : 0), 0.5), Math.max(to - from, 0.5), { fill });
  });
  pen.path(`M ${MAP_LEFT} ${y(centre)} h ${plot}`, { stroke: pen.theme.grey });
  for (const value of new Set([low, centre, high]))
    if (value === centre || Math.abs(y(value) - y(centre)) > 12)
      pen.text(MAP_LEFT - 6, y(value), format(value, 2), { align: "end", size: 10, fill: pen.theme.muted });
  pen.text(MAP_LEFT + plot + 8, bottom - MEAN_HEIGHT / 2, "mean", { size: 11, fill: pen.theme.muted });
}

function drawPositions(pen, { scan, columns, inOrder }, frame) {
  const bottom = topOfMap(frame, scan.maps.length - 1) + NUM_ROWS * frame.row, unit = frame.plot / columns.length;
  const fill = pen.theme.muted, ink = pen.theme.ink, hasLetters = unit >= 9;
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => size * unit >= 40) ?? 1000;
  columns.forEach((residue, column) => {
    const x = MAP_LEFT + (column + 0.5) * unit, isNumbered = (inOrder ? scan.first + residue : column) % step === 0;
    if (hasLetters) pen.text(x, bottom + 8, scan.sequence[residue], { align: "middle", size: 10, fill });
    else if (isNumbered) pen.rect(x - 0.5, bottom, 1, 4, { fill: ink });
    if (isNumbered) pen.text(x, bottom + (hasLetters ? 22 : 12), residueName(scan, residue), { align: "middle", size: 11, fill });
  });
}

function drawColourScale(pen, { name, scale: [centre, limit], centre: note }, { plot }, top) {
  const x = MAP_LEFT + plot + 12, y = top + 18, height = 130, steps = 50;
  pen.text(x, top + 6, name, { size: 11 });
  for (let step = 0; step < steps; step++) {
    const fill = css(pen.theme.scales.effect, 1 - step / (steps - 1)); // the steps overlap a little, so that no gap shows
    pen.rect(x, y + (step * height) / steps, 12, height / steps + 0.6, { fill });
  }
  for (const [fraction, value] of [[1, centre + limit], [0.5, centre], [0, centre - limit]])
    pen.text(x + 17, y + (1 - fraction) * height, format(value, 2), { size: 11 });
  if (note) pen.text(x + 17, y + height / 2 + 13, note, { size: 10, fill: pen.theme.muted });
}
