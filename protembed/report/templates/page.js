"use strict";
// Every page begins with this script: the theme, tables that sort, copy and save, and what further scripts share.
// Strings from the data enter the page as text only (textContent, Option, fillText, createTextNode), never as markup.
const byId = (id) => document.getElementById(id);

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_"); // an identifier is not a path
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Light and dark: by the system, until the reader chooses

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (systemIsDark.matches ? "dark" : "light")) === "dark";

// What is drawn in colours of the theme is drawn again on "themechange".
function showTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
  document.dispatchEvent(new Event("themechange"));
}

byId("theme").hidden = false;
byId("theme").onclick = () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
};
systemIsDark.addEventListener("change", showTheme);

// Tables

const valuesOf = (cell) => (cell.dataset.values === undefined ? null : cell.dataset.values.split(" "));

function sortTable(table, header, column) {
  const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  const sign = order === "ascending" ? 1 : -1, body = table.tBodies[0];
  const value = (row) => valuesOf(row.cells[column])?.[0] ?? "";
  const words = (row) => row.cells[column].textContent;
  const compare = (a, b) => {
    const isMissing = (row) => value(row) === "" && ["", "undefined"].includes(words(row)); // last in either order
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    if (value(a) !== "" && value(b) !== "") return sign * (value(a) - value(b));
    return sign * words(a).localeCompare(words(b), "en", { numeric: true });
  };
  table.tHead.querySelectorAll("th").forEach((cell) => cell.setAttribute("aria-sort", cell === header ? order : "none"));
  body.append(...[...body.rows].sort(compare));
}

// The text of a cell of a TSV, which a spreadsheet does not read as a formula.
const asCell = (words) => (/^[=+\-@"]/.test(words) && isNaN(words) ? `'${words}` : words).replace(/[\t\n\r]/g, " ");

// All digits, and both ends of an interval in columns of their own.
function asTsv(table) {
  const rows = [...table.tBodies[0].rows], names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const widths = names.map((_, column) => Math.max(1, ...rows.map((row) => valuesOf(row.cells[column])?.length ?? 1)));
  const header = names.flatMap((name, column) => (widths[column] === 3 ? [name, `${name} low`, `${name} high`] : [name]));
  const lines = rows.map((row) =>
    widths.flatMap((width, column) => {
      const values = valuesOf(row.cells[column]) ?? [row.cells[column].textContent];
      return Array.from({ length: width }, (_, index) => values[index] ?? "");
    }),
  );
  return [header, ...lines].map((cells) => `${cells.map(asCell).join("\t")}\n`).join("");
}

async function copyTable(table, button) {
  try {
    await navigator.clipboard.writeText(asTsv(table));
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser refused";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

for (const block of document.querySelectorAll(".table")) {
  const table = block.querySelector("table");
  const headers = table.matches(".matrix") ? [] : table.tHead.querySelectorAll("th");
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.onclick = () => sortTable(table, header, column);
    header.setAttribute("aria-sort", "none");
    header.replaceChildren(button);
  });
  block.querySelector(".buttons").hidden = false;
  block.querySelector(".copy").onclick = (event) => copyTable(table, event.currentTarget);
  block.querySelector(".tsv").onclick = () =>
    save(new Blob([asTsv(table)], { type: "text/tab-separated-values" }), `${table.dataset.name}.tsv`);
}

// Paper is light, and shows what the reader could open

let themeOnScreen;

addEventListener("beforeprint", () => {
  themeOnScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  for (const part of document.querySelectorAll("details:not([open])")) [part.open, part.dataset.opened] = [true, ""];
  showTheme();
});

addEventListener("afterprint", () => {
  if (themeOnScreen === undefined) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = themeOnScreen;
  for (const part of document.querySelectorAll("details[data-opened]")) {
    part.open = false;
    delete part.dataset.opened;
  }
  showTheme();
});

showTheme();
