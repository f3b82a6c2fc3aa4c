// A picture that the reader points at and zooms, with the mouse or the keyboard.

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

class View {
  constructor(figure) {
    this.figure = figure;
    this.canvas = byId(`${figure}-canvas`);
    this.cursor = this.dragged = this.picture = null; // the cell {top, left} of the pointer; the cell where a drag began
    this.canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.dragged || this.point(null));
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointerup", () => this.release());
    this.canvas.addEventListener("pointercancel", () => this.release(false));
    this.canvas.addEventListener("dblclick", () => this.showAll());
    this.canvas.addEventListener("keydown", (event) => this.type(event));
    byId(`${figure}-in`).onclick = () => this.zoom(1 / 2);
    byId(`${figure}-out`).onclick = () => this.zoom(2);
    byId(`${figure}-whole`).onclick = () => this.showAll();
    offerDownloads(figure, (newPen) => {
      const frame = frameOf(FULL_WIDTH), pen = newPen(frame.width, frame.height);
      drawPicture(pen, this.picture, this.view, frame);
      pen.save(this.picture.file);
    });
    document.addEventListener("themechange", () => this.picture && this.draw());
    new ResizeObserver(() => this.picture && this.frame.width !== this.newFrame().width && this.draw()).observe(
      this.canvas.parentElement,
    );
  }

  show(picture) {
    const isSameProtein = this.picture?.protein === picture.protein;
    this.picture = picture;
    this.canvas.setAttribute("aria-label", picture.title);
    const { block, protein, inBlock = "the maximum" } = picture, size = `${block} × ${block} residues`;
    byId(`${this.figure}-blocks`).textContent = block > 1
      ? `Each cell shows ${inBlock} of a block of ${size}; the protein has ${protein.sequence.length.toLocaleString("en")} residues.`
      : "";
    const list = (residues) =>
      residues.slice(0, 20).map((index) => residue(protein, index)).join(", ") + (residues.length > 20 ? ", …" : "");
    const labels = protein.sites.map(({ label, residues }) => `${short(label)} (${list(residues)})`);
    byId(`${this.figure}-sites`).textContent = labels.length ? `Marks at the edges: ${labels.join("; ")}.` : "";
    if (isSameProtein) this.draw(); // the next head is shown at the same zoom
    else this.showAll();
  }

  showAll() {
    this.cursor = this.dragged = null;
    this.look({ left: 0, top: 0, span: this.picture.side });
  }

  look({ left, top, span }) {
    const side = this.picture.side;
    span = clamp(Math.round(span), Math.min(MIN_CELLS, side), side);
    this.view = { left: clamp(Math.round(left), 0, side - span), top: clamp(Math.round(top), 0, side - span), span };
    this.draw();
  }

  zoom(factor) {
    const { left, top, span } = this.view;
    const fixed = this.cursor ?? { left: left + span / 2, top: top + span / 2 };
    const change = clamp(span * factor, Math.min(MIN_CELLS, span), this.picture.side) / span;
    const keep = (start, point) => point - (point - start) * change;
    this.look({ left: keep(left, fixed.left), top: keep(top, fixed.top), span: span * change });
  }

  newFrame() {
    return frameOf(this.canvas.parentElement.clientWidth);
  }

  draw() {
    const { picture, view } = this, frame = (this.frame = this.newFrame()), unit = frame.plot / view.span;
    const pen = new CanvasPen(this.canvas, frame.width, frame.height, theme());
    drawPicture(pen, picture, view, frame);
    const stroke = pen.theme.accent;
    const outline = (top, left, height, width) =>
      pen.rect(LEFT + (left - view.left) * unit, TOP + (top - view.top) * unit, width * unit, height * unit, { stroke, thick: 2 });
    if (this.cursor && this.dragged) outline(...this.selected());
    else if (this.cursor) {
      outline(this.cursor.top, this.cursor.left, 1, 1);
      const x = LEFT + (this.cursor.left - view.left + 0.5) * unit, y = TOP + (this.cursor.top - view.top + 0.5) * unit;
      pen.rect(LEFT - 3, y - 1, 6, 2, { fill: stroke });
      pen.rect(x - 1, TOP + frame.plot - 3, 2, 6, { fill: stroke });
    }
    byId(`${this.figure}-pair`).textContent = this.cursor ? picture.pair(this.cursor.top, this.cursor.left) : "\u00a0";
    const [rows, columns] = [view.top, view.left].map((start) => rangeName(picture, start, view.span));
    byId(`${this.figure}-caption`).textContent = `Rows ${rows}, columns ${columns}.`;
  }

  point(cell) {
    if (cell?.top === this.cursor?.top && cell?.left === this.cursor?.left) return;
    if (!cell && this.dragged) return; // outside, the drag keeps its last cell
    this.cursor = cell;
    this.draw();
  }

  cellAt(event) {
    const zoom = this.canvas.clientWidth / this.frame.width, unit = (zoom * this.frame.plot) / this.view.span;
    const column = Math.floor((event.offsetX - LEFT * zoom) / unit);
    const row = Math.floor((event.offsetY - TOP * zoom) / unit);
    const isInside = (cell) => cell >= 0 && cell < this.view.span;
    return isInside(row) && isInside(column) ? { top: this.view.top + row, left: this.view.left + column } : null;
  }

  press(event) {
    this.point(this.cellAt(event));
    if (event.pointerType === "touch" || event.button !== 0 || !this.cursor) return; // a finger scrolls the page
    this.canvas.setPointerCapture(event.pointerId);
    this.dragged = this.cursor;
  }

  release(isCompleted = true) {
    if (!this.dragged) return;
    const [top, left, height, width] = this.selected(), span = Math.max(height, width);
    this.dragged = null;
    if (!isCompleted || span < 3) return this.draw();
    this.look({ left: left - (span - width) / 2, top: top - (span - height) / 2, span });
  }

  selected() {
    const [from, to] = [this.dragged, this.cursor];
    const [top, left] = [Math.min(from.top, to.top), Math.min(from.left, to.left)];
    return [top, left, Math.abs(from.top - to.top) + 1, Math.abs(from.left - to.left) + 1];
  }

  type(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own zoom
    if (event.key in ARROWS) this.move(...ARROWS[event.key], event.shiftKey ? 10 : 1);
    else if (event.key === "+" || event.key === "=") this.zoom(1 / 2);
    else if (event.key === "-") this.zoom(2);
    else if (event.key === "0") this.showAll();
    else return;
    event.preventDefault();
  }

  move(down, right, cells) {
    const { left, top, span } = this.view, max = this.picture.side - 1;
    const from = this.cursor ?? { top: top + Math.floor(span / 2), left: left + Math.floor(span / 2) };
    const to = { top: clamp(from.top + cells * down, 0, max), left: clamp(from.left + cells * right, 0, max) };
    this.cursor = to;
    const follow = (start, cell) => clamp(start, cell - span + 1, cell);
    this.look({ left: follow(left, to.left), top: follow(top, to.top), span });
  }
}
