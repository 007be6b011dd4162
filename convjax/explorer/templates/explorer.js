// The state of the page. For the console and for tests, `explorer` holds what is shown:
//   explorer.maps    the image and each layer's map: {channels, height, width, values}, values in
//                    the order channel, row, column; or {impossible: message}
//   explorer.cell    the cell whose sum is shown: {map, channel, row, column}, or null
//   explorer.marks   of each map before it, the image first, the marked cells: [[row, column], …]
//   explorer.layers  the layers with their present settings
//   explorer.box(map, row, column)  the place of a cell, as of getBoundingClientRect

const data = JSON.parse(document.getElementById("data").textContent);
const image = { ...data.image, values: Float64Array.from(data.image.values) };
const fresh = () => structuredClone(data.layers).map((layer) =>
  layer.kind === "pool" ? layer : { ...layer, kernel: Float64Array.from(layer.kernel) });
const layers = fresh();
let maps = forward(image, layers, data.largest_side);

const mapName = (index) => (index ? layers[index - 1].name : "image");
const channelName = (index, channel) => {
  const names = (index && layers[index - 1].channels) || [];
  const several = (maps[index].channels ?? 1) > 1;
  return names[channel] ? `, ${names[channel]}` : several ? `, channel ${channel}` : "";
};

let kept = layers.length; // index of the map whose cell is shown while the pointer is on no map
let pointed = null; // {map, row, column} under the pointer
let edited = layers.length - 1; // index of the layer in the form

const shown = () => {
  const { map, row, column } = pointed ?? { map: kept, ...stages[kept] };
  return { map, channel: stages[map].channel, row, column };
};

function point(cell) {
  const same = cell?.map === pointed?.map && cell?.row === pointed?.row &&
    cell?.column === pointed?.column;
  if (same) return;
  pointed = cell;
  schedule();
}

function keep(index) {
  const other = index !== kept;
  kept = index;
  if (other && index) edit(index - 1);
  schedule();
}

function edit(index) {
  edited = index;
  const layer = layers[index], input = stages[index].channel;
  settings.show(index, maps, layer.kind === "pool" ? 0 : stages[index + 1].channel, input, {
    filter: `${layer.name}${channelName(index + 1, stages[index + 1].channel)}`,
    input: `${mapName(index)}${channelName(index, input)}`,
  });
}

// Computes all maps again.
function recompute() {
  maps = forward(image, layers, data.largest_side);
  pointed = null;
  for (const stage of stages) stage.renew();
  settings.showFormula(edited, maps);
  announce();
  resize();
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}

function resize() {
  const widths = stages.map((stage) => stage.frame.parentElement.clientWidth);
  for (const stage of stages) stage.layOut(Math.min(...widths));
  schedule();
}

function draw() {
  const cell = shown(), possible = !maps[cell.map].impossible;
  const masks = possible ? trace(maps, cell.map, cell.row, cell.column) : [];
  stages.forEach((stage, i) => {
    stage.draw(masks[i] ?? null, possible && i === cell.map ? cell : null);
    if (i) stage.drawKernel();
  });
  if (!possible) sum.showMessage(mapName(cell.map), maps[cell.map].impossible);
  else {
    if (cell.map) stages[cell.map - 1].drawPadding(cell);
    sum.show(maps, layers, cell, mapName, channelName);
  }
  const marks = masks.map((mask, i) => [...mask].flatMap((marked, at) =>
    marked ? [[Math.floor(at / maps[i].width), at % maps[i].width]] : []));
  Object.assign(explorer, { maps, layers, marks, cell: possible ? cell : null });
}

// Writes the shown cell, or why there is none, for screen readers.
function announce() {
  const { map, channel, row, column } = shown();
  const { impossible, height, width, values } = maps[map];
  document.getElementById("live").textContent = impossible ?? `${mapName(map)}` +
    `${channelName(map, channel)}, row ${row}, column ${column}: ` +
    `${whole(values[(channel * height + row) * width + column])}`;
}

function colour() {
  readColours();
  for (const stage of stages) stage.renew();
  const ratio = devicePixelRatio || 1;
  const context = sized(document.getElementById("scale"), 120 * ratio, 12 * ratio);
  for (let i = 0; i < 120; i++) {
    context.fillStyle = css(colourOf(i - 60, 60));
    context.fillRect(i * ratio, 0, Math.ceil(ratio), 12 * ratio);
  }
  schedule();
}

const explorer = {
  box(map, row, column) {
    const stage = stages[map], ratio = devicePixelRatio || 1;
    const box = stage.canvas.getBoundingClientRect(), side = stage.cell / ratio;
    const [left, top] = stage.origin.map((start) => start / ratio);
    return new DOMRect(box.left + left + column * side, box.top + top + row * side, side, side);
  },
};
globalThis.explorer = explorer;

const stages = maps.map((_, index) => new Stage(index));
const sum = new SumPanel(document.getElementById("sum"));
const settings = new Settings(document.getElementById("settings"), layers, recompute, edit, () => {
  fresh().forEach((layer, i) => Object.assign(layers[i], layer));
  recompute();
  edit(edited);
});
document.getElementById("stages").classList.toggle("few", stages.length < 4);
document.getElementById("stages").append(...stages.map((stage) => stage.section));
// The largest value of the last map is shown first, which is the answer of a trained network.
const last = maps.at(-1), area = last.height * last.width;
const peak = last.values.reduce((best, value, i) => (value > last.values[best] ? i : best), 0);
Object.assign(stages.at(-1), { channel: Math.floor(peak / area),
  row: Math.floor((peak % area) / last.width), column: peak % last.width });
colour();
edit(edited);
resize();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colour);
new ResizeObserver(resize).observe(document.getElementById("stages"));
