// A square picture of residue pairs: attention or contacts. A cell is one of its pixels: a residue pair, or a block.

// The pixels of a picture, row by row.
async function unpack({ pixels, differences }) {
  const values = await inflate(pixels);
  return differences ? addPredictions(values) : values;
}

// The same prediction as `predict_pixels` in `pictures.py`.
function addPredictions(pixels) {
  const side = Math.sqrt(pixels.length);
  for (let pixel = 0; pixel < pixels.length; pixel++) {
    const isFirst = pixel % side === 0, isTop = pixel < side;
    const left = isFirst ? 0 : pixels[pixel - 1], above = isTop ? 0 : pixels[pixel - side];
    const corner = isFirst || isTop ? 0 : pixels[pixel - side - 1];
    pixels[pixel] += clamp(left + above - corner, Math.min(left, above), Math.max(left, above));
  }
  return pixels;
}

const LEFT = 62, TOP = 30, MARGIN_RIGHT = 88, MARGIN_BOTTOM = 54, FULL_WIDTH = 704, MIN_WIDTH = 280, MIN_CELLS = 8;

// Margins have the size of their text, whatever the width; the plot has the rest.
function frameOf(width) {
  const plot = clamp(Math.round(width), MIN_WIDTH, FULL_WIDTH) - LEFT - MARGIN_RIGHT;
  return { plot, width: LEFT + plot + MARGIN_RIGHT, height: TOP + plot + MARGIN_BOTTOM };
}

const residue = (protein, index) => `${protein.sequence[index]}${protein.first + index}`;
const labelsOf = (protein, first, last = first) =>
  protein.sites
    .filter(({ residues }) => residues.some((index) => first <= index && index <= last))
    .map(({ label }) => short(label))
    .join(", ");

function cellName({ protein, block }, cell) {
  const first = cell * block, last = Math.min(first + block, protein.sequence.length) - 1;
  const labels = labelsOf(protein, first, last);
  const name = block === 1 ? residue(protein, first) : `${residue(protein, first)}–${residue(protein, last)}`;
  return labels ? `${name} (${labels})` : name;
}

function rangeName(picture, cell, span) {
  const last = Math.min((cell + span) * picture.block, picture.protein.sequence.length) - 1;
  return `${residue(picture.protein, cell * picture.block)} to ${residue(picture.protein, last)}`;
}

function ticks({ protein, block }, start, span, plot) {
  const width = plot / (span * block);
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => size * width >= 38) ?? 5000;
  const numbers = [], letters = [];
  for (let index = start * block; index < Math.min((start + span) * block, protein.sequence.length); index++) {
    const position = (((index + 0.5) / block - start) / span) * plot;
    if ((protein.first + index) % step === 0) numbers.push([position, residue(protein, index)]);
    if (width >= 9 && step > 1) letters.push([position, protein.sequence[index]]);
  }
  return { numbers, letters };
}

function drawAxes(pen, picture, { left, top, span }, { plot, height }) {
  pen.rect(LEFT, TOP, plot, plot, { stroke: pen.theme.ink });
  const [across, down] = [ticks(picture, left, span, plot), ticks(picture, top, span, plot)];
  const bottom = TOP + plot, away = across.letters.length ? 14 : 0, fill = pen.theme.muted;
  for (const [x, words] of across.letters) pen.text(LEFT + x, bottom + 9, words, { align: "middle", size: 10, fill });
  for (const [y, words] of down.letters) pen.text(LEFT - 9, TOP + y, words, { align: "middle", size: 10, fill });
  for (const [x, words] of across.numbers) {
    if (!away) pen.rect(LEFT + x - 0.5, bottom, 1, 4, { fill: pen.theme.ink });
    pen.text(LEFT + x, bottom + 11 + away, words, { align: "middle", size: 11, fill });
  }
  for (const [y, words] of down.numbers) {
    if (!away) pen.rect(LEFT - 4, TOP + y - 0.5, 4, 1, { fill: pen.theme.ink });
    pen.text(LEFT - 7 - away, TOP + y, words, { align: "end", size: 11, fill });
  }
  pen.text(LEFT + plot / 2, height - 14, picture.axes[1], { align: "middle" });
  pen.text(8, TOP + plot / 2, picture.axes[0], { align: "middle", turned: true });
}

// Labelled residues, along the upper and the right edge, which have no numbers.
function drawSites(pen, { protein, block }, { left, top, span }, { plot }) {
  const unit = plot / span, thick = Math.max(unit, 2), fill = pen.theme.third;
  const residues = protein.sites.flatMap((site) => site.residues);
  for (const cell of new Set(residues.map((index) => Math.floor(index / block)))) {
    const [x, y] = [cell - left, cell - top];
    if (x >= 0 && x < span) pen.rect(LEFT + (x + 0.5) * unit - thick / 2, TOP - 6, thick, 5, { fill });
    if (y >= 0 && y < span) pen.rect(LEFT + plot + 1, TOP + (y + 0.5) * unit - thick / 2, 5, thick, { fill });
  }
}

function drawScale(pen, { scale, legend = [] }, { plot }) {
  const x = LEFT + plot + 16, y = TOP + 22, height = scale ? Math.min(200, plot / 2) : -18, steps = 50;
  legend.forEach(({ name, colour }, line) => {
    pen.rect(x, y + height + 18 + 20 * line, 12, 12, { fill: pen.theme[colour] });
    pen.text(x + 18, y + height + 24 + 20 * line, name, { size: 11 });
  });
  if (!scale) return;
  pen.text(x, TOP + 6, scale.title);
  for (let step = 0; step < steps; step++) {
    const fraction = 1 - step / (steps - 1); // the steps overlap a little, so that no gap shows between them
    const fill = css(pen.theme.scales[scale.use], fraction);
    pen.rect(x, y + (step * height) / steps, 12, height / steps + 0.6, { fill });
  }
  for (const [fraction, words] of scale.marks) pen.text(x + 18, y + (1 - fraction) * height, words, { size: 11 });
}

// A picture has a `protein`, its `side` and `block`, `image` (a canvas by theme), `title`, `file`, `axes`, `scale`,
// `legend`, `pair`, which describes a cell, and, where marks lie on the image, `draw`.
function drawPicture(pen, picture, view, frame) {
  pen.text(LEFT, TOP - 16, picture.title, { size: 13, bold: true });
  const { left, top, span } = view, { plot } = frame;
  pen.picture(picture.image(pen.theme), [left, top, span, span], [LEFT, TOP, plot, plot]);
  picture.draw?.(pen, view, frame);
  drawAxes(pen, picture, view, frame);
  drawSites(pen, picture, view, frame);
  drawScale(pen, picture, frame);
}
