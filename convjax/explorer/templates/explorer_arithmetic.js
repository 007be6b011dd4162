// The layers' arithmetic, in float64. Maps are flat arrays in the order channel, row, column.

// Thrown for settings that have no map; the page shows the message.
class Impossible extends Error {}

// One axis of a layer: its outputs, and the input index at each tap of an output.
class Axis {
  constructor(size, kernelSize, stride, padding, dilation) {
    const [before, after] = padding;
    Object.assign(this, { size, kernelSize, stride, before, after, dilation });
    this.span = dilation * (kernelSize - 1) + 1;
    this.outputs = Math.floor((size + before + after - this.span) / stride) + 1;
  }

  // The input index at a tap, or -1 on the padding.
  place(output, tap) {
    const place = output * this.stride - this.before + tap * this.dilation;
    return place < this.size && place >= 0 ? place : -1;
  }

  // The input indices that one output sees.
  seen(output) {
    const places = [];
    for (let tap = 0; tap < this.kernelSize; tap++) {
      const place = this.place(output, tap);
      if (place >= 0) places.push(place);
    }
    return places;
  }

  formula() {
    const { size, before, after, span, stride } = this;
    return `⌊(${size} + ${before} + ${after} − ${span}) / ${stride}⌋ + 1 = ${this.outputs}`;
  }
}

// Returns the axes of a layer on a map, or throws Impossible.
function axesOf(layer, input, largestSide) {
  const size = [input.height, input.width];
  const axes = [0, 1].map((i) =>
    new Axis(size[i], layer.kernel_size[i], layer.stride[i], layer.padding[i], layer.dilation[i]));
  if (layer.kind === "dense" && axes.some((axis) => axis.size !== axis.kernelSize)) {
    throw new Impossible(`${layer.name} has weights for a map of ` +
      `${layer.kernel_size.join(" × ")} cells, and the map before it has ${size.join(" × ")}.`);
  }
  axes.forEach((axis, i) => {
    const side = ["rows", "columns"][i];
    if (axis.outputs < 1) {
      throw new Impossible(`The kernel is larger than the padded input: it spans ${axis.span} ` +
        `${side}, and there are ${axis.size + axis.before + axis.after} ` +
        `(${axis.size} + padding ${axis.before} + ${axis.after}). Pad more or dilate less.`);
    }
    if (axis.outputs > largestSide) {
      throw new Impossible(`The map would have ${axis.outputs} ${side}; this page shows at most ` +
        `${largestSide}. Pad less.`);
    }
    if (layer.kind === "pool") {
      for (let output = 0; output < axis.outputs; output++) {
        if (!axis.seen(output).length) {
          throw new Impossible("A window of the pool would contain nothing but padding. Pad less.");
        }
      }
    }
  });
  return axes;
}

// Adds the bias and applies the steps to a sum of products; `notify` is called with each result.
function finished(layer, filter, sum, notify = () => {}) {
  let value = sum;
  if (layer.bias) notify("bias", value = value + layer.bias[filter]);
  for (const step of layer.steps) {
    if (step.kind === "relu") value = Math.max(0, value);
    else value = value * step.scale[filter] + step.shift[filter];
    notify(step, value);
  }
  return value;
}

// Returns where the weights of one filter for one channel start in the kernel.
function weightsAt(layer, inputs, filter, channel) {
  return (filter * inputs + channel) * layer.kernel_size[0] * layer.kernel_size[1];
}

// Returns the sum of the products of one channel, added row by row.
function channelSum(layer, input, [rows, columns], filter, channel, row, column) {
  let at = weightsAt(layer, input.channels, filter, channel);
  let sum = 0;
  for (let i = 0; i < rows.kernelSize; i++) {
    const y = rows.place(row, i);
    for (let j = 0; j < columns.kernelSize; j++, at++) {
      const x = columns.place(column, j);
      if (y >= 0 && x >= 0) {
        sum += input.values[(channel * input.height + y) * input.width + x] * layer.kernel[at];
      }
    }
  }
  return sum;
}

// Returns the sum over the channels, in their order. The order affects the last digit: the chapter's
// spreadsheet also adds one SUMPRODUCT per channel. All products of its dense unit in one row would
// give 258.7376267107572 instead of its 258.73762671075724.
function convolved(layer, input, axes, filter, row, column) {
  let sum = channelSum(layer, input, axes, filter, 0, row, column);
  for (let channel = 1; channel < input.channels; channel++) {
    sum += channelSum(layer, input, axes, filter, channel, row, column);
  }
  return sum;
}

function largest(input, [rows, columns], channel, row, column) {
  let value = -Infinity;
  for (const y of rows.seen(row)) {
    for (const x of columns.seen(column)) {
      value = Math.max(value, input.values[(channel * input.height + y) * input.width + x]);
    }
  }
  return value;
}

// Returns the output map of a layer.
function mapOf(layer, input, largestSide) {
  const axes = axesOf(layer, input, largestSide);
  const [height, width] = axes.map((axis) => axis.outputs);
  const channels = layer.kind === "pool" ? input.channels : layer.filters;
  const values = new Float64Array(channels * height * width);
  for (let channel = 0, at = 0; channel < channels; channel++) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++, at++) {
        values[at] = layer.kind === "pool"
          ? largest(input, axes, channel, row, column)
          : finished(layer, channel, convolved(layer, input, axes, channel, row, column));
      }
    }
  }
  return { channels, height, width, values, axes };
}

// Returns all maps, the image first. A map that cannot exist is {impossible: message}.
function forward(image, layers, largestSide) {
  const maps = [image];
  for (const layer of layers) {
    const input = maps.at(-1);
    try {
      if (input.impossible) throw new Impossible("There is no map before this one.");
      maps.push(mapOf(layer, input, largestSide));
    } catch (error) {
      if (!(error instanceof Impossible)) throw error;
      maps.push({ impossible: error.message });
    }
  }
  return maps;
}

// Returns the cells of each earlier map on which a cell of map `index` depends: flat masks, the
// image first. They are the same in every channel.
function trace(maps, index, row, column) {
  const masks = [];
  let wanted = [[row, column]];
  for (let i = index; i > 0; i--) {
    const { width, height } = maps[i - 1];
    const [rows, columns] = maps[i].axes;
    const mask = new Uint8Array(height * width);
    for (const [r, c] of wanted) {
      for (const y of rows.seen(r)) for (const x of columns.seen(c)) mask[y * width + x] = 1;
    }
    wanted = [];
    mask.forEach((marked, at) => marked && wanted.push([Math.floor(at / width), at % width]));
    masks.unshift(mask);
  }
  return masks;
}
