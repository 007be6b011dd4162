// The image or the map of a layer, with the kernel before it: its drawing, and the handling of
// pointer and keys. `maps`, `layers`, `stages` and the callbacks are defined in explorer.js.

// Screen pixels: the largest cell, the smallest cell that has padding drawn, the largest thumbnail.
const LARGEST_CELL = 56, SMALLEST_CELL_WITH_PADDING = 3, LARGEST_THUMBNAIL = 56;

class Stage {
  constructor(index) {
    this.index = index;
    this.channel = this.row = this.column = 0;
    this.info = element("p", { className: "info quiet" });
    this.canvas = element("canvas", { className: "map", tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "map");
    this.frame = element("div", { className: "frame" }, this.canvas);
    this.message = element("p", { className: "mistake" });
    this.picker = element("select");
    this.picker.setAttribute("aria-label", `channel of ${mapName(index)}`);
    this.thumbnails = element("canvas", { className: "thumbnails" });
    this.thumbnails.setAttribute("aria-hidden", "true");
    this.choice = element("div", { className: "choice" }, this.picker, this.thumbnails);
    this.formula = element("p", { className: "formula quiet" });
    const column = element("div", { className: "column" }, this.frame, this.message, this.choice);
    this.section = element("section", { className: "stage" });
    this.section.setAttribute("aria-label", mapName(index));
    if (index) this.section.append(this.kernelButton());
    column.prepend(element("h2", {}, mapName(index)), this.info);
    column.append(this.formula);
    this.section.append(column);
    this.listen();
  }

  kernelButton() {
    this.kernel = element("canvas");
    this.kernelText = element("span");
    const arrow = element("span", { className: "arrow", ariaHidden: "true" }, "→");
    this.button = element("button", { type: "button", className: "kernel" },
      this.kernel, this.kernelText, arrow);
    this.button.addEventListener("click", () => {
      edit(this.index - 1);
      document.querySelector("#settings .weights input, #settings .field input")?.focus();
    });
    return this.button;
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => point(this.cellAt(event)));
    canvas.addEventListener("pointerleave", () => point(null));
    canvas.addEventListener("pointerdown", (event) => {
      const cell = this.cellAt(event);
      if (cell) Object.assign(this, { row: cell.row, column: cell.column });
      keep(this.index);
    });
    canvas.addEventListener("focus", () => { pointed = null; keep(this.index); announce(); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.picker.addEventListener("change", () => this.choose(Number(this.picker.value)));
    this.thumbnails.addEventListener("click", (event) => {
      const channel = this.thumbnailAt(event);
      if (channel !== null) this.choose(channel);
    });
  }

  key(event) {
    const map = maps[this.index];
    if (map.impossible || event.ctrlKey || event.altKey || event.metaKey) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      Home: [0, -map.width], End: [0, map.width] };
    const turns = { PageUp: -1, PageDown: 1 };
    if (event.key in moves) {
      const [down, right] = moves[event.key];
      this.row = Math.min(Math.max(this.row + down, 0), map.height - 1);
      this.column = Math.min(Math.max(this.column + right, 0), map.width - 1);
    } else if (event.key in turns) {
      this.choose((this.channel + turns[event.key] + map.channels) % map.channels);
    } else return;
    event.preventDefault();
    pointed = null; // a pointer resting on a map must not hide the effect of the keys
    keep(this.index);
    announce();
  }

  choose(channel) {
    this.channel = channel;
    edit(edited);
    schedule();
  }

  // Updates sizes, colours and messages from the present map.
  renew() {
    const map = maps[this.index], layer = layers[this.index - 1];
    this.kernelLimit = layer?.kernel ? limitOf(layer.kernel) : 0;
    const shown = !map.impossible;
    this.frame.hidden = !shown;
    this.message.textContent = map.impossible ?? "";
    this.choice.hidden = !shown || map.channels === 1;
    this.canvas.tabIndex = shown ? 0 : -1;
    this.info.textContent = !shown ? "no map" :
      times([map.height, map.width]) + (map.channels > 1 ? `, ${map.channels} channels` : "");
    this.formula.textContent = shown ? sizesOf(this.index) : "";
    if (!shown) return;
    this.row = Math.min(this.row, map.height - 1);
    this.column = Math.min(this.column, map.width - 1);
    this.limit = limitOf(map.values);
    this.raster = raster(map, this.limit);
    if (this.picker.length !== map.channels) {
      this.picker.replaceChildren(...Array.from({ length: map.channels }, (_, channel) =>
        element("option", { value: channel }, channelName(this.index, channel).slice(2))));
    }
  }

  // `width`: screen pixels of every map, equal so that maps can be compared.
  layOut(width) {
    const map = maps[this.index];
    if (map.impossible) return;
    const ratio = devicePixelRatio || 1;
    this.margin = 2 * ratio; // half of a mark's line at the edge
    const room = width * ratio - 2 * this.margin;
    const next = layers[this.index];
    const ring = next ? next.padding : [[0, 0], [0, 0]];
    const fit = ([[top, bottom], [left, right]]) => Math.floor(Math.min(
      room / (map.width + left + right), LARGEST_CELL * ratio,
      (room + 80 * ratio) / (map.height + top + bottom)));
    this.ring = fit(ring) >= SMALLEST_CELL_WITH_PADDING * ratio ? ring : [[0, 0], [0, 0]];
    this.cell = Math.max(1, fit(this.ring));
    const [[top, bottom], [left, right]] = this.ring;
    this.origin = [left, top].map((cells) => cells * this.cell + this.margin);
    this.padded = [map.height + top + bottom, map.width + left + right];
    // The thumbnails form about a square; their cells are whole pixels.
    this.across = map.channels < 5 ? map.channels : Math.min(8, Math.ceil(Math.sqrt(map.channels)));
    const most = Math.min(LARGEST_THUMBNAIL * ratio, room / this.across - 4 * ratio);
    this.small = Math.max(1, Math.floor(most / Math.max(map.width, map.height)));
    this.gap = Math.round(4 * ratio);
  }

  cellAt(event) {
    const map = maps[this.index], ratio = devicePixelRatio || 1;
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) * ratio - this.origin[0]) / this.cell);
    const row = Math.floor(((event.clientY - box.top) * ratio - this.origin[1]) / this.cell);
    const inside = row >= 0 && column >= 0 && row < map.height && column < map.width;
    return inside ? { map: this.index, row, column } : null;
  }

  thumbnailAt(event) {
    const map = maps[this.index], ratio = devicePixelRatio || 1;
    const [width, height] = [map.width, map.height].map((n) => n * this.small + this.gap);
    const column = Math.floor((event.offsetX * ratio) / width);
    const channel = Math.floor((event.offsetY * ratio) / height) * this.across + column;
    return column < this.across && channel < map.channels ? channel : null;
  }

  // Draws the map, the marks of `mask` and the frame of the shown `cell`; both may be null.
  draw(mask, cell) {
    const map = maps[this.index];
    if (map.impossible) return;
    const ratio = devicePixelRatio || 1, [x, y] = this.origin;
    const { margin, padded } = this, [height, width] = padded.map((cells) => cells * this.cell);
    const context = sized(this.canvas, width + 2 * margin, height + 2 * margin);
    context.fillStyle = css(colours.panel);
    context.fillRect(margin, margin, width, height);
    drawLines(context, ...padded, margin, margin, this.cell);
    drawChannel(context, this.raster, map, this.channel, x, y, this.cell);
    drawLines(context, map.height, map.width, x, y, this.cell);
    if (mask) drawMarks(context, map, mask, x, y, this.cell, 2 * ratio);
    const count = map.height * map.width;
    const values = map.values.subarray(this.channel * count, (this.channel + 1) * count);
    drawNumbers(context, values, map.width, this.limit, x, y, this.cell, mask);
    if (cell) this.frameCell(context, cell.row, cell.column, 3 * ratio, []);
    const where = cell ?? this;
    this.canvas.setAttribute("aria-label", `${mapName(this.index)}` +
      `${channelName(this.index, this.channel)}: ${times([map.height, map.width])} cells; row ` +
      `${where.row}, column ${where.column}. Arrow keys move, page keys change the channel.`);
    this.drawThumbnails(mask);
    this.picker.value = this.channel;
  }

  frameCell(context, row, column, width, dash) {
    context.strokeStyle = css(colours.mark);
    context.lineWidth = width;
    context.setLineDash(dash);
    context.strokeRect(this.origin[0] + column * this.cell, this.origin[1] + row * this.cell,
      this.cell, this.cell);
    context.setLineDash([]);
  }

  // Frames the places on the padding under the kernel of a cell of the next map.
  drawPadding(cell) {
    if (!this.ring.flat().some(Boolean)) return;
    const ratio = devicePixelRatio || 1, context = this.canvas.getContext("2d");
    const places = (axis, output) => Array.from({ length: axis.kernelSize }, (_, tap) =>
      output * axis.stride - axis.before + tap * axis.dilation);
    const [rows, columns] = maps[cell.map].axes;
    for (const row of places(rows, cell.row)) {
      for (const column of places(columns, cell.column)) {
        const inside = row >= 0 && column >= 0 && row < rows.size && column < columns.size;
        if (!inside) this.frameCell(context, row, column, ratio, [3 * ratio, 2 * ratio]);
      }
    }
  }

  drawThumbnails(mask) {
    const map = maps[this.index];
    if (map.channels === 1) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [map.width, map.height].map((n) => n * this.small + this.gap);
    const down = Math.ceil(map.channels / this.across);
    const context = sized(this.thumbnails, this.across * width, down * height);
    for (let channel = 0; channel < map.channels; channel++) {
      const x = (channel % this.across) * width + this.gap / 2;
      const y = Math.floor(channel / this.across) * height + this.gap / 2;
      drawChannel(context, this.raster, map, channel, x, y, this.small);
      if (mask) drawMarks(context, map, mask, x, y, this.small, ratio);
      context.strokeStyle = css(channel === this.channel ? colours.text : colours.line);
      context.lineWidth = channel === this.channel ? 2 * ratio : ratio;
      context.strokeRect(x, y, width - this.gap, height - this.gap);
    }
  }

  // Draws the weights from the selected channel of the previous map to that of this one.
  drawKernel() {
    const layer = layers[this.index - 1], input = maps[this.index - 1];
    const size = layer.kernel_size.join("×");
    this.kernel.hidden = layer.kind === "pool";
    this.kernelText.textContent = layer.kind === "pool" ? `max ${size}` : size;
    const from = input.impossible ? "" : mapName(this.index - 1) +
      channelName(this.index - 1, stages[this.index - 1].channel);
    this.button.setAttribute("aria-label", `Change ${layer.name}: ` + (layer.kind === "pool"
      ? `the largest of ${size}` : `weights ${size} for ${from}`));
    if (layer.kind === "pool") return;
    const [height, width] = layer.kernel_size, ratio = devicePixelRatio || 1;
    const room = this.button.clientWidth * ratio;
    const cell = Math.max(1, Math.floor(Math.min(room / width, 34 * ratio)));
    const context = sized(this.kernel, width * cell, height * cell);
    const inputs = layer.kernel.length / (layer.filters * height * width);
    const at = weightsAt(layer, inputs, this.channel, stages[this.index - 1].channel);
    const values = layer.kernel.subarray(at, at + height * width);
    const limit = this.kernelLimit;
    const kernel = { channels: 1, height, width, values };
    drawChannel(context, raster(kernel, limit), kernel, 0, 0, 0, cell);
    drawLines(context, height, width, 0, 0, cell);
    drawNumbers(context, values, width, limit, 0, 0, cell);
  }
}

// Returns the formula of a map's size; one line if rows and columns agree.
function sizesOf(index) {
  if (!index || layers[index - 1].kind === "dense") return "";
  const [rows, columns] = maps[index].axes.map((axis) => axis.formula());
  return rows === columns ? rows : `rows ${rows}, columns ${columns}`;
}
