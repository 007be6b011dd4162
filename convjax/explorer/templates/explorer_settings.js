// The form that changes a layer: stride, padding, dilation, the weights of one filter and its bias.

// Kernels with more rows or columns are shown but cannot be edited.
const EDITED_SIDE = 7;

// The form of one layer at a time. `changed()` is called after each valid change.
class Settings {
  constructor(section, layers, changed, choose, reset) {
    this.layers = layers;
    this.changed = changed;
    this.picker = element("select", { id: "layer" }, ...layers.map((layer, i) =>
      element("option", { value: i }, layer.name)));
    this.picker.addEventListener("change", () => choose(Number(this.picker.value)));
    this.form = element("div");
    this.formula = element("div", { className: "formula", id: "formula" });
    this.mistake = element("p", { className: "mistake", role: "alert" });
    const back = element("button", { type: "button", id: "reset" }, "Reset all");
    back.addEventListener("click", reset);
    section.append(
      element("h2", { id: "settings-title" }, "Change a layer"),
      element("label", { className: "field" }, element("span", {}, "layer"), this.picker),
      this.form, this.mistake, this.formula, back);
  }

  // Shows the form of a layer, for the weights of a filter and a channel with their `names`.
  show(index, maps, filter, channel, names) {
    const layer = this.layers[index];
    this.picker.value = index;
    this.mistake.textContent = "";
    const fields = layer.kind === "dense" ? [] : [
      ...this.pair(layer, "stride", 1), ...this.padding(layer), ...this.pair(layer, "dilation", 1)];
    this.form.replaceChildren(element("div", { className: "fields" }, ...fields));
    if (layer.kind !== "pool") this.weights(layer, maps[index], filter, channel, names);
    this.showFormula(index, maps);
  }

  // Writes the formula of the output's size with the present numbers.
  showFormula(index, maps) {
    const map = maps[index + 1], layer = this.layers[index];
    this.formula.replaceChildren();
    if (layer.kind === "dense") {
      const all = "Each unit depends on the whole map. Its output is one cell.";
      this.formula.append(map.impossible ?? all);
      return;
    }
    const line = (text, properties = {}) => this.formula.append(element("div", properties, text));
    line("size = ⌊(n + padding − span) / stride⌋ + 1", { className: "quiet" });
    line("span = dilation · (kernel − 1) + 1", { className: "quiet" });
    if (map.impossible) {
      line(map.impossible, { className: "mistake" });
      return;
    }
    const numbers = map.axes.map((axis) => [
      axis.formula(), `span ${axis.dilation} · (${axis.kernelSize} − 1) + 1 = ${axis.span}`]);
    if (String(numbers[0]) === String(numbers[1])) numbers[0].forEach((text) => line(text));
    else {
      numbers[0].forEach((text) => line(`rows: ${text}`));
      numbers[1].forEach((text) => line(`columns: ${text}`));
    }
  }

  // Returns a field for a number; `set` receives each valid value.
  field(label, value, least, whole, set) {
    // The field shows four digits of a weight; the weight itself is not rounded.
    const shown = whole ? value : Number(value.toPrecision(4));
    const input = element("input", {
      type: "number", value: shown, title: String(value), step: whole ? 1 : "any" });
    if (least !== null) input.min = least;
    input.setAttribute("aria-label", label);
    input.addEventListener("input", () => {
      const number = input.value === "" ? NaN : Number(input.value);
      const holds = whole ? Number.isSafeInteger(number) && number >= least : isFinite(number);
      input.setAttribute("aria-invalid", String(!holds));
      this.mistake.textContent = holds ? "" : `${label} must be ` +
        (whole ? `a whole number of at least ${least}.` : "a number.");
      if (!holds) return;
      set(number);
      this.changed();
    });
    return input;
  }

  // Returns one field if both axes have the same number, otherwise one per axis.
  pair(layer, name, least) {
    const [height, width] = layer[name];
    const axes = height === width ? [[name, [0, 1]]] : [
      [`${name}, rows`, [0]], [`${name}, columns`, [1]]];
    return axes.map(([label, places]) => labelled(label, this.field(
      label, layer[name][places[0]], least, true, (number) => {
        for (const place of places) layer[name][place] = number;
      })));
  }

  padding(layer) {
    const sides = [["top", 0, 0], ["bottom", 0, 1], ["left", 1, 0], ["right", 1, 1]];
    const equal = new Set(layer.padding.flat()).size === 1;
    const groups = equal ? [["padding", sides]] :
      sides.map((side) => [`padding, ${side[0]}`, [side]]);
    return groups.map(([label, places]) => {
      const [, axis, end] = places[0];
      return labelled(label, this.field(label, layer.padding[axis][end], 0, true, (number) => {
        for (const [, i, j] of places) layer.padding[i][j] = number;
      }));
    });
  }

  weights(layer, input, filter, channel, names) {
    const [height, width] = layer.kernel_size;
    const inputs = layer.kernel.length / (layer.filters * height * width);
    const at = weightsAt(layer, inputs, filter, channel);
    const of = `Weights of ${names.filter}, for ${names.input}`;
    if (Math.max(height, width) > EDITED_SIDE) {
      this.form.append(element("p", { className: "quiet" },
        `${of}: ${height} × ${width}, too many to edit.`));
    } else {
      const grid = element("div", { className: "weights", role: "group" });
      grid.setAttribute("aria-label", of);
      grid.style.gridTemplateColumns = `repeat(${width}, minmax(0, 4.5rem))`;
      for (let k = 0; k < height * width; k++) {
        const tap = `weight at row ${Math.floor(k / width)}, column ${k % width}`;
        grid.append(this.field(tap, layer.kernel[at + k], null, false, (number) => {
          layer.kernel[at + k] = number;
        }));
      }
      this.form.append(element("p", { className: "of" }, of), grid);
    }
    if (layer.bias) {
      this.form.append(labelled("bias", this.field("bias", layer.bias[filter], null, false,
        (number) => { layer.bias[filter] = number; })));
    }
  }
}

function labelled(label, input) {
  return element("label", { className: "field" }, element("span", {}, label), input);
}
