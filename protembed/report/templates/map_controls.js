// What stands around the picture: projections, legend, search, the chosen protein, what was selected, downloads.

const MAX_FOUND = 50;
const picture = new Picture();

function describe(row) {
  if (row === NOTHING) return byId("map-words").replaceChildren("\u00a0");
  const value = valueOf(row, colouring());
  byId("map-words").textContent = [data.ids[row], value && `${colouring().name}: ${value}`, data.descriptions[row]].filter(Boolean).join(" · ");
}

// Projections and zoom

for (const button of document.querySelectorAll("[data-projection]")) {
  const number = Number(button.dataset.projection);
  button.onclick = () => choose({ projection: number });
  whenChosen(["projection"], () => button.setAttribute("aria-pressed", number === chosen.projection));
}
whenChosen(["projection"], () => (byId("map-reading").textContent = projection().reading));
byId("map-in").onclick = () => picture.zoomBy(1.5);
byId("map-out").onclick = () => picture.zoomBy(1 / 1.5);
byId("map-whole").onclick = () => picture.showWhole();
byId("map-lasso").onclick = () => {
  picture.isLasso = !picture.isLasso;
  byId("map-lasso").setAttribute("aria-pressed", picture.isLasso);
  picture.canvas.classList.toggle("moves", !picture.isLasso);
};

// Legend

byId("map-colour").onchange = () => choose({ colouring: Number(byId("map-colour").value) });

function showLegend() {
  const { classes, low, high } = colouring();
  byId("map-classes").hidden = !classes;
  byId("map-scale").hidden = Boolean(classes);
  if (classes) byId("map-legend").replaceChildren(...legendEntries());
  else {
    [byId("map-low").textContent, byId("map-high").textContent] = [format(low, 3), format(high, 3)];
    const strip = byId("map-scale").querySelector("canvas"), context = strip.getContext("2d");
    for (let step = 0; step < 256; step++) {
      context.fillStyle = shadeOf(step / 255, theme());
      context.fillRect(step, 0, 1, 1);
    }
  }
}

function legendEntries() {
  const { classes, codes } = colouring(), counts = new Map();
  for (const code of codes) counts.set(code, (counts.get(code) ?? 0) + 1);
  const listed = [...classes.keys(), ...(counts.has(NO_CODE) ? [NO_CODE] : [])];
  return listed.map((code) => {
    const swatch = element("i");
    swatch.style.background = colourOf(data, code, theme());
    const words = element("span", { textContent: code === NO_CODE ? "without a label" : classes[code] });
    const count = element("span", { textContent: (counts.get(code) ?? 0).toLocaleString("en") });
    const button = element("button", { type: "button" }, swatch, words, count);
    button.setAttribute("aria-pressed", !chosen.off.has(code));
    button.onclick = () => {
      const off = new Set(chosen.off);
      if (!off.delete(code)) off.add(code);
      choose({ off });
      byId("map-legend").children[listed.indexOf(code)].firstChild.focus();
    };
    return element("li", {}, button);
  });
}

byId("map-all").onclick = () => choose({ off: new Set() });
byId("map-none").onclick = () => choose({ off: new Set([...colouring().classes.keys(), NO_CODE]) });
whenChosen(["colouring", "off"], showLegend);
document.addEventListener("themechange", showLegend);

// Search

function rowButton(row, note) {
  const button = element("button", { type: "button" }, element("span", { textContent: data.ids[row] }));
  if (note) button.append(element("span", { textContent: note }));
  button.onclick = () => {
    choose({ protein: row });
    picture.showRow(row);
  };
  return element("li", {}, button);
}

byId("map-find").oninput = () => {
  const words = byId("map-find").value.trim().toLowerCase(), found = [];
  const contains = (text) => text.toLowerCase().includes(words);
  for (let row = 0; words && row < numProteins && found.length < MAX_FOUND; row++)
    if (contains(data.ids[row]) || contains(data.descriptions[row])) found.push(row);
  const none = element("li", { className: "note", textContent: "No protein has these letters." });
  byId("map-found").replaceChildren(...(words && !found.length ? [none] : found.map((row) => rowButton(row))));
};

// The chosen protein

whenChosen(["protein", "colouring"], () => {
  const row = chosen.protein;
  byId("map-chosen").hidden = row === NOTHING;
  describe(row);
  if (row === NOTHING) return;
  byId("map-name").textContent = data.ids[row];
  const values = data.colourings.map((each) => [each.name, valueOf(row, each)]).filter(([, value]) => value);
  byId("map-about").textContent = [data.descriptions[row], ...values.map((pair) => pair.join(": "))].filter(Boolean).join("; ");
  const nearest = neighboursOf(row).map(([other, cosine]) => rowButton(other, cosine.toFixed(2)));
  byId("map-neighbours").replaceChildren(...nearest);
});

// The selected proteins

const selectedRows = () => (chosen.selected.size ? [...chosen.selected].sort((a, b) => a - b) : [...data.ids.keys()]);

whenChosen(["selected"], () => {
  const number = chosen.selected.size;
  byId("map-selected").textContent = number
    ? `${number.toLocaleString("en")} protein${number === 1 ? "" : "s"}`
    : "Draw a line around points with the lasso, or select all classes that are shown.";
  byId("map-clear").disabled = !number;
});
byId("map-select-shown").onclick = () => choose({ selected: new Set([...data.ids.keys()].filter(isShown)) });
byId("map-clear").onclick = () => choose({ selected: new Set() });

byId("map-tsv").onclick = () => {
  const { x, y, origin, step, name } = projection(), coordinate = (value, axis) => (origin[axis] + value * 65535 * step).toPrecision(6);
  const header = ["id", "description", `${name}_1`, `${name}_2`, ...data.colourings.map((each) => each.name)];
  const lines = selectedRows().map((row) => [
    data.ids[row], data.descriptions[row], coordinate(x[row], 0), coordinate(y[row], 1),
    ...data.colourings.map((each) => (each.classes ? valueOf(row, each) : Number.isNaN(each.values[row]) ? "" : each.values[row])),
  ]);
  const text = [header, ...lines].map((cells) => `${cells.map((cell) => asCell(String(cell))).join("\t")}\n`).join("");
  save(new Blob([text], { type: "text/tab-separated-values" }), "map_proteins.tsv");
};

if (data.sequences)
  byId("map-fasta").onclick = () => {
    const oneLine = (text) => text.replace(/\s+/g, " ").trim();
    const records = selectedRows().filter((row) => data.sequences[row]).map(
      (row) => `>${oneLine(`${data.ids[row]} ${data.descriptions[row]}`)}\n${data.sequences[row].replace(/.{1,60}/g, "$&\n")}`,
    );
    save(new Blob(records, { type: "text/plain" }), "map_proteins.fasta");
  };

// The picture as a file: what is shown of the map, with its legend, in light colours

const LEGEND = 230, TITLE = 34;

function drawFile(newPen) {
  const size = picture.size, { x, y, title } = projection(), { classes, low, high, name } = colouring();
  const pen = newPen(size.width + LEGEND, size.height + TITLE), colours = pen.theme, radius = picture.radius;
  pen.text(8, TITLE / 2, `${numProteins.toLocaleString("en")} proteins, ${title}`, { size: 14, bold: true });
  for (const [colour, rows] of rowsByColour(colours)) {
    const places = rows.map((row) => picture.place(x[row], y[row], size)).filter(([left, top]) => left > 0 && top > 0 && left < size.width && top < size.height);
    dots(pen, places.map(([left, top]) => [left, top + TITLE]), colour, radius);
  }
  const left = size.width + 16;
  pen.text(left, TITLE + 10, short(name), { bold: true });
  if (!classes) {
    for (let step = 0; step < 64; step++) pen.rect(left + 2 * step, TITLE + 24, 2, 12, { fill: shadeOf(step / 63, colours) });
    pen.text(left, TITLE + 48, format(low, 3), { size: 11 });
    pen.text(left + 128, TITLE + 48, format(high, 3), { size: 11, align: "end" });
  } else
    classes.slice(0, data.classColours.light.length).forEach((label, code) => {
      dots(pen, [[left + 5, TITLE + 32 + 20 * code]], colourOf(data, code, colours), 5);
      pen.text(left + 16, TITLE + 32 + 20 * code, label.length > 28 ? `${label.slice(0, 27)}…` : label);
    });
  pen.save("map");
}

// A dot is a line without length, with round ends.
function dots(pen, places, colour, radius) {
  const d = places.map(([left, top]) => `M${left.toFixed(1)} ${top.toFixed(1)}h.01`).join("");
  if (pen.root) return pen.make("path", { d, stroke: colour, "stroke-width": 2 * radius, "stroke-linecap": "round", fill: "none" });
  Object.assign(pen.context, { strokeStyle: colour, lineWidth: 2 * radius, lineCap: "round" });
  pen.context.stroke(new Path2D(d));
}

offerDownloads("map", drawFile);

choose({ ...chosen });
