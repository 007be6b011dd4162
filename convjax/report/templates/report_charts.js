// Plotly traces and layouts, made from the specifications of convjax/report:
//
//   {kind: "lines", y, traces, range?, marks?, rule?}
//     traces: {name, key, colour, dash, x, y, width?, points?}; x and y refer to arrays
//     marks: [step, number] of numbered vertical lines; rule: the height of a dashed line
//     an axis whose name contains "(log scale)" is logarithmic
//   {kind: "dimension", columns, bins, counts, steps, over, under, low, high, top, ticks,
//    strip}
//   {kind: "none", text}: there is nothing to draw

// Resolves a CSS colour, such as light-dark(…) or a custom property, to its present value.
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;
function colour(css) {
  probe.style.color = css;
  return getComputedStyle(probe).color;
}

// Plotly interprets its texts as HTML.
const plain = (text) =>
  text.replace(/[&<>]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[letter]);

function lines(spec, hidden) {
  const traces = spec.traces.map((trace) => ({
    type: "scatter",
    // A line of one point would be invisible.
    mode: trace.points || values(trace.x).length === 1 ? "lines+markers" : "lines",
    name: plain(trace.name),
    meta: trace.key,
    visible: !hidden.has(trace.key),
    x: values(trace.x),
    y: values(trace.y),
    line: { color: colour(trace.colour), width: trace.width ?? 1.5, dash: trace.dash },
    marker: { size: 6 },
    hovertemplate: "%{y:.4~g}",
  }));
  const log = spec.y.includes("(log scale)");
  const layout = frame();
  layout.hovermode = "x unified";
  layout.yaxis = axis(spec.y, {
    type: log ? "log" : "linear", range: spec.range, exponentformat: "power",
    ...(log && { dtick: "auto", minor: { ticks: "" } }),
  });
  layout.shapes = (spec.marks ?? []).map(([step]) => ({
    type: "line", x0: step, x1: step, yref: "paper", y0: 0, y1: 1,
    line: { color: colour("var(--mark)"), width: 1.5, dash: "dot" },
  }));
  layout.annotations = (spec.marks ?? []).map(([step, number]) => ({
    x: step, yref: "paper", y: 1, yanchor: "bottom", text: `${number}`, showarrow: false,
    font: { color: colour("var(--mark)") },
  }));
  if (spec.rule) {
    layout.shapes.push({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: spec.rule, y1: spec.rule,
      line: { color: colour("var(--quiet)"), width: 1, dash: "dash" },
    });
  }
  return { traces, layout };
}

function dimension(spec) {
  const counts = rows(spec.counts), steps = values(spec.steps), columns = values(spec.columns);
  const blue = colour("light-dark(#0072b2, #56b4e9)");
  const strip = (name, y, yaxis) => ({
    type: "scatter", mode: "lines", name, x: steps, y, yaxis, fill: "tozeroy",
    line: { color: blue, width: 1 }, hovertemplate: `step %{x}<br>%{y:.4~g} %<extra>${name}</extra>`,
  });
  const [over, under] = [`x > ${spec.high}`, `x < ${spec.low}`].map(plain);
  const traces = [
    {
      type: "heatmap",
      x: columns,
      y: values(spec.bins),
      z: counts.map((row) => row.map(Math.log1p)),
      customdata: counts.map((row) => Array.from(row)),
      colorscale: "Viridis",
      zmin: 0,
      zmax: Math.log1p(spec.top),
      hoverongaps: false,
      // x is the middle of a column of several steps.
      hovertemplate: `${columns[1] - columns[0] > 1 ? "about step" : "step"} %{x}<br>output %{y}<br>%{customdata:,.4~g} values<extra></extra>`,
      colorbar: {
        title: { text: "values per bin, log(1 + count)", side: "bottom" },
        tickvals: spec.ticks.map(Math.log1p),
        // Short labels such as 100k, because long ones would touch in a narrow chart.
        ticktext: spec.ticks.map((tick) => (tick < 1000 ? `${tick}` : tick < 1e6 ? `${tick / 1e3}k` : `${tick / 1e6}M`)),
        // Below the steps, so that the chart keeps its width.
        orientation: "h", x: 0.5, y: -0.19, yanchor: "top", len: 1, thickness: 10, ypad: 0,
        outlinewidth: 0,
      },
    },
    strip(over, values(spec.over), "y2"),
    strip(under, values(spec.under), "y3"),
  ];
  const layout = frame();
  layout.hovermode = "closest";
  Object.assign(layout.xaxis, { anchor: "y3", nticks: 5 });
  layout.xaxis.range = [columns[0], columns.at(-1)];
  layout.yaxis = axis("output x", { domain: [0.17, 0.83], range: [spec.low, spec.high] });
  const outside = { range: [0, spec.strip], nticks: 3, rangemode: "tozero" };
  layout.yaxis2 = axis(`${over}<br>%`, { domain: [0.88, 1], ...outside });
  layout.yaxis3 = axis(`${under}<br>%`, { domain: [0, 0.12], ...outside });
  return { traces, layout };
}

function axis(title, more) {
  return {
    title: { text: title, standoff: 8 }, automargin: true, gridcolor: colour("var(--line)"),
    linecolor: colour("var(--quiet)"), zeroline: false, ...more,
  };
}

function frame() {
  const text = colour("var(--text)");
  return {
    paper_bgcolor: "rgba(0, 0, 0, 0)",
    plot_bgcolor: "rgba(0, 0, 0, 0)",
    font: { family: "system-ui, sans-serif", size: 13, color: text },
    // The top margin has room for the buttons, which are always visible on touch screens.
    margin: { l: 60, r: 12, t: 32, b: 44 },
    showlegend: false,
    hoverlabel: {
      bgcolor: colour("var(--panel)"), bordercolor: colour("var(--quiet)"),
      font: { color: text, family: "system-ui, sans-serif" }, namelength: -1,
    },
    modebar: { color: colour("var(--quiet)"), activecolor: text, bgcolor: "rgba(0, 0, 0, 0)" },
    xaxis: axis("step", { rangemode: "tozero" }),
    dragmode: "zoom",
  };
}
