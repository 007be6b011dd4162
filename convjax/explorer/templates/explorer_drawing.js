// Colours and canvases. Zero has the background colour, positive numbers approach the text colour
// and negative numbers blue. Marks are orange.

const colours = {};

// Opacity of the background colour over cells that are not marked.
const DIMMED = 0.5;

// Reads the present colours as [red, green, blue], which a canvas needs.
function readColours() {
  const probe = document.createElement("span");
  document.body.append(probe);
  for (const name of ["ground", "panel", "text", "quiet", "line", "mark", "negative"]) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  }
  probe.remove();
}

const css = (rgb, alpha = 1) => `rgb(${rgb.join(" ")} / ${alpha})`;

const mixed = (from, to, share) =>
  from.map((value, i) => Math.round(value + (to[i] - value) * share));

// Returns the colour of a number on a scale from -limit through 0 to limit.
function colourOf(value, limit) {
  const share = limit ? Math.min(1, Math.abs(value) / limit) : 0;
  return mixed(colours.ground, value < 0 ? colours.negative : colours.text, share);
}

function luminance(rgb) {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = rgb.map((value) => linear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// Returns black or white, whichever has more contrast (WCAG's contrast ratio).
function inkOn(rgb) {
  const light = luminance(rgb);
  return 1.05 / (light + 0.05) > (light + 0.05) / 0.05 ? "#fff" : "#000";
}

const minus = (text) => text.replace(/-/g, "−");

// Formats a number with about three digits, to fit into a cell.
function short(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return minus(String(value));
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return minus(value.toExponential(1));
  return minus(size >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
}

// Formats a number with all digits.
const whole = (value) => minus(String(value));

// The largest magnitude.
const limitOf = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// Sets the size of a canvas in device pixels and returns its context. The caller uses device pixels,
// so that cells have sharp edges.
function sized(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = width;
  canvas.height = height;
  canvas.style.width = `${width / ratio}px`;
  canvas.style.height = `${height / ratio}px`;
  return canvas.getContext("2d");
}

// Returns an image of all channels of a map, one below the other, with one pixel per cell.
function raster(map, limit) {
  const { width, height, channels, values } = map;
  const picture = new OffscreenCanvas(width, height * channels);
  const pixels = new ImageData(width, height * channels);
  values.forEach((value, i) => pixels.data.set([...colourOf(value, limit), 255], 4 * i));
  picture.getContext("2d").putImageData(pixels, 0, 0);
  return picture;
}

// Draws one channel of a raster with cells of `cell` pixels at (x, y).
function drawChannel(context, picture, map, channel, x, y, cell) {
  const { width, height } = map;
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, channel * height, width, height, x, y, width * cell, height * cell);
}

// Dims cells that are not marked and outlines those that are.
function drawMarks(context, map, mask, x, y, cell, line) {
  const { width, height } = map;
  const marked = (r, c) => r >= 0 && c >= 0 && r < height && c < width && mask[r * width + c];
  context.fillStyle = css(colours.ground, DIMMED);
  context.beginPath();
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      if (!marked(r, c)) context.rect(x + c * cell, y + r * cell, cell, cell);
    }
  }
  context.fill();
  context.beginPath();
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      if (!marked(r, c)) continue;
      const left = x + c * cell, top = y + r * cell, right = left + cell, bottom = top + cell;
      if (!marked(r - 1, c)) context.moveTo(left, top), context.lineTo(right, top);
      if (!marked(r + 1, c)) context.moveTo(left, bottom), context.lineTo(right, bottom);
      if (!marked(r, c - 1)) context.moveTo(left, top), context.lineTo(left, bottom);
      if (!marked(r, c + 1)) context.moveTo(right, top), context.lineTo(right, bottom);
    }
  }
  context.strokeStyle = css(colours.mark);
  context.lineWidth = line;
  context.lineCap = "square";
  context.stroke();
}

// Draws lines between cells.
function drawLines(context, rows, columns, x, y, cell) {
  context.beginPath();
  for (let r = 0; r <= rows; r++) {
    context.moveTo(x, y + r * cell + 0.5), context.lineTo(x + columns * cell, y + r * cell + 0.5);
  }
  for (let c = 0; c <= columns; c++) {
    context.moveTo(x + c * cell + 0.5, y), context.lineTo(x + c * cell + 0.5, y + rows * cell);
  }
  context.strokeStyle = css(colours.line, cell < 12 ? 0.35 : 0.8);
  context.lineWidth = 1;
  context.stroke();
}

// Writes numbers into cells that are large enough; `mask` marks cells that are not dimmed.
function drawNumbers(context, values, columns, limit, x, y, cell, mask = null) {
  const ratio = devicePixelRatio || 1;
  if (cell < 27 * ratio) return;
  context.font = `${Math.min(cell / 3.2, 13 * ratio)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  values.forEach((value, i) => {
    const colour = colourOf(value, limit);
    context.fillStyle = inkOn(!mask || mask[i] ? colour : mixed(colour, colours.ground, DIMMED));
    const [row, column] = [Math.floor(i / columns), i % columns];
    const [centre, middle] = [x + (column + 0.5) * cell, y + (row + 0.5) * cell];
    context.fillText(short(value), centre, middle, cell - 2);
  });
}
