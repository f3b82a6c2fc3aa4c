// The picture of the points: zooming and moving, drawing, finding the point under the pointer, the lasso.

const MAX_ZOOM = 400, MARGIN = 24, REACH = 12; // pixels around the points, and from the pointer to the nearest point
const FEW = 20000; // more points are set pixel by pixel, which takes a tenth of the time
const GRID = 128;

class Picture {
  constructor() {
    this.canvas = byId("map-canvas");
    this.centre = [0.5, 0.5];
    this.zoom = 1;
    this.isLasso = false;
    this.line = []; // of the lasso, in coordinates of the points
    this.isWaiting = false;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.listen();
    whenChosen(["projection"], () => this.showWhole());
    whenChosen(["colouring", "off", "projection"], () => (this.groups = null));
    whenChosen(["colouring", "off", "protein", "selected"], () => this.draw());
    document.addEventListener("themechange", () => {
      this.groups = null;
      this.drawNow(); // paper does not wait for the next frame
    });
  }

  get size() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return { width, height, unit: (Math.min(width, height) - 2 * MARGIN) * this.zoom };
  }

  // From a point's coordinates to pixels of the layout, and back.
  place(x, y, { width, height, unit } = this.size) {
    return [width / 2 + (x - this.centre[0]) * unit, height / 2 - (y - this.centre[1]) * unit];
  }

  point(left, top, { width, height, unit } = this.size) {
    return [this.centre[0] + (left - width / 2) / unit, this.centre[1] - (top - height / 2) / unit];
  }

  get radius() {
    return Math.max(1.1, 4.5 * (300 / Math.max(numProteins, 300)) ** 0.3) * Math.min(this.zoom ** 0.25, 2.5);
  }

  // Zooming and moving

  showWhole() {
    const { x, y } = projection();
    this.centre = [Math.max(...extremes(x)) / 2, Math.max(...extremes(y)) / 2];
    this.zoom = 1;
    this.grid = makeGrid(x, y);
    this.draw();
  }

  zoomBy(factor, left = this.size.width / 2, top = this.size.height / 2) {
    const [x, y] = this.point(left, top);
    this.zoom = clamp(this.zoom * factor, 0.5, MAX_ZOOM);
    const [newX, newY] = this.point(left, top);
    this.centre = [this.centre[0] + x - newX, this.centre[1] + y - newY];
    this.draw();
  }

  moveBy(right, down) {
    const { unit } = this.size;
    this.centre = [this.centre[0] - right / unit, this.centre[1] + down / unit];
    this.draw();
  }

  showRow(row) {
    const { x, y } = projection(), [left, top] = this.place(x[row], y[row]), { width, height } = this.size;
    if (left < MARGIN || top < MARGIN || left > width - MARGIN || top > height - MARGIN) this.centre = [x[row], y[row]];
    this.draw();
  }

  // Drawing

  draw() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.isWaiting = false;
    const size = this.size, colours = theme(), density = window.devicePixelRatio || 1;
    if (!size.width) return;
    [this.canvas.width, this.canvas.height] = [size.width * density, size.height * density];
    const context = this.canvas.getContext("2d");
    this.groups ??= rowsByColour(colours);
    if (numProteins > FEW) this.setPixels(context, size, density, colours);
    else this.fillCircles(context, size, density, colours);
    context.scale(density, density);
    this.mark(context, size, colours);
    if (!performance.getEntriesByName("first picture").length) performance.mark("first picture");
  }

  // Yield the places of rows that are in view, in pixels of the layout.
  *inView(rows, { width, height, unit }) {
    const { x, y } = projection(), { radius } = this;
    const [left, top] = [width / 2 - this.centre[0] * unit, height / 2 + this.centre[1] * unit];
    for (const row of rows) {
      const right = left + x[row] * unit, down = top - y[row] * unit;
      if (right > -radius && down > -radius && right < width + radius && down < height + radius) yield [right, down];
    }
  }

  fillCircles(context, size, density, colours) {
    const { radius } = this;
    context.save();
    context.scale(density, density);
    context.fillStyle = colours.surface;
    context.fillRect(0, 0, size.width, size.height);
    for (const [colour, rows] of this.groups) {
      context.fillStyle = colour;
      context.beginPath();
      for (const [right, down] of this.inView(rows, size)) {
        context.moveTo(right + radius, down);
        context.arc(right, down, radius, 0, 2 * Math.PI);
      }
      context.fill();
    }
    context.restore();
  }

  setPixels(context, size, density, colours) {
    const { width, height } = this.canvas, image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), disc = discOf(this.radius * density, width);
    pixels.fill(asPixel(colours.surface));
    for (const [colour, rows] of this.groups) {
      const pixel = asPixel(colour);
      for (const [right, down] of this.inView(rows, size)) {
        const column = Math.round(right * density), line = Math.round(down * density);
        if (column < disc.reach || column >= width - disc.reach) continue; // the rest would appear at the other side
        for (const offset of disc.offsets) pixels[line * width + column + offset] = pixel;
      }
    }
    context.putImageData(image, 0, 0);
  }

  // The selected proteins, the chosen one with its nearest, and the line of the lasso.
  mark(context, size, colours) {
    const { x, y } = projection(), at = (row) => this.place(x[row], y[row], size);
    const stroke = (strokeStyle, lineWidth) => {
      Object.assign(context, { strokeStyle, lineWidth });
      context.stroke();
    };
    // With a border, so that it is seen among many dark points, too.
    const bordered = (colour, thick) => {
      stroke(colours.surface, thick + 3);
      stroke(colour, thick);
    };
    const circle = (row, radius) => {
      context.beginPath();
      context.arc(...at(row), radius, 0, 2 * Math.PI);
    };
    for (const row of chosen.selected) {
      circle(row, this.radius + 1);
      stroke(colours.ink, 1);
    }
    if (chosen.protein !== NOTHING) {
      const nearest = neighboursOf(chosen.protein).map(([row]) => row);
      for (const row of nearest) {
        context.beginPath();
        context.moveTo(...at(chosen.protein));
        context.lineTo(...at(row));
        stroke(colours.muted, 1);
      }
      for (const row of nearest) {
        circle(row, this.radius + 3);
        bordered(colours.ink, 1.5);
      }
      circle(chosen.protein, this.radius + 4);
      bordered(colours.ink, 3);
    }
    if (this.line.length < 2) return;
    context.beginPath();
    this.line.forEach(([atX, atY]) => context.lineTo(...this.place(atX, atY, size)));
    context.setLineDash([5, 4]);
    stroke(colours.ink, 1.5);
    context.setLineDash([]);
  }

  // The shown point that is nearest to a place, or nothing.
  find(left, top) {
    const { x, y } = projection(), size = this.size, [atX, atY] = this.point(left, top, size);
    const reach = (REACH + this.radius) / size.unit;
    let best = NOTHING, least = reach ** 2;
    for (const row of this.grid.near(atX, atY, reach)) {
      const distance = (x[row] - atX) ** 2 + (y[row] - atY) ** 2;
      if (distance <= least && isShown(row)) [best, least] = [row, distance];
    }
    return best;
  }

  // The pointer and the keys

  listen() {
    const { canvas } = this;
    const place = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / (event.deltaMode ? 10 : 400)), ...place(event));
    });
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drag = { from: place(event), last: place(event), hasMoved: false };
      this.line = this.isLasso ? [this.point(...place(event))] : [];
    };
    canvas.onpointermove = (event) => (this.drag ? this.dragTo(...place(event)) : this.hover(...place(event)));
    canvas.onpointerup = (event) => this.drop(...place(event));
    canvas.onpointercancel = () => ([this.drag, this.line] = [null, []]);
    canvas.onpointerleave = () => this.drag ?? describe(chosen.protein);
    canvas.onkeydown = (event) => this.press(event);
  }

  hover(left, top) {
    const row = this.find(left, top);
    this.canvas.style.cursor = row === NOTHING ? "" : "pointer";
    describe(row === NOTHING ? chosen.protein : row);
  }

  dragTo(left, top) {
    const { drag } = this;
    drag.hasMoved ||= Math.hypot(left - drag.from[0], top - drag.from[1]) > 3;
    if (!drag.hasMoved) return;
    if (this.isLasso) {
      this.line.push(this.point(left, top));
      this.draw();
    } else {
      this.canvas.classList.add("moving");
      this.moveBy(left - drag.last[0], top - drag.last[1]);
    }
    drag.last = [left, top];
  }

  drop(left, top) {
    const { drag, line } = this;
    [this.drag, this.line] = [null, []];
    this.canvas.classList.remove("moving");
    if (!drag) return;
    if (!drag.hasMoved) choose({ protein: this.find(left, top) });
    else if (line.length > 2) choose({ selected: new Set(rowsInside(line)) });
  }

  press(event) {
    const step = event.shiftKey ? 200 : 50;
    const actions = {
      ArrowLeft: () => this.moveBy(step, 0),
      ArrowRight: () => this.moveBy(-step, 0),
      ArrowUp: () => this.moveBy(0, step),
      ArrowDown: () => this.moveBy(0, -step),
      "+": () => this.zoomBy(1.4),
      "=": () => this.zoomBy(1.4),
      "-": () => this.zoomBy(1 / 1.4),
      0: () => this.showWhole(),
      Escape: () => choose({ protein: NOTHING }),
    };
    if (!(event.key in actions) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
  }
}

// The pixels of a disc, by their distance from its middle in an image of a width; at least a square of two.
function discOf(radius, width) {
  const reach = Math.max(1, Math.round(radius)), offsets = [];
  for (let down = -reach; down < reach; down++)
    for (let right = -reach; right < reach; right++)
      if (Math.hypot(down + 0.5, right + 0.5) <= Math.max(radius, 0.8)) offsets.push(down * width + right);
  return { reach, offsets };
}

// A colour such as #1d5fa6 or rgb(29,95,166) as a pixel of an image, whose bytes are red, green, blue and opacity.
function asPixel(colour) {
  const [red, green, blue] = colour.startsWith("#") ? channels(colour) : colour.match(/\d+/g).map(Number);
  return new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
}

function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
}

// The points in squares, so that those near a place are found among few.
function makeGrid(x, y) {
  const squares = new Map(), index = (value) => clamp(Math.floor(value * GRID), 0, GRID - 1);
  for (let row = 0; row < numProteins; row++) {
    const key = index(x[row]) * GRID + index(y[row]);
    (squares.get(key) ?? squares.set(key, []).get(key)).push(row);
  }
  return {
    *near(atX, atY, reach) {
      for (let column = index(atX - reach); column <= index(atX + reach); column++)
        for (let line = index(atY - reach); line <= index(atY + reach); line++)
          yield* squares.get(column * GRID + line) ?? [];
    },
  };
}

// The shown points inside a closed line: those from which a ray to the right crosses it an odd number of times.
function rowsInside(line) {
  const { x, y } = projection(), rows = [];
  for (let row = 0; row < numProteins; row++) {
    let isInside = false;
    for (let end = 0, start = line.length - 1; end < line.length; start = end++) {
      const [[startX, startY], [endX, endY]] = [line[start], line[end]];
      const crosses = startY > y[row] !== endY > y[row];
      if (crosses && x[row] < startX + ((y[row] - startY) / (endY - startY)) * (endX - startX)) isInside = !isInside;
    }
    if (isInside && isShown(row)) rows.push(row);
  }
  return rows;
}
