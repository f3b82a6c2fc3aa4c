
// The chosen head

const chosen = { protein: 0, layer: 0, head: 0, statistic: 0 }; // indices in the lists of `data`
const mapView = new View("map");
const contactView = byId("contacts") && new View("contacts");
const headName = (layer, head) => `layer ${data.layers[layer]}, head ${data.heads[head]}`;
const short = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
const blockNote = (block) => (block > 1 ? ", maximum of the block" : "");
const QUARTERS = [0, 0.25, 0.5, 0.75, 1];
let turn = 0;

async function showMap() {
  const thisTurn = ++turn, protein = data.proteins[chosen.protein], { layer, head } = chosen;
  const map = protein.maps[layer * data.heads.length + head], { peak, levels } = map;
  const steps = await unpack(map);
  if (thisTurn !== turn) return; // the reader has chosen another map in the meantime
  const side = Math.sqrt(steps.length), block = protein.block, value = (step) => peak * (clamp(step, 0, levels - 1) / (levels - 1)) ** 2;
  mapView.show({
    protein, side, block,
    title: `${short(protein.id)}: ${headName(layer, head)}`,
    file: `${short(protein.id)}_layer_${data.layers[layer]}_head_${data.heads[head]}`,
    image: paint(side, (pixel) => shade(scales.attention, steps[pixel] / (levels - 1))),
    axes: ["residue", "residue that it attends to"],
    scale: {
      title: "attention",
      stops: scales.attention,
      marks: QUARTERS.map((fraction) => [fraction, format(peak * fraction ** 2, 2)]),
    },
    pair(row, column) {
      const step = steps[row * side + column];
      const cells = `${cellName(this, row)} → ${cellName(this, column)}`;
      return `${cells}: ${between(value(step - 0.5), value(step + 0.5))}${blockNote(block)}`;
    },
  });
  performance.mark("first picture");
}

async function showContacts() {
  const protein = data.proteins[chosen.protein], contacts = protein.contacts;
  byId("contacts").hidden = !contacts;
  if (!contacts) return;
  byId("contacts-unpredicted").hidden = contacts.predicted;
  const pixels = await unpack(contacts);
  if (protein !== data.proteins[chosen.protein]) return;
  const side = Math.sqrt(pixels.length), { block, levels, predicted, known } = contacts;
  const value = (step) => clamp(step, 0, levels - 1) / (levels - 1);
  const scale = { title: "predicted", stops: scales.contact, marks: QUARTERS.map((mark) => [mark, format(mark)]) };
  contactView.show({
    protein, side, block,
    title: `${short(protein.id)}: contacts${predicted ? "" : " in the structure"}`,
    file: `${short(protein.id)}_contacts`,
    image: paint(side, (pixel) => {
      const row = Math.floor(pixel / side), column = pixel % side;
      if (row === column) return channels(FAINT);
      if (row < column) return predicted ? shade(scales.contact, value(pixels[pixel])) : [255, 255, 255];
      return pixels[pixel] ? channels(TRUTH) : [255, 255, 255];
    }),
    axes: ["residue", "residue"],
    scale: predicted ? scale : null,
    legend: known && "structure",
    pair(row, column) {
      const [low, high] = [Math.min(row, column), Math.max(row, column)];
      if (low === high) return cellName(this, low);
      const words = [], step = pixels[low * side + high];
      if (predicted) words.push(`predicted ${between(value(step - 0.5), value(step + 0.5))}${blockNote(block)}`);
      if (known) words.push(`${pixels[high * side + low] ? "in contact" : "no contact"} in the structure`);
      return `${cellName(this, low)} – ${cellName(this, high)}: ${words.join(", ")}`;
    },
  });
}

// The grid of all heads

const cells = data.layers.map(() => []); // [layer][head]

function buildGrid() {
  const line = byId("grid").createTHead().insertRow();
  line.append(headerCell(""), ...data.heads.map(headerCell));
  const body = byId("grid").createTBody();
  data.layers.forEach((number, layer) => {
    const row = body.insertRow();
    row.append(headerCell(number));
    data.heads.forEach((_, head) => cells[layer].push(headCell(row.insertCell(), layer, head)));
  });
}

function headerCell(words) {
  const cell = document.createElement("th");
  cell.textContent = words;
  return cell;
}

function headCell(cell, layer, head) {
  cell.setAttribute("role", "gridcell");
  cell.onclick = () => choose({ layer, head });
  cell.onfocus = cell.onmouseenter = () => (byId("grid-head").textContent = cell.getAttribute("aria-label"));
  cell.onkeydown = (event) => {
    if (event.key === "Enter" || event.key === " ") choose({ layer, head });
    else if (ARROWS[event.key]) goTo(layer + ARROWS[event.key][0], head + ARROWS[event.key][1]);
    else return;
    event.preventDefault();
  };
  return cell;
}

function goTo(layer, head) {
  const to = cells[clamp(layer, 0, cells.length - 1)][clamp(head, 0, data.heads.length - 1)];
  cells.flat().forEach((cell) => (cell.tabIndex = cell === to ? 0 : -1)); // the whole grid is one stop of the Tab key
  to.focus();
}

function measured() {
  const nothing = { name: "", values: cells.map((row) => row.map(() => null)) };
  const { name, values } = data.statistics[chosen.statistic] ?? nothing;
  const known = values.flat().filter((value) => value !== null);
  const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [null, null];
  const fraction = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  const colour = (value) => (value === null ? FAINT : css(scales.statistic, fraction(value)));
  return { name, values, low, high, colour };
}

function colourGrid() {
  const { name, values, low, high, colour } = measured();
  cells.forEach((row, layer) =>
    row.forEach((cell, head) => {
      cell.style.background = colour(values[layer][head]);
      cell.setAttribute("aria-label", `${headName(layer, head)}${name && `: ${name} ${format(values[layer][head])}`}`);
    }),
  );
  [byId("low").textContent, byId("high").textContent] = [format(low), format(high)];
  const pen = new CanvasPen(byId("scale"), 160, 12);
  for (let x = 0; x < 160; x++) pen.rect(x, 0, 1, 12, { fill: css(scales.statistic, x / 159) });
}

function drawGrid(newPen) {
  const { name, values, low, high, colour } = measured();
  const size = 22, left = 56, top = 62, width = data.heads.length * size, height = data.layers.length * size;
  const pen = newPen(Math.max(left + width + 20, 340), top + height + 46);
  pen.text(left, 16, name || "heads", { size: 13, bold: true });
  pen.text(left + width / 2, 36, "head", { align: "middle" });
  pen.text(14, top + height / 2, "layer", { align: "middle", turned: true });
  data.heads.forEach((number, head) => pen.text(left + (head + 0.5) * size, 52, number, { align: "middle", size: 11 }));
  data.layers.forEach((number, layer) => {
    pen.text(left - 6, top + (layer + 0.5) * size, number, { align: "end", size: 11 });
    values[layer].forEach((value, head) =>
      pen.rect(left + head * size, top + layer * size, size - 1, size - 1, { fill: colour(value) }),
    );
  });
  pen.text(left, top + height + 22, format(low), { size: 11 });
  for (let step = 0; step < 60; step++)
    pen.rect(left + 60 + 2 * step, top + height + 16, 2.4, 12, { fill: css(scales.statistic, step / 59) });
  pen.text(left + 188, top + height + 22, format(high), { size: 11 });
  pen.save(`heads_by_${name.split(" (")[0]}`);
}

function showHead() {
  cells.flat().forEach((cell) => {
    const isChosen = cell === cells[chosen.layer][chosen.head];
    cell.setAttribute("aria-selected", isChosen);
    cell.tabIndex = isChosen ? 0 : -1;
  });
  const name = headName(chosen.layer, chosen.head);
  byId("about-title").textContent = name[0].toUpperCase() + name.slice(1);
  byId("about").replaceChildren(
    ...data.statistics.flatMap(({ name, values }) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, value.textContent] = [name, format(values[chosen.layer][chosen.head])];
      return [term, value];
    }),
  );
}

// Tables

function sortTable(table, header, column) {
  const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  const sign = order === "ascending" ? 1 : -1, body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value ?? "";
  const words = (row) => row.cells[column].textContent;
  const compare = (a, b) => {
    const isMissing = (row) => value(row) === "" && ["", "undefined"].includes(words(row)); // last in either order
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    if (value(a) !== "" && value(b) !== "") return sign * (value(a) - value(b));
    return sign * words(a).localeCompare(words(b), "en", { numeric: true });
  };
  table.querySelectorAll("th").forEach((cell) => cell.setAttribute("aria-sort", cell === header ? order : "none"));
  body.append(...[...body.rows].sort(compare));
}

// Start

function choose(change) {
  Object.assign(chosen, change);
  for (const name of ["protein", "layer", "head", "statistic"]) byId(name).value = chosen[name];
  if ("statistic" in change) return colourGrid();
  showHead();
  showMap();
  if (contactView && "protein" in change) showContacts();
}

function offer(name, words) {
  byId(name).append(...words.map((word, index) => new Option(word, index)));
  byId(name).onchange = () => choose({ [name]: Number(byId(name).value) });
}

offer("protein", data.proteins.map(({ id }) => short(id)));
offer("layer", data.layers);
offer("head", data.heads);
offer("statistic", data.statistics.map(({ name }) => name));
buildGrid();
offerDownloads("grid", drawGrid);
for (const table of document.querySelectorAll(".sorts"))
  table.querySelectorAll("th").forEach((header, column) => {
    header.firstElementChild.onclick = () => sortTable(table, header, column);
  });
choose({ statistic: 0 });
if ("DecompressionStream" in window) choose({ protein: 0 });
else {
  byId("trouble").hidden = false;
  byId("trouble").textContent = "This browser cannot show the pictures of this page, because it lacks DecompressionStream.";
}
