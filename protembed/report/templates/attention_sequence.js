// The protein, letter by letter: annotated residues, and what a chosen residue attends to.

const TEN = 10;
let letters = []; // the elements of the residues

function showSequence() {
  const { sequence, first, sites, covered, id } = protein(), list = byId("sequence");
  const isCovered = covered && new Set(covered), isSite = new Set(sites.flatMap(({ residues }) => residues));
  letters = [...sequence].map((letter, index) => {
    const labels = labelsOf(protein(), index), name = residue(protein(), index);
    const made = element("span", { textContent: letter, tabIndex: index === 0 ? 0 : -1, title: labels ? `${name}: ${labels}` : name });
    made.setAttribute("role", "option");
    made.setAttribute("aria-label", labels ? `${name}, ${labels}` : name);
    made.classList.toggle("site", isSite.has(index));
    made.classList.toggle("uncovered", Boolean(isCovered) && !isCovered.has(index));
    return made;
  });
  const groups = Array.from({ length: Math.ceil(letters.length / TEN) }, (_, ten) => {
    const number = element("span", { className: "number", textContent: first + ten * TEN });
    number.setAttribute("aria-hidden", "true");
    const group = element("span", { className: "ten" }, number, ...letters.slice(ten * TEN, (ten + 1) * TEN));
    group.setAttribute("role", "group");
    return group;
  });
  list.setAttribute("aria-label", `Residues of ${short(id)}`);
  list.replaceChildren(...groups);
  byId("sequence-sites").textContent = describeMarks();
}

function describeMarks() {
  const { sites, covered, sequence } = protein(), sentences = [];
  if (sites.length) sentences.push(`Underlined: ${sites.map(({ label, residues }) => `${short(label)} (${residues.length})`).join(", ")}.`);
  if (covered && covered.length < sequence.length)
    sentences.push(`Slanted: ${sequence.length - covered.length} residues without coordinates in the structure.`);
  return sentences.join(" ");
}

const shadeSequence = withChosenMap(({ steps, side, levels }, { block }) => {
  const { residue: from } = chosen, stops = theme().scales.attention, row = Math.floor(from / block) * side;
  letters.forEach((letter, index) => {
    const colour = shade(stops, steps[row + Math.floor(index / block)] / (levels - 1));
    letter.setAttribute("aria-selected", index === from);
    letter.style.background = from === null ? "" : `rgb(${colour.join(",")})`;
    letter.style.color = from === null ? "" : isBright(colour) ? "#000" : "#fff";
  });
  if (from !== null) bringIntoView(byId("sequence"), letters[from]);
  byId("sequence-shade").textContent = from === null ? "Choose a residue to see what it attends to." : describeShade(from, block);
});

function describeShade(from, block) {
  const blocks = block > 1 ? `, by the maximum of each block of ${block} residues` : "";
  const what = `${residue(protein(), from)} attends to in ${headName(chosen.layer, chosen.head)}${blocks}`;
  return `Shaded by what ${what}. Choose it again to end this.`;
}

// Whether black is easier to read on a colour than white (relative luminance of WCAG 2.2).
function isBright(colour) {
  const [red, green, blue] = colour.map((part) => (part <= 10 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179;
}

const chooseResidue = (index) => choose({ residue: index === chosen.residue ? null : index });

byId("sequence").onclick = ({ target }) => letters.includes(target) && chooseResidue(letters.indexOf(target));
byId("sequence").onkeydown = (event) => {
  const from = letters.indexOf(event.target);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: TEN, ArrowUp: -TEN, Home: -Infinity, End: Infinity }[event.key];
  if (from < 0) return;
  if (step) {
    const to = letters[clamp(from + step, 0, letters.length - 1)];
    [letters[from].tabIndex, to.tabIndex] = [-1, 0];
    to.focus();
  } else if (event.key === "Enter" || event.key === " ") chooseResidue(from);
  else return;
  event.preventDefault();
};
whenChosen(["protein"], showSequence);
whenChosen(["protein", "layer", "head", "residue"], shadeSequence);
document.addEventListener("themechange", () => letters.length && shadeSequence());
