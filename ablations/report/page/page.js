// The page's behaviour: theme, sorting, filtering, plots, and one view per trial, selected by the address's hash.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const palette = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const root = document.documentElement;

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of children) node.append(child);
  return node;
}

// --- theme: the system's until the button is pressed; a private window may refuse to store the choice
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
try { chosen = localStorage.getItem("cnnjepa-theme"); } catch { chosen = null; }

function applyTheme(theme) {
  root.dataset.theme = theme || chosen || (darkSystem.matches ? "dark" : "light");
  redrawAll();
}

document.getElementById("theme").addEventListener("click", () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("cnnjepa-theme", chosen); } catch { /* the theme changes all the same */ }
  applyTheme();
});
darkSystem.addEventListener("change", () => applyTheme());

// --- tables
function sortValue(cell) {
  const raw = cell.dataset.sort;
  if (raw === undefined) return null;
  const number = Number(raw);
  return raw.trim() !== "" && Number.isFinite(number) ? number : raw;
}

function compare(a, b, down) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;  // missing values stay last
  const order = typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

function sortTable(head, place) {
  const table = head.closest("table");
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const keys = new Map(rows.map((row) => [row, sortValue(row.cells[place])]));
  rows.sort((a, b) => compare(keys.get(a), keys.get(b), down));
  table.tBodies[0].append(...rows);
}

function filterTable(input) {
  const figure = input.closest("figure");
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...figure.querySelectorAll("tbody tr")];
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  figure.querySelector(".count").textContent = words.length ? `${shown} of ${rows.length} rows` : "";
}

for (const button of document.querySelectorAll("[data-sorts]")) {
  button.addEventListener("click", () => sortTable(button.closest("th"), Number(button.dataset.sorts)));
}
for (const input of document.querySelectorAll("[data-filters]")) {
  input.addEventListener("input", () => filterTable(input));
}

// --- plots: drawn when they scroll into view, and again when the theme changes
const plots = new Map();  // element → function that gives {traces, layout}
const drawn = new Set();

function themed(value, style) {
  if (value === "@ink") return style.getPropertyValue("--ink").trim();
  if (value === "@quiet") return style.getPropertyValue("--quiet").trim();
  if (Array.isArray(value)) return value.map((item) => themed(item, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, style)]));
  }
  return value;
}

function draw(node) {
  const style = getComputedStyle(root);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  const { traces, layout } = themed(plots.get(node)(), style);
  const axis = { gridcolor: line, linecolor: line, zeroline: false, automargin: true };
  Plotly.react(node, traces, {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    margin: { l: 52, r: 12, t: 30, b: 40 }, hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, maxheight: 0.3, font: { size: 11 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: style.getPropertyValue("--quiet").trim(), activecolor: ink },
    hoverlabel: { align: "left", bgcolor: style.getPropertyValue("--raised").trim(), bordercolor: line, font: { color: ink } },
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { displaylogo: false, showSendToCloud: false, displayModeBar: "hover", responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
  drawn.add(node);
}

function redrawAll() { for (const node of drawn) if (node.isConnected) draw(node); else drawn.delete(node); }

const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
}, { rootMargin: "300px" });

function shown(label) {  // plotly reads some HTML, and a very long name leaves no room for the curves
  const short = label.length > 60 ? `${label.slice(0, 36)}…${label.slice(-22)}` : label;
  return short.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function curveTraces(trials, kind, name) {
  const colours = new Map();
  const visible = new Set();
  const traces = [];
  for (const { trial, arm, baseline } of trials) {
    const columns = trial.curves[kind];
    if (!columns[name] || columns[name].every((value) => value === null)) continue;
    const first = !colours.has(arm);
    if (first) colours.set(arm, palette[colours.size % palette.length]);
    if (baseline || visible.size < 6) visible.add(arm);
    traces.push({
      type: "scatter", mode: columns[name].length > 1 ? "lines" : "markers", name: shown(arm), legendgroup: arm, showlegend: first,
      x: columns.epoch, y: columns[name], visible: visible.has(arm) ? true : "legendonly",
      line: { color: colours.get(arm), width: baseline ? 2.5 : 1.3 }, marker: { color: colours.get(arm) },
      text: shown(arm),  // not in the template, where `%{…}` in a name would be filled in
      hovertemplate: `%{text}, seed ${trial.seed}<br>epoch %{x:.2f}: %{y:.4g}<extra></extra>`,
    });
  }
  return traces;
}

const curveKinds = [
  ["loss", "train", "loss"],
  ["k-NN on held-out training images", "probe", "knn_top1", "k-NN top-1, %"],
  ["loss on validation images", "probe", "heldout_loss"],
  ["RankMe", "probe", "rankme"],
  ["LiDAR", "probe", "lidar"],
  ["α-ReQ", "probe", "alpha_req"],
];

function curveVariants(trials) {
  return curveKinds
    .map(([label, kind, name, title]) => ({
      label, traces: curveTraces(trials, kind, name),
      layout: { xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { title: { text: title || label } } },
    }))
    .filter((variant) => variant.traces.length);
}

function trialsOf(study) {
  const found = [];
  for (const trial of Object.values(data.trials)) {
    for (const use of trial.uses) if (use.study === study) found.push({ trial, arm: use.arm, baseline: use.baseline });
  }
  return found;
}

for (const figure of document.querySelectorAll("[data-plot]")) {
  const plot = data.plots[figure.dataset.plot];
  const variants = plot.curves ? curveVariants(trialsOf(plot.curves)) : plot.variants;
  const select = figure.querySelector("select");
  const node = figure.querySelector(".plot");
  if (!variants.length) { node.replaceWith(el("p", { class: "quiet" }, "Nothing was logged.")); select.remove(); continue; }
  variants.forEach((variant, place) => select.append(el("option", { value: place }, variant.label)));
  select.addEventListener("change", () => draw(node));
  plots.set(node, () => variants[Number(select.value)]);
  sight.observe(node);
}

// --- one view per trial
function table(head, rows, numbers = []) {
  const cells = (row, name) => row.map((text, place) =>
    el(place === 0 && name === "td" ? "th" : name, { ...(numbers.includes(place) ? { class: "number" } : {}),
      ...(name === "th" ? { scope: "col" } : place === 0 ? { scope: "row" } : {}) }, text));
  return el("div", { class: "scroll", tabindex: "0" }, el("table", {},
    el("thead", {}, el("tr", {}, ...cells(head, "th"))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row, "td"))))));
}

function list(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, ...known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

const percent = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

function figuresTable(trial) {
  const rows = [];
  for (const set of trial.sets || []) for (const protocol of ["held_out", "published"]) {
    const add = (label, probes) => {
      const f = probes && probes[protocol];
      if (f) rows.push([set.name ? `${set.name}: ${label}` : label, protocol, ...["linear_top1", "linear_top5", "knn_top1", "knn_top5"].map((k) => percent(f[k]))]);
    };
    add(`pretrained, ${trial.probed_encoder || "target"} encoder`, set.probes);
    add("floor: untrained encoder", set.floors.untrained);
    add("floor: warm start", set.floors.warm_start);
    add("floor: raw pixels", set.floors.pixels);
  }
  return rows.length
    ? table(["features", "protocol", "linear top-1", "linear top-5", "k-NN top-1", "k-NN top-5"], rows, [2, 3, 4, 5])
    : el("p", { class: "quiet" }, trial.unlabelled ? "The images have no labels; not probed." : "No probe figures.");
}

function metricsTable(trial) {
  const sets = (trial.sets || []).filter((set) => Object.keys(set.metrics).length);
  const floors = ["untrained", "warm_start", "pixels"].filter((name) => sets.some((set) => set.floors.metrics[name]));
  const number = (value) => (value === undefined ? "–" : String(Number(value.toPrecision(6))));
  const rows = sets.flatMap((set) => Object.entries(set.metrics).map(([name, value]) => [
    set.name ? `${set.name}: ${name}` : name, number(value),
    ...floors.map((floor) => number((set.floors.metrics[floor] || {})[name]))]));
  const labels = { untrained: "floor: untrained encoder", warm_start: "floor: warm start", pixels: "floor: raw pixels" };
  return table(["figure", "pretrained", ...floors.map((floor) => labels[floor])], rows, floors.map((_, n) => n + 2).concat(1));
}

function diffSection(trial, use) {
  const base = data.configs[use.study];
  const head = el("h4", {}, `Study ${use.study}: ${use.arm}`);
  const own = use.baseline ? el("p", {}, "This is the study's baseline.")
    : use.diff.length ? table(["config field", "this trial", `baseline ${use.baseline_arm}`], use.diff)
      : el("p", {}, "The config equals the baseline's.");
  const whole = { ...base };
  for (const [path, ours] of use.diff) if (ours === "–") delete whole[path]; else whole[path] = ours;
  whole["runtime.seed"] = String(trial.seed);
  return el("section", {}, head, list([["state in this study", use.state]]), own,
    el("details", {}, el("summary", {}, "Full config"), list(Object.entries(whole))));
}

function trialPage(trial) {
  const cost = trial.cost || {};
  const health = trial.diagnostics || {};
  const chosen = (trial.sets && trial.sets[0] && trial.sets[0].selection) || {};
  const view = el("article", {},
    el("p", {}, el("a", { href: "#top" }, "← the report")),
    el("h1", { tabindex: "-1" }, `Trial ${trial.hash.slice(0, 12)}, seed ${trial.seed}`),
    el("p", {}, `${trial.state}. `, trial.uses.map((use) => `${use.study}: ${use.arm}`).join("; ")));
  if (trial.problem) view.append(el("p", { class: "problem" }, trial.problem));
  if (trial.log_tail) {
    view.append(el("details", {}, el("summary", {}, "Last lines of its log"), el("pre", {}, trial.log_tail)));
  }
  if (health.collapse_evidence) view.append(el("p", { class: "problem" }, `Collapsed: ${health.collapse_evidence}`));
  view.append(el("h3", {}, "Probes and their floors, %"), figuresTable(trial));
  if ((trial.sets || []).some((set) => Object.keys(set.metrics).length)) {
    view.append(el("h3", {}, "Probe metrics and their floors"), metricsTable(trial));
  }
  const variants = curveVariants([{ trial, arm: `seed ${trial.seed}`, baseline: true }]);
  view.append(el("h3", {}, "Training curves"));
  if (trial.curves.problem) view.append(el("p", { class: "quiet" }, trial.curves.problem));
  const holder = el("div", { class: "plots" });
  for (const variant of variants) {
    const node = el("div", { class: "plot" });
    plots.set(node, () => ({ ...variant, layout: { ...variant.layout, showlegend: false } }));
    holder.append(el("figure", { class: "interactive" }, el("figcaption", {}, variant.label), node));
  }
  view.append(variants.length ? holder : el("p", { class: "quiet" }, "Nothing was logged."));
  view.append(el("h3", {}, "Config compared with the baseline"));
  for (const use of trial.uses) view.append(diffSection(trial, use));
  view.append(el("h3", {}, "Run"), el("div", { class: "grid" },
    list([
      ["folder", trial.folder], ["config hash", trial.hash], ["probe hash", trial.probe_hash], ["commit", trial.commit],
      ["method", trial.method], ["encoder", trial.encoder], ["start", trial.start], ["images", trial.dataset],
      ["training images", trial.train_images], ["validation images", trial.val_images],
      ["unreadable images skipped", trial.skipped_images || null],
      ["epochs", trial.epochs], ["final loss", trial.final_loss && trial.final_loss.toPrecision(4)], ["started", trial.started], ["finished", trial.finished],
    ]),
    list([
      ["RankMe", health.rankme && `${health.rankme.toFixed(1)} of ${health.feature_dim}`],
      ["feature spread", health.feature_std && health.feature_std.toFixed(3)],
      ["chosen on the held-out tenth", chosen.linear_lr &&
        `linear ${percent(chosen.linear_top1)} % at lr ${chosen.linear_lr}, epoch ${chosen.linear_epoch}; ` +
        `k-NN ${percent(chosen.knn_top1)} % at k = ${chosen.knn_k}`],
      ["encoder parameters", cost.encoder_params && cost.encoder_params.toLocaleString("en")],
      ["predictor parameters", cost.predictor_params && cost.predictor_params.toLocaleString("en")],
      ["FLOPs per image", cost.flops_per_image && cost.flops_per_image.toPrecision(4)],
      ["training seconds", cost.train_seconds], ["GPU-hours", cost.gpu_hours || null], ["images/s", cost.images_per_s],
      ["peak memory, GiB", cost.peak_memory_bytes && (cost.peak_memory_bytes / 2 ** 30).toFixed(2)],
    ])));
  view.append(el("h3", {}, "Environment"), list(Object.entries(data.environments[trial.environment] || {})));
  return view;
}

function runsPage(hashes) {
  const rows = hashes.map((hash) => data.trials[hash]).filter(Boolean).map((trial) => [
    el("a", { href: `#trial/${trial.page}` }, trial.hash.slice(0, 12)), String(trial.seed),
    trial.uses.map((use) => `${use.study}: ${use.arm}`).join("; "), trial.state, trial.hash,
    trial.probe_hash.slice(0, 8), trial.commit || "–",
  ]);
  return el("article", {},
    el("p", {}, el("a", { href: "#top" }, "← the report")),
    el("h1", { tabindex: "-1" }, "Trials behind this number"),
    table(["run", "seed", "arm", "state", "config hash", "probe hash", "commit"], rows, [1]));
}

let returnTo = 0;

function route() {
  const overview = document.getElementById("overview");
  const place = document.getElementById("trial");
  const [kind, rest] = decodeURIComponent(location.hash.slice(1)).split("/");
  let view = null;
  if (kind === "trial" && data.trials[rest]) view = trialPage(data.trials[rest]);
  if (kind === "runs" && rest) view = runsPage(rest.split(","));
  if (view && place.hidden) returnTo = scrollY;
  const cameBack = !view && overview.hidden;
  overview.hidden = Boolean(view);
  place.hidden = !view;
  place.replaceChildren(...(view ? [view] : []));
  if (view) {
    scrollTo(0, 0);
    view.querySelector("h1").focus();
    for (const node of view.querySelectorAll(".plot")) draw(node);
  } else if (cameBack) {
    const target = kind && kind !== "top" ? document.getElementById(location.hash.slice(1)) : null;
    if (target) target.scrollIntoView(); else scrollTo(0, returnTo);
  }
}

addEventListener("hashchange", route);
addEventListener("beforeprint", () => {
  for (const node of plots.keys()) if (node.isConnected && node.offsetParent) drawn.add(node);
  applyTheme("light");
});
addEventListener("afterprint", () => applyTheme());
applyTheme();
route();
