// The chosen protein and residues, and the heat map of them, with the mouse or the keyboard.

const MIN_RESIDUES = 10, PAPER_RESIDUES = 100, PAPER_WIDTH = 1000, FILE_WIDTH = 1100, OVERVIEW_HEIGHT = 44;
const PROPERTIES = data.rows, ALPHABETICAL = [...data.rows].sort().join("");
const scanView = { scan: null, start: 0, count: 0, cursor: null, dragged: null, columns: [], rows: PROPERTIES };
const scanCanvas = byId("scan-canvas"), overview = byId("scan-overview");
const scanListeners = []; // called with the view when another protein or other residues are shown

// What is shown

const loadedScans = new Map();
const load = (index) => loadedScans.get(index) ?? loadedScans.set(index, loadScan(data.proteins[index])).get(index);

async function showProtein(index) {
  byId("scan-protein").value = index;
  const scan = await load(index);
  if (Number(byId("scan-protein").value) !== index) return; // the reader has chosen another in the meantime
  scanView.scan = scan;
  showRegion(0, scan.sequence.length);
  performance.mark("first picture");
}

// Show some residues, from 0; the first is within the protein, and at least ten are shown.
function showRegion(start, count) {
  const num = scanView.scan.sequence.length;
  count = clamp(Math.round(count), Math.min(MIN_RESIDUES, num), num);
  start = clamp(Math.round(start), 0, num - count);
  Object.assign(scanView, { start, count, cursor: null, dragged: null });
  arrange();
}

const isInOrder = () => byId("scan-order").value === "sequence";

function arrange() {
  const { scan, start, count } = scanView, { means } = scan.maps[0], { size } = scan;
  const residues = Array.from({ length: count }, (_, index) => start + index);
  const best = (residue) => Math.max(...[...scan.maps[0].values.subarray(residue * size, (residue + 1) * size)].filter((value) => value !== 0));
  const last = (value) => (Number.isFinite(value) ? value : Infinity); // residues without scores are the last
  const order = byId("scan-order").value;
  if (order === "mean") residues.sort((a, b) => last(means[a]) - last(means[b]));
  if (order === "best") residues.sort((a, b) => last(-best(a)) - last(-best(b)));
  scanView.columns = residues;
  scanView.rows = arrangedRows(scan, residues);
  byId("scan-from").value = scan.first + start;
  byId("scan-to").value = scan.first + start + count - 1;
  for (const name of ["scan-from", "scan-to"]) [byId(name).min, byId(name).max] = [scan.first, scan.first + scan.sequence.length - 1];
  drawScan();
  scanListeners.forEach((listener) => listener(scanView));
}

function arrangedRows(scan, residues) {
  const order = byId("scan-rows").value;
  if (order !== "mean") return order === "letters" ? ALPHABETICAL : PROPERTIES;
  const total = (letter) => {
    const column = data.aminoAcids.indexOf(letter), values = residues.map((residue) => scan.maps[0].values[residue * scan.size + column]);
    return values.filter(isScored).reduce((sum, value) => sum + value, 0);
  };
  return [...PROPERTIES].map((letter) => [total(letter), letter]).sort(([a], [b]) => b - a).map(([, letter]) => letter).join("");
}

const pictureOf = (columns, inOrder = isInOrder()) => {
  const { scan, rows, start, count } = scanView;
  const title = `${short(scan.id)}: ${residueName(scan, start)} to ${residueName(scan, start + count - 1)}`;
  return { scan, columns, rows, inOrder, title };
};

// Drawing

function drawScan() {
  const { scan, columns } = scanView, picture = pictureOf(columns);
  const frame = (scanView.frame = mapFrame(scanCanvas.parentElement.clientWidth, scan.maps.length));
  const pen = new CanvasPen(scanCanvas, frame.width, frame.height, theme());
  drawHeatMap(pen, picture, frame);
  drawCursor(pen, frame);
  drawOverview();
  scanCanvas.setAttribute("aria-label", `Heat map of ${picture.title}`);
  byId("scan-pair").textContent = scanView.cursor ? cellWords(scanView.cursor) : "\u00a0";
  byId("scan-caption").textContent = caption();
}

function drawCursor(pen, frame) {
  const { cursor, dragged, columns, scan } = scanView, unit = frame.plot / columns.length, stroke = pen.theme.accent;
  if (!cursor) return;
  const [from, to] = [Math.min(dragged ?? cursor.column, cursor.column), Math.max(dragged ?? cursor.column, cursor.column)];
  scan.maps.forEach((_, number) => {
    const top = topOfMap(frame, number), height = dragged === null ? frame.row : NUM_ROWS * frame.row;
    const y = dragged === null ? top + cursor.row * frame.row : top;
    pen.rect(MAP_LEFT + from * unit, y, (to - from + 1) * unit, height, { stroke, thick: 2 });
  });
}

// The mean of every position of the protein, and which of them the heat map shows.
function drawOverview() {
  const { scan, start, count, frame } = scanView, { means, scale } = scan.maps[0], num = scan.sequence.length;
  const pen = new CanvasPen(overview, frame.width, OVERVIEW_HEIGHT, theme()), unit = frame.plot / num;
  const strip = paint(num, 1, (residue) => colourOf(means[residue], scale, pen.theme));
  pen.picture(strip, [0, 0, num, 1], [MAP_LEFT, 8, frame.plot, 16]);
  pen.rect(MAP_LEFT, 8, frame.plot, 16, { stroke: pen.theme.grey });
  pen.rect(MAP_LEFT + start * unit, 4, count * unit, 24, { stroke: pen.theme.accent, thick: 2 });
  const fill = pen.theme.muted;
  pen.text(MAP_LEFT, 37, residueName(scan, 0), { size: 11, fill });
  pen.text(MAP_LEFT + frame.plot, 37, residueName(scan, num - 1), { size: 11, align: "end", fill });
  pen.text(MAP_LEFT + frame.plot + 8, 16, "whole protein", { size: 11, fill });
}

// Words

const signed = (value, digits = 3) => `${value > 0 ? "+" : ""}${format(value, digits)}`;

function cellWords({ column, row }) {
  const { scan, columns, rows } = scanView, residue = columns[column], letter = rows[row];
  const wildType = scan.wildTypes[residue], name = residueName(scan, residue);
  if (wildType < 0) return `${name} is none of the 20 amino acids, and has no scores`;
  const cell = residue * scan.size + data.aminoAcids.indexOf(letter), probability = (index) => format(Math.exp(scan.logProbs[index]), 2);
  const mean = `mean of the position ${signed(scan.maps[0].means[residue])}`;
  if (letter === scan.sequence[residue]) return `${name} is the wild type, probability ${probability(cell)}; ${mean}`;
  const own = probability(residue * scan.size + wildType), value = scan.maps[1]?.values[cell];
  const words = [`${name}${letter}: score ${signed(scan.maps[0].values[cell])}`, `probability ${probability(cell)}, of ${scan.sequence[residue]} ${own}`];
  if (value !== undefined) words.push(isScored(value) ? `measured ${format(value)}` : "not measured");
  return [...words, mean].join("; ");
}

function caption() {
  const { scan, start, count, columns } = scanView, cells = [];
  for (const residue of columns)
    for (let column = 0; column < scan.size; column++)
      if (column !== scan.wildTypes[residue]) cells.push([scan.maps[0].values[residue * scan.size + column], residue, column]);
  const known = cells.filter(([value]) => isScored(value)), region = `${residueName(scan, start)} to ${residueName(scan, start + count - 1)}`;
  if (!known.length) return `Residues ${region} have no scores.`;
  const [value, residue, column] = known.reduce((best, cell) => (cell[0] > best[0] ? cell : best));
  const mean = known.reduce((sum, [score]) => sum + score, 0) / known.length, better = known.filter(([score]) => score > 0).length;
  return `Residues ${region}: mean score ${signed(mean)}; ${better.toLocaleString("en")} of ${known.length.toLocaleString("en")} mutants score above the wild type, the best ${residueName(scan, residue)}${data.aminoAcids[column]} (${signed(value)}).`;
}

// The same columns as scan.tsv.
function scanAsTsv() {
  const { scan, start, count } = scanView, measured = scan.maps[1]?.values;
  const number = (value) => String(Number(value.toPrecision(7)));
  const lines = [["id", "mutant", "score", ...(measured ? ["measured"] : [])]];
  for (let residue = start; residue < start + count; residue++)
    for (let column = 0; column < scan.size && scan.wildTypes[residue] >= 0; column++) {
      if (column === scan.wildTypes[residue]) continue;
      const cell = residue * scan.size + column, mutant = residueName(scan, residue) + data.aminoAcids[column];
      const line = [asCell(scan.id), mutant, number(scan.maps[0].values[cell])];
      lines.push(measured ? [...line, isScored(measured[cell]) ? number(measured[cell]) : ""] : line);
    }
  return lines.map((cells) => `${cells.join("\t")}\n`).join("");
}

// The mouse

// The column at a place of a canvas, within the plot; `num` columns fill it.
function columnAt(canvas, event, num) {
  const zoom = canvas.clientWidth / scanView.frame.width;
  return Math.floor(((event.offsetX / zoom - MAP_LEFT) / scanView.frame.plot) * num);
}

function scanCellAt(event) {
  const { frame, columns, scan } = scanView, zoom = scanCanvas.clientWidth / frame.width, y = event.offsetY / zoom;
  const column = columnAt(scanCanvas, event, columns.length);
  if (column < 0 || column >= columns.length) return null;
  for (let number = 0; number < scan.maps.length; number++) {
    const row = Math.floor((y - topOfMap(frame, number)) / frame.row);
    if (row >= 0 && row < NUM_ROWS) return { column, row };
  }
  return null;
}

function point(cell) {
  if (cell?.column === scanView.cursor?.column && cell?.row === scanView.cursor?.row) return;
  if (!cell && scanView.dragged !== null) return; // outside, the drag keeps its last cell
  scanView.cursor = cell;
  drawScan();
}

scanCanvas.addEventListener("pointermove", (event) => scanView.scan && point(scanCellAt(event)));
scanCanvas.addEventListener("pointerleave", () => scanView.dragged === null && scanView.scan && point(null));
scanCanvas.addEventListener("pointerdown", (event) => {
  point(scanCellAt(event));
  if (event.pointerType === "touch" || event.button !== 0 || !scanView.cursor || !isInOrder()) return; // a finger scrolls
  scanCanvas.setPointerCapture(event.pointerId);
  scanView.dragged = scanView.cursor.column;
});
scanCanvas.addEventListener("pointerup", () => {
  const { dragged, cursor, columns } = scanView;
  if (dragged === null) return;
  scanView.dragged = null;
  const [from, to] = [Math.min(dragged, cursor.column), Math.max(dragged, cursor.column)];
  if (to - from < 2) return drawScan();
  showRegion(columns[from], to - from + 1);
});
scanCanvas.addEventListener("pointercancel", () => { scanView.dragged = null; scanView.scan && drawScan(); });
scanCanvas.addEventListener("dblclick", () => showAll());

let overviewStart = null;
const overviewResidue = (event) => clamp(columnAt(overview, event, scanView.scan.sequence.length), 0, scanView.scan.sequence.length - 1);
overview.addEventListener("pointerdown", (event) => {
  overviewStart = overviewResidue(event);
  overview.setPointerCapture(event.pointerId);
});
overview.addEventListener("pointerup", (event) => {
  if (overviewStart === null) return;
  const [from, to] = [Math.min(overviewStart, overviewResidue(event)), Math.max(overviewStart, overviewResidue(event))];
  overviewStart = null;
  if (to - from < 2) showRegion(from - scanView.count / 2, scanView.count); // a click moves the region there
  else showRegion(from, to - from + 1);
});
overview.addEventListener("dblclick", () => showAll());

// The keyboard and the controls

const SCAN_ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const showAll = () => showRegion(0, scanView.scan.sequence.length);

function zoomScan(factor) {
  const { start, count, cursor, columns } = scanView;
  const centre = cursor && isInOrder() ? columns[cursor.column] + 0.5 : start + count / 2;
  showRegion(centre - (centre - start) * factor, count * factor);
}

function moveCursor([down, right], cells) {
  const { cursor, columns, start, count, scan } = scanView, from = cursor ?? { column: Math.floor(columns.length / 2), row: 0 };
  const row = clamp(from.row + down, 0, NUM_ROWS - 1), column = from.column + right * cells;
  if (isInOrder() && (column < 0 || column >= columns.length)) {
    const first = clamp(column < 0 ? start + column : start + column - count + 1, 0, scan.sequence.length - count);
    showRegion(first, count);
  }
  scanView.cursor = { row, column: clamp(column, 0, columns.length - 1) };
  drawScan();
}

scanCanvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !scanView.scan) return; // the browser's own zoom
  if (event.key in SCAN_ARROWS) moveCursor(SCAN_ARROWS[event.key], event.shiftKey ? 10 : 1);
  else if (event.key === "+" || event.key === "=") zoomScan(1 / 2);
  else if (event.key === "-") zoomScan(2);
  else if (event.key === "0") showAll();
  else return;
  event.preventDefault();
});

byId("scan-in").onclick = () => zoomScan(1 / 2);
byId("scan-out").onclick = () => zoomScan(2);
byId("scan-whole").onclick = showAll;
byId("scan-protein").append(...data.proteins.map(({ id }, index) => new Option(short(id), index)));
byId("scan-protein").onchange = (event) => showProtein(Number(event.target.value));
byId("scan-order").append(new Option("along the sequence", "sequence"), new Option("by mean score, the lowest first", "mean"), new Option("by best mutant, the best first", "best"));
byId("scan-rows").append(new Option("by property", "property"), new Option("by letter", "letters"), new Option("by mean score, the best first", "mean"));
for (const name of ["scan-order", "scan-rows"])
  byId(name).onchange = () => {
    scanView.cursor = null;
    arrange();
  };
for (const name of ["scan-from", "scan-to"])
  byId(name).onchange = () => {
    const { first } = scanView.scan, [from, to] = [byId("scan-from").valueAsNumber, byId("scan-to").valueAsNumber];
    if (Number.isFinite(from) && Number.isFinite(to)) showRegion(Math.min(from, to) - first, Math.abs(to - from) + 1);
    else arrange();
  };

const fileName = () => `${short(scanView.scan.id)}_${byId("scan-from").value}-${byId("scan-to").value}`;
offerDownloads("scan", (newPen) => {
  const frame = mapFrame(FILE_WIDTH, scanView.scan.maps.length), pen = newPen(frame.width, frame.height);
  drawHeatMap(pen, pictureOf(scanView.columns), frame);
  pen.save(`${fileName()}_scan`);
});
byId("scan-tsv").onclick = () => save(new Blob([scanAsTsv()], { type: "text/tab-separated-values" }), `${fileName()}_scan.tsv`);

document.addEventListener("themechange", () => scanView.scan && drawScan());
new ResizeObserver(() => scanView.scan && scanView.frame.width !== mapFrame(scanCanvas.parentElement.clientWidth, 1).width && drawScan()).observe(
  scanCanvas.parentElement,
);

// Paper shows the chosen residues in lines that can be read.
addEventListener("beforeprint", () => {
  if (!scanView.scan) return;
  const { columns } = scanView, lines = [];
  for (let start = 0; start < columns.length; start += PAPER_RESIDUES) lines.push(columns.slice(start, start + PAPER_RESIDUES));
  byId("scan-paper").replaceChildren(...lines.map((line) => {
    const canvas = element("canvas"), share = line.length / Math.min(columns.length, PAPER_RESIDUES);
    const frame = mapFrame((PAPER_WIDTH - MAP_LEFT - MAP_RIGHT) * share + MAP_LEFT + MAP_RIGHT, scanView.scan.maps.length);
    const pen = new CanvasPen(canvas, frame.width, frame.height, THEMES.light);
    drawHeatMap(pen, { ...pictureOf(line), title: `${short(scanView.scan.id)}: ${residueName(scanView.scan, line[0])} to ${residueName(scanView.scan, line.at(-1))}` }, frame);
    canvas.style.width = `${(100 * frame.width) / PAPER_WIDTH}%`;
    return canvas;
  }));
});
addEventListener("afterprint", () => byId("scan-paper").replaceChildren());

document.addEventListener("DOMContentLoaded", () => {
  if ("DecompressionStream" in window) return showProtein(0);
  byId("trouble").hidden = false;
  byId("trouble").textContent = "This browser cannot show the pictures of this page, because it lacks DecompressionStream.";
});
