// Draws charts when they come into view, redraws them when the colour scheme changes, and handles
// the legend, the choice and the keyboard.

const drawn = new Set();
const hidden = new Map(); // the keys of the hidden lines of each block
const CONFIG = {
  displaylogo: false, responsive: true, doubleClick: "reset",
  // Plotly's default has a button that sends the chart to a Plotly server.
  modeBarButtons: [["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"], ["toImage"]],
  showSendToCloud: false, plotlyServerURL: "",
};

const blockOf = (chart) => chart.closest(".block");
const chosen = (chart) => Number(blockOf(chart).querySelector(".choice")?.value ?? 0);

function draw(chart) {
  const spec = data.charts[chart.dataset.chart][chosen(chart)];
  drawn.add(chart);
  chart.spec = spec;
  if (spec.kind === "none") {
    Plotly.purge(chart);
    chart.replaceChildren(Object.assign(document.createElement("p"), { textContent: spec.text }));
    chart.firstChild.className = "none";
    return;
  }
  if (chart.querySelector(".none")) chart.replaceChildren();
  const { traces, layout } =
    spec.kind === "lines" ? lines(spec, hidden.get(blockOf(chart)) ?? new Set()) : dimension(spec);
  // The zoom stays, except for the vertical axis of another choice.
  layout.uirevision = "steps";
  layout.yaxis.uirevision = `choice ${chosen(chart)}`;
  Plotly.react(chart, traces, layout, CONFIG);
}

// --- drawing: one chart per frame, so that the page can be scrolled meanwhile ---------------------

const waiting = [];
const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    waiting.push(target);
  }
  requestAnimationFrame(next);
}, { rootMargin: "200px" });

function next() {
  if (waiting.length) {
    draw(waiting.shift());
    requestAnimationFrame(next);
  } else {
    // For measurements: milliseconds from the start until everything in view was drawn.
    document.documentElement.dataset.drawn ??= performance.now();
  }
}

const charts = [...document.querySelectorAll(".chart")];
charts.forEach((chart) => observer.observe(chart));
if (!charts.length) next();
addEventListener("beforeprint", () => charts.forEach((chart) => drawn.has(chart) || draw(chart)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));

// --- legend and choice ----------------------------------------------------------------------------

function redraw(block) {
  block.querySelectorAll(".chart").forEach((chart) => drawn.has(chart) && draw(chart));
}

for (const block of document.querySelectorAll(".block")) {
  hidden.set(block, new Set());
  block.querySelector(".choice")?.addEventListener("change", () => redraw(block));
  for (const button of block.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const off = hidden.get(block), { key } = button.dataset;
      if (!off.delete(key)) off.add(key);
      button.ariaPressed = String(!off.has(key));
      redraw(block);
    });
  }
}

// --- keyboard -------------------------------------------------------------------------------------

const ZOOMS = { "+": 0.5, "=": 0.5, "-": 2, "−": 2 };

function onKey(event) {
  const chart = event.currentTarget;
  if (!chart.data || event.ctrlKey || event.metaKey || event.altKey) return;
  const [low, high] = chart.layout.xaxis.range;
  if (event.key in ZOOMS) {
    const middle = chart.cursor ?? (low + high) / 2, half = ((high - low) / 2) * ZOOMS[event.key];
    Plotly.relayout(chart, { "xaxis.range": [middle - half, middle + half] });
  } else if (event.key === "0" || event.key === "Escape") {
    Plotly.relayout(chart, whole(chart));
  } else if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") {
    point(chart, event.key, low, high);
  } else {
    return;
  }
  event.preventDefault();
}

function whole(chart) {
  if (chart.spec.kind === "lines") {
    const { range } = chart.spec;
    const height = range ? { "yaxis.range": range } : { "yaxis.autorange": true };
    return { "xaxis.autorange": true, ...height };
  }
  const columns = values(chart.spec.columns);
  return {
    "xaxis.range": [columns[0], columns.at(-1)], "yaxis.range": [chart.spec.low, chart.spec.high],
  };
}

// Moves the selected step by one visible point, or to the first or last visible point; in a colour
// dimension also the selected bin.
function point(chart, key, low, high) {
  const of = chart.spec.kind === "lines" ? chart.data.map((t) => t.x) : [values(chart.spec.steps)];
  const longest = of.reduce((a, b) => (b.length > a.length ? b : a), []);
  const steps = Array.from(longest).filter((step) => step >= low && step <= high);
  if (!steps.length) return;
  const before = steps.findLastIndex((step) => step <= (chart.cursor ?? -Infinity));
  const places = {
    ArrowLeft: before - 1, ArrowRight: before + 1, Home: 0, End: steps.length - 1,
    ArrowUp: before, ArrowDown: before,
  };
  chart.cursor = steps[clamp(places[key], steps.length)];
  const at = { xval: chart.cursor };
  if (chart.spec.kind === "dimension") {
    const bins = values(chart.spec.bins), up = { ArrowUp: 1, ArrowDown: -1 }[key] ?? 0;
    chart.bin = clamp((chart.bin ?? 0) + up, bins.length - 1);
    at.yval = (bins[chart.bin] + bins[chart.bin + 1]) / 2;
  }
  Plotly.Fx.hover(chart, at, "xy");
  announce(chart);
}

const clamp = (index, length) => Math.min(Math.max(index, 0), length - 1);

// Writes the content of the label for screen readers.
const live = document.getElementById("live");
function announce(chart) {
  const { spec, cursor } = chart;
  const texts = spec.kind === "lines"
    ? chart.data.filter((trace) => trace.visible).flatMap(({ meta, x, y }) => {
        const place = x.indexOf(cursor);
        return place < 0 ? [] : [`${meta} ${y[place]}`];
      })
    : [inBin(spec, values(spec.steps).indexOf(cursor), chart.bin)];
  live.textContent = `step ${cursor}: ${texts.join(", ")}`;
}

function inBin(spec, column, bin) {
  const [low, high] = values(spec.bins).subarray(bin, bin + 2);
  return `${rows(spec.counts)[bin][column]} values from ${low} to ${high}`;
}

for (const chart of charts) {
  chart.addEventListener("keydown", onKey);
  chart.addEventListener("blur", () => chart.data && Plotly.Fx.unhover(chart));
}
