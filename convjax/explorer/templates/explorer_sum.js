// The sum of one cell: its products in the shape of the kernel, and the steps to its value.

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const times = (sizes) => sizes.join("\u00a0×\u00a0");

// Share of the full colour for the largest product of a grid; text on it stays readable.
const STRONGEST = 0.22;

// Few of the hundreds of texts change when the pointer moves; only those are written.
function write(part, text) {
  if (part.firstChild.data !== text) part.firstChild.data = text;
}

// Writes the sum of a cell into a section. The elements of the tables are reused for cells of the
// same layer, so that only text changes while the pointer moves.
class SumPanel {
  constructor(section) {
    this.section = section;
    this.title = element("h2", { id: "sum-title" });
    this.steps = element("ol", { className: "steps" });
    this.value = element("output", { className: "value" });
    this.grids = element("div", { className: "grids" });
    section.append(
      element("div", { className: "head" }, this.title, this.value, this.steps), this.grids);
    this.built = "";
  }

  // `cell`: {map, channel, row, column}; `names(map)`: name of a map; `channelName(map, channel)`.
  show(maps, layers, cell, names, channelName) {
    const map = maps[cell.map];
    this.title.textContent = `${names(cell.map)}${channelName(cell.map, cell.channel)}, ` +
      `row ${cell.row}, column ${cell.column}`;
    const value = map.values[(cell.channel * map.height + cell.row) * map.width + cell.column];
    this.value.textContent = `= ${whole(value)}`;
    if (cell.map === 0) {
      this.built = "";
      this.grids.replaceChildren();
      this.steps.replaceChildren(element("li", {}, "a pixel of the image, which depends on no other cell"));
      return;
    }
    const layer = layers[cell.map - 1], input = maps[cell.map - 1];
    const channels = layer.kind === "pool" ? [cell.channel] : [...Array(input.channels).keys()];
    this.build(layer, channels, (channel) =>
      names(cell.map - 1) + channelName(cell.map - 1, channel));
    const sums = channels.map((channel, i) =>
      this.fill(this.blocks[i], layer, input, map.axes, channel, cell));
    this.steps.replaceChildren(...stepsOf(layer, cell, input, map.axes, sums));
  }

  // Shows a message instead of a sum.
  showMessage(title, message) {
    this.built = "";
    this.title.textContent = title;
    this.value.textContent = "";
    this.steps.replaceChildren(element("li", {}, message));
    this.grids.replaceChildren();
  }

  build(layer, channels, name) {
    const [height, width] = layer.kernel_size;
    const captions = channels.map(name);
    const key = JSON.stringify([layer.kind, height, width, captions]);
    if (key === this.built) return;
    this.built = key;
    this.blocks = captions.map((caption) => {
      const cells = Array.from({ length: height * width }, () => element("td"));
      const rows = Array.from({ length: height }, (_, i) =>
        element("tr", {}, ...cells.slice(i * width, (i + 1) * width)));
      for (const cell of cells) {
        for (const tag of ["span", "span", "b"]) {
          cell.append(element(tag, {}, document.createTextNode("")));
        }
      }
      const sum = element("span", { className: "subtotal" });
      const table = element("table", { className: "products" }, element("tbody", {}, ...rows));
      const frame = element("div", { className: "scrolls" }, table);
      return { cells, sum, figure: element("figure", {},
        element("figcaption", {}, `${caption} `, sum), frame) };
    });
    this.grids.replaceChildren(...this.blocks.map((block) => block.figure));
  }

  // Fills the grid of one channel and returns its sum, or its largest cell.
  fill(block, layer, input, [rows, columns], channel, cell) {
    const pool = layer.kind === "pool";
    const at = pool ? 0 : weightsAt(layer, input.channels, cell.channel, channel);
    const found = block.cells.map((_, k) => {
      const y = rows.place(cell.row, Math.floor(k / columns.kernelSize));
      const x = columns.place(cell.column, k % columns.kernelSize);
      const outside = y < 0 || x < 0;
      const value = outside ? 0 : input.values[(channel * input.height + y) * input.width + x];
      return { outside, value, weight: pool ? null : layer.kernel[at + k] };
    });
    const sum = pool
      ? largest(input, [rows, columns], channel, cell.row, cell.column)
      : channelSum(layer, input, [rows, columns], cell.channel, channel, cell.row, cell.column);
    const limit = limitOf(found.map(({ value, weight }) => value * (weight ?? 1)));
    found.forEach(({ outside, value, weight }, k) => {
      const td = block.cells[k], [first, second, bold] = td.children;
      const product = pool ? value : value * weight;
      write(first, outside ? "padding" : pool ? "" : short(value));
      write(second, pool ? "" : `× ${short(weight)}`);
      write(bold, pool && outside ? "" : short(product));
      const kind = outside ? "outside" : pool && value === sum ? "winner" : "";
      if (td.className !== kind) td.className = kind;
      const ground = css(colourOf(product, limit / STRONGEST));
      if (td.ground !== ground) td.style.backgroundColor = td.ground = ground;
    });
    block.sum.textContent = `${pool ? "largest" : "sum"} ${short(sum)}`;
    return sum;
  }
}

// Returns the lines from the sums of the channels to the value of the cell.
function stepsOf(layer, cell, input, axes, sums) {
  const line = (...children) => element("li", {}, ...children);
  const result = (value) => element("b", {}, whole(value));
  if (layer.kind === "pool") return [line("the largest of the window: ", result(sums[0]))];
  const total = convolved(layer, input, axes, cell.channel, cell.row, cell.column);
  const taps = sums.length * layer.kernel_size[0] * layer.kernel_size[1];
  const terms = sums.length > 1 && sums.length < 5
    ? `${sums.map((sum) => (sum < 0 ? `(${short(sum)})` : short(sum))).join(" + ")} = `
    : sums.length > 1 ? `the sums of ${sums.length} channels = ` : "";
  const lines = [line(`${taps} products: ${terms}`, result(total))];
  finished(layer, cell.channel, total, (step, value) => {
    const filter = cell.channel;
    if (step === "bias") lines.push(line(`+ bias ${short(layer.bias[filter])} = `, result(value)));
    else if (step.kind === "relu") lines.push(line("ReLU, max(0, x): ", result(value)));
    else {
      const numbers = `× ${short(step.scale[filter])} + ${short(step.shift[filter])}`;
      lines.push(line(`${step.name}: ${numbers} = `, result(value)));
    }
  });
  return lines;
}
