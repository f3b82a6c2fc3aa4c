// The measured values of the chosen protein, and the scores of the same mutants.

const SCATTER_WIDTH = 520, SCATTER_HEIGHT = 420, SCATTER_LEFT = 58, SCATTER_RIGHT = 16, SCATTER_TOP = 34, SCATTER_BOTTOM = 46;
const POINT = 4, NEAR = 8;
const scatter = { points: [], scan: null, near: null };
const scatterCanvas = byId("scatter-canvas");

function showScatter({ scan, start, count }) {
  const measured = scan.maps[1]?.values;
  byId("scatter").hidden = !measured;
  byId("scatter-missing").hidden = Boolean(measured);
  byId("scatter-missing").textContent = `No mutant of ${short(scan.id)} was measured.`;
  if (!measured) return;
  const scores = scan.maps[0].values, isWhole = count === scan.sequence.length, points = [];
  measured.forEach((value, cell) => {
    const residue = Math.floor(cell / scan.size), column = cell % scan.size;
    if (!isScored(value) || !isScored(scores[cell]) || column === scan.wildTypes[residue]) return;
    const isShown = !isWhole && residue >= start && residue < start + count;
    points.push({ x: value, y: scores[cell], name: residueName(scan, residue) + data.aminoAcids[column], isShown });
  });
  points.sort((a, b) => a.isShown - b.isShown); // those that stand out lie on top
  Object.assign(scatter, { points, scan, near: null });
  drawScatterOnScreen();
}

const extent = (values) => {
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  return high > low ? [low, high] : [low - 1, high + 1];
};

function scatterPlaces() {
  const [left, right] = extent(scatter.points.map(({ x }) => x)), [low, high] = extent(scatter.points.map(({ y }) => y));
  const width = SCATTER_WIDTH - SCATTER_LEFT - SCATTER_RIGHT, height = SCATTER_HEIGHT - SCATTER_TOP - SCATTER_BOTTOM;
  return {
    x: (value) => SCATTER_LEFT + 6 + ((value - left) / (right - left)) * (width - 12),
    y: (value) => SCATTER_TOP + height - 6 - ((value - low) / (high - low)) * (height - 12),
    across: roundNumbers(left, right), down: roundNumbers(low, high), width, height,
  };
}

// Round numbers between two others, four or so.
function roundNumbers(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough)), step = power * ([1, 2, 5].find((size) => size * power >= rough) ?? 10);
  const numbers = [];
  for (let index = Math.ceil(low / step); index * step <= high; index++) numbers.push(index * step);
  return numbers;
}

function drawScatter(pen, { near } = {}) {
  const place = scatterPlaces(), fill = pen.theme.muted, bottom = SCATTER_TOP + place.height;
  pen.text(SCATTER_LEFT, 14, `${short(scatter.scan.id)}: ${scatter.scan.spearman}`, { size: 13, bold: true });
  pen.rect(SCATTER_LEFT, SCATTER_TOP, place.width, place.height, { stroke: pen.theme.grey });
  for (const value of place.across) {
    pen.rect(place.x(value) - 0.5, bottom, 1, 4, { fill });
    pen.text(place.x(value), bottom + 13, format(value), { align: "middle", size: 11, fill });
  }
  for (const value of place.down) {
    pen.rect(SCATTER_LEFT - 4, place.y(value) - 0.5, 4, 1, { fill });
    pen.text(SCATTER_LEFT - 8, place.y(value), format(value), { align: "end", size: 11, fill });
  }
  for (const { x, y, isShown } of scatter.points)
    pen.rect(place.x(x) - POINT / 2, place.y(y) - POINT / 2, POINT, POINT, { fill: isShown ? pen.theme.contrast : pen.theme.accent, opacity: 0.4 });
  if (near) pen.rect(place.x(near.x) - POINT, place.y(near.y) - POINT, 2 * POINT, 2 * POINT, { stroke: pen.theme.ink, thick: 2 });
  pen.text(SCATTER_LEFT + place.width / 2, SCATTER_HEIGHT - 12, "measured", { align: "middle" });
  pen.text(12, SCATTER_TOP + place.height / 2, "score (nats)", { align: "middle", turned: true });
}

function drawScatterOnScreen() {
  drawScatter(new CanvasPen(scatterCanvas, SCATTER_WIDTH, SCATTER_HEIGHT, theme()), scatter);
  const { near } = scatter;
  byId("scatter-pair").textContent = near ? `${near.name}: measured ${format(near.x)}, score ${signed(near.y)}` : "\u00a0";
  const number = scatter.points.length.toLocaleString("en");
  scatterCanvas.setAttribute("aria-label", `Scores and measured values of ${number} mutants. ${scatter.scan.spearman}`);
}

scatterCanvas.addEventListener("pointermove", (event) => {
  if (!scatter.scan) return;
  const zoom = scatterCanvas.clientWidth / SCATTER_WIDTH, place = scatterPlaces();
  const distance = ({ x, y }) => Math.hypot(place.x(x) - event.offsetX / zoom, place.y(y) - event.offsetY / zoom);
  const nearest = scatter.points.reduce((best, point) => (distance(point) < distance(best) ? point : best), scatter.points[0]);
  const near = nearest && distance(nearest) < NEAR ? nearest : null;
  if (near !== scatter.near) {
    scatter.near = near;
    drawScatterOnScreen();
  }
});
scatterCanvas.addEventListener("pointerleave", () => {
  scatter.near = null;
  if (scatter.scan) drawScatterOnScreen();
});
offerDownloads("scatter", (newPen) => {
  const pen = newPen(SCATTER_WIDTH, SCATTER_HEIGHT);
  drawScatter(pen);
  pen.save(`${short(scatter.scan.id)}_measured`);
});
document.addEventListener("themechange", () => scatter.scan && drawScatterOnScreen());
scanListeners.push(showScatter);
