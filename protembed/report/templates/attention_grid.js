// The grid of all heads, coloured by a statistic.

const cells = data.layers.map(() => []); // [layer][head]

function buildGrid() {
  const line = byId("grid").createTHead().insertRow();
  line.append(headerCell("", "col"), ...data.heads.map((number) => headerCell(number, "col")));
  const body = byId("grid").createTBody();
  data.layers.forEach((number, layer) => {
    const row = body.insertRow();
    row.append(headerCell(number, "row"));
    data.heads.forEach((_, head) => cells[layer].push(headCell(row.insertCell(), layer, head)));
  });
}

function headerCell(words, scope) {
  return element(words === "" ? "td" : "th", { textContent: words, ...(words === "" ? {} : { scope }) });
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
  const to = cells[clamp(layer, 0, cells.length - 1)][clamp(head, 0, numHeads - 1)];
  cells.flat().forEach((cell) => (cell.tabIndex = cell === to ? 0 : -1)); // the whole grid is one stop of the Tab key
  to.focus();
}

function measured() {
  const nothing = { name: "", values: cells.map((row) => row.map(() => null)) };
  const { name, values } = data.statistics[chosen.statistic] ?? nothing;
  const known = values.flat().filter((value) => value !== null);
  const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [null, null];
  const fraction = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  const colour = (value, colours) => (value === null ? colours.rule : css(colours.scales.statistic, fraction(value)));
  return { name, values, low, high, colour };
}

function colourGrid() {
  const { name, values, low, high, colour } = measured(), colours = theme();
  cells.forEach((row, layer) =>
    row.forEach((cell, head) => {
      cell.style.background = colour(values[layer][head], colours);
      cell.setAttribute("aria-label", `${headName(layer, head)}${name && `: ${name} ${format(values[layer][head])}`}`);
    }),
  );
  byId("statistic-name").textContent = name; // on paper, where there are no lists
  [byId("low").textContent, byId("high").textContent] = [format(low), format(high)];
  const pen = new CanvasPen(byId("scale"), 160, 12, colours);
  for (let x = 0; x < 160; x++) pen.rect(x, 0, 1, 12, { fill: css(colours.scales.statistic, x / 159) });
}

function drawGrid(newPen) {
  const { name, values, low, high, colour } = measured();
  const size = 22, left = 56, top = 62, width = numHeads * size, height = data.layers.length * size;
  const pen = newPen(Math.max(left + width + 20, 340), top + height + 46);
  pen.text(left, 16, name || "heads", { size: 13, bold: true });
  pen.text(left + width / 2, 36, "head", { align: "middle" });
  pen.text(14, top + height / 2, "layer", { align: "middle", turned: true });
  data.heads.forEach((number, head) => pen.text(left + (head + 0.5) * size, 52, number, { align: "middle", size: 11 }));
  data.layers.forEach((number, layer) => {
    pen.text(left - 6, top + (layer + 0.5) * size, number, { align: "end", size: 11 });
    values[layer].forEach((value, head) =>
      pen.rect(left + head * size, top + layer * size, size - 1, size - 1, { fill: colour(value, pen.theme) }),
    );
  });
  pen.text(left, top + height + 22, format(low), { size: 11 });
  for (let step = 0; step < 60; step++)
    pen.rect(left + 60 + 2 * step, top + height + 16, 2.4, 12, { fill: css(pen.theme.scales.statistic, step / 59) });
  pen.text(left + 188, top + height + 22, format(high), { size: 11 });
  pen.save(`heads_by_${name.split(" (")[0]}`);
}

function markHead() {
  const { layer, head } = chosen;
  cells.flat().forEach((cell) => {
    const isChosen = cell === cells[layer]?.[head];
    cell.setAttribute("aria-selected", isChosen);
    cell.tabIndex = isChosen ? 0 : -1;
  });
  if (head === MEAN) cells[Math.max(layer, 0)][0].tabIndex = 0;
}

byId("statistic").append(...data.statistics.map(({ name }, index) => new Option(name, index)));
byId("statistic").onchange = () => choose({ statistic: Number(byId("statistic").value) });
buildGrid();
offerDownloads("grid", drawGrid);
whenChosen(["statistic"], colourGrid);
whenChosen(["layer", "head"], markHead);
document.addEventListener("themechange", colourGrid);
