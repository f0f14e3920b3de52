"use strict";
// Draws the document in #data with Observable Plot. It chooses among the planner's numbers and
// computes none: a slider stops where the planner has answered.

const data = JSON.parse(document.getElementById("data").textContent);
const state = { plan: 0, budget: 0, context: 0, config: null };
const WIDTH = 900;
const TERMS = ["weights", "kv", "activation", "overhead"];
const TERM_NAMES = { weights: "weights", kv: "KV cache", activation: "activation peak", overhead: "overhead" };
const TERM_COLORS = TERMS.map((name) => `var(--${name})`);

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
};
const gigabytes = (bytes) => `${(bytes / 1e9).toFixed(2)} GB`;
const percent = (part) => `${(100 * part).toFixed(1)} %`;
const seconds = (value) =>
  value == null ? "not predicted: no GPU named" : value < 0.1 ? `${+(1000 * value).toPrecision(3)} ms` : `${+value.toPrecision(3)} s`;
const tokens = (n) => n.toLocaleString("en");
const loss = (kept) => Math.max(1 - kept, 1e-4);

const plan = () => data.plans[state.plan];
const answers = () => plan().answers[state.context];
const budget = () => plan().budgets[state.budget];
const recommended = () => {
  const { points, recommended } = answers();
  if (recommended === null) return points.find((p) => p.config === plan().recommended);
  const index = recommended[state.budget];
  return index === null ? null : points[index];
};
const series = () => {
  const { configs } = plan();
  return configs.find((one) => one.config === state.config) ?? configs[0];
};

function start() {
  ask();
  if (!data.plans.length) return;
  reset();
  draw();
}

function reset() {
  const { document: asked, answers: all, budgets, configs } = plan();
  state.context = Math.max(0, all.findIndex((one) => one.context === asked.context));
  state.budget = Math.max(0, budgets.indexOf(asked.budget));
  state.config = configs.length ? configs[0].config : null;
}

function draw() {
  heading();
  answer();
  controls();
  const figures = document.getElementById("figures");
  figures.replaceChildren(
    ...[frontier(), compare(), memory(), overContext("ttft_s", "TTFT"), overContext("tpot_s", "TPOT"), overChunk(), accuracy(), ...data.receipts.map(receipt)].filter(Boolean),
  );
  notes();
}

function heading() {
  const asked = plan().document;
  document.getElementById("title").textContent = asked.model;
  const gpu = asked.gpu ? `, ${asked.gpu}` : "";
  document.getElementById("question").textContent =
    `${(asked.parameters / 1e9).toFixed(2)} B parameters, ${tokens(asked.context)} + ${tokens(asked.output)} tokens, ` +
    `batch ${asked.batch}, engine ${asked.engine}, budget ${gigabytes(asked.budget)}${gpu}`;
}

function answer() {
  const best = recommended();
  const place = document.getElementById("answer");
  const asked = plan().document;
  const where = `${tokens(answers().context)} tokens within ${gigabytes(budget())}`;
  if (!best) {
    place.replaceChildren(
      el("h2", { id: "answer-title" }, `Nothing is safe for ${where}`),
      el("p", {}, "No configuration that fits keeps enough of the score at its lower end. Allow more memory or a shorter context."),
    );
    return;
  }
  const bar = el("div", { class: "bar", role: "img", "aria-label": `${gigabytes(best.total)} of ${gigabytes(budget())}` });
  for (const term of TERMS) {
    const part = el("span", { title: `${TERM_NAMES[term]} ${gigabytes(best[term])}` });
    part.style.width = `${Math.min(100, (100 * best[term]) / budget())}%`;
    part.style.background = `var(--${term})`;
    bar.append(part);
  }
  const command = `kvpareto verify -m ${asked.model} --config '${best.config}' --engine ${asked.engine} --budget ${budget() / 1e9}GB --context ${answers().context}`;
  const between = (low, high) => (low == null ? "" : ` (${seconds(low)} to ${seconds(high)})`);
  place.replaceChildren(
    el("h2", { id: "answer-title" }, `Recommended for ${where}`),
    el("div", { class: "config" }, el("code", {}, best.config)),
    bar,
    el("dl", {},
      el("dt", {}, "memory"), el("dd", {}, `${gigabytes(best.total)}, at most ${gigabytes(best.total_high)}`),
      el("dt", {}, "retention"), el("dd", {}, `${percent(best.retention)}, at least ${percent(best.low)} (${best.provenance})`),
      el("dt", {}, "TTFT"), el("dd", {}, seconds(best.ttft_s) + between(best.ttft_low, best.ttft_high)),
      el("dt", {}, "TPOT"), el("dd", {}, seconds(best.tpot_s) + between(best.tpot_low, best.tpot_high)),
      el("dt", {}, "try it"), el("dd", {}, el("code", {}, command))),
  );
}

function slider(id, name, count, value, text, onChange) {
  const shown = el("output", {}, text(value));
  const input = el("input", { type: "range", id, min: 0, max: count - 1, step: 1, value, "aria-valuetext": text(value),
    oninput: () => {
      shown.textContent = text(+input.value);
      input.setAttribute("aria-valuetext", text(+input.value));
      onChange(+input.value);
    } });
  return el("label", { for: id }, el("span", {}, `${name}: `, shown), input);
}

function select(id, name, options, value, onChange) {
  const input = el("select", { id, onchange: () => onChange(input.value) },
    ...options.map(([key, text]) => el("option", { value: key, selected: key === String(value) }, text)));
  return el("label", { for: id }, name, input);
}

function controls() {
  const place = document.getElementById("controls");
  if (place.childElementCount && place.dataset.plan === String(state.plan)) return;
  place.dataset.plan = state.plan;
  place.onsubmit = (event) => event.preventDefault();
  const { budgets, answers: all, configs } = plan();
  const parts = [];
  if (data.plans.length > 1)
    parts.push(select("plan", "plan", data.plans.map((one, i) => [String(i), `${one.document.model}, ${one.document.engine}`]), state.plan,
      (value) => { state.plan = +value; reset(); draw(); }));
  if (budgets.length > 1)
    parts.push(slider("budget", "budget", budgets.length, state.budget, (i) => gigabytes(plan().budgets[i]), (i) => { state.budget = i; draw(); }));
  if (all.length > 1)
    parts.push(slider("context", "context", all.length, state.context, (i) => `${tokens(plan().answers[i].context)} tokens`, (i) => { state.context = i; draw(); }));
  if (configs.length > 1)
    parts.push(select("config", "configuration of the pictures below the frontier", configs.map((one) => [one.config, one.config]), state.config,
      (value) => { state.config = value; draw(); }));
  place.replaceChildren(...parts);
}

function figure(id, title, caption, svg, columns, rows, legend) {
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title}. ${caption} The numbers are in the table below.`);
  const save = (kind) => el("button", { type: "button", onclick: () => download(svg, `${id}.${kind}`, kind) }, kind.toUpperCase());
  const table = el("table", {},
    el("thead", {}, el("tr", {}, ...columns.map(([name]) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...columns.map(([, value]) => el("td", {}, value(row)))))));
  return el("figure", { class: "part", id },
    el("div", { class: "tools" }, save("svg"), " ", save("png")),
    el("h2", {}, title), el("figcaption", {}, caption),
    legend ? el("div", { class: "legend" }, ...legend.map(([name, color]) => {
      const mark = el("i"); mark.style.background = color; return el("span", {}, mark, name);
    })) : null,
    svg,
    el("details", {}, el("summary", {}, "Numbers"), el("div", { class: "scroll" }, table)));
}

const style = { background: "transparent", fontSize: "13px" };

function frontier() {
  const best = recommended();
  const points = answers().points.map((p) => ({ ...p, fits: p.total_high <= budget() }));
  const color = (p) => (p.config === best?.config ? "var(--best)" : p.fits ? "var(--fits)" : "var(--beyond)");
  const svg = Plot.plot({
    width: WIDTH, height: 380, marginLeft: 60, marginBottom: 44, style,
    x: { label: "total memory, GB", grid: true, labelOffset: 38 },
    y: { label: "loss (log scale)", type: "log", reverse: true, tickFormat: (v) => `${+(100 * v).toPrecision(2)} %`, grid: true },
    marks: [
      Plot.ruleX([budget() / 1e9], { stroke: "var(--best)", strokeDasharray: "4 3" }),
      Plot.ruleX(points, { x: (p) => p.total / 1e9, y1: (p) => loss(p.high), y2: (p) => loss(p.low), stroke: color, strokeOpacity: 0.45 }),
      Plot.dot(points, { x: (p) => p.total / 1e9, y: (p) => loss(p.retention), fill: color, r: (p) => (p.config === best?.config ? 7 : 4), symbol: (p) => (p.config === best?.config ? "star" : "circle") }),
      Plot.tip(points, Plot.pointer({ x: (p) => p.total / 1e9, y: (p) => loss(p.retention), fill: "var(--panel)", stroke: "var(--line)",
        title: (p) => `${p.config}\n${gigabytes(p.total)}, at most ${gigabytes(p.total_high)}: ${p.fits ? "fits" : "beyond"}\nkeeps ${percent(p.retention)}, ${percent(p.low)} to ${percent(p.high)}\nTTFT ${seconds(p.ttft_s)}, TPOT ${seconds(p.tpot_s)}` })),
    ],
    symbol: { type: "identity" }, r: { type: "identity" },
  });
  return figure("frontier", "Frontier", "Configurations that no other beats in memory, retention and time, with the interval of their loss; the dashed line is the budget.", svg,
    [["configuration", (p) => p.config], ["", (p) => (p.config === best?.config ? "recommended" : p.fits ? "fits" : "beyond")], ["total", (p) => gigabytes(p.total)], ["at most", (p) => gigabytes(p.total_high)],
      ["retention", (p) => percent(p.retention)], ["at least", (p) => percent(p.low)], ["TTFT", (p) => seconds(p.ttft_s)], ["TPOT", (p) => seconds(p.tpot_s)]],
    points, [["recommended", "var(--best)"], ["fits", "var(--fits)"], ["beyond the budget", "var(--beyond)"]]);
}

function compare() {
  if (data.plans.length < 2) return null;
  const colors = ["var(--weights)", "var(--kv)", "var(--activation)", "var(--best)"];
  const rows = data.plans.flatMap((one, i) => {
    const all = one.answers.find((a) => a.context === one.document.context) ?? one.answers[0];
    return all.points.map((p) => ({ ...p, name: `${one.document.model}, ${one.document.engine}`, color: colors[i % colors.length], best: p.config === one.recommended }));
  });
  const svg = Plot.plot({
    width: WIDTH, height: 380, marginLeft: 60, marginBottom: 44, style, symbol: { type: "identity" },
    x: { label: "total memory, GB", grid: true, labelOffset: 38 },
    y: { label: "loss (log scale)", type: "log", reverse: true, tickFormat: (v) => `${+(100 * v).toPrecision(2)} %`, grid: true },
    marks: [
      Plot.dot(rows, { x: (p) => p.total / 1e9, y: (p) => loss(p.retention), fill: "color", symbol: (p) => (p.best ? "star" : "circle"), r: 5 }),
      Plot.tip(rows, Plot.pointer({ x: (p) => p.total / 1e9, y: (p) => loss(p.retention), fill: "var(--panel)", title: (p) => `${p.name}\n${p.config}\n${gigabytes(p.total)}\nkeeps ${percent(p.retention)}` })),
    ],
  });
  return figure("compare", "Side by side", "Each plan's frontier at the context it was made for; a star is what it recommends.", svg,
    [["plan", (p) => p.name], ["configuration", (p) => p.config + (p.best ? " (recommended)" : "")], ["total", (p) => gigabytes(p.total)], ["retention", (p) => percent(p.retention)], ["at least", (p) => percent(p.low)], ["TTFT", (p) => seconds(p.ttft_s)], ["TPOT", (p) => seconds(p.tpot_s)]],
    rows, data.plans.map((one, i) => [`${one.document.model}, ${one.document.engine}`, colors[i % colors.length]]));
}

function memory() {
  const one = series();
  if (!one || one.over_contexts.length < 2) return null;
  const rows = one.over_contexts.flatMap((p) => TERMS.map((term) => ({ context: p.context, term, bytes: p[term] })));
  const svg = Plot.plot({
    width: WIDTH, height: 340, marginLeft: 60, marginBottom: 44, style,
    x: { label: "context, tokens", type: "log", base: 2, tickFormat: short, labelOffset: 38 }, y: { label: "GB", grid: true },
    color: { domain: TERMS, range: TERM_COLORS },
    marks: [
      Plot.areaY(rows, { x: "context", y: (d) => d.bytes / 1e9, fill: "term", order: TERMS }),
      Plot.ruleY([budget() / 1e9], { stroke: "var(--best)", strokeDasharray: "4 3" }),
      Plot.tip(one.over_contexts, Plot.pointerX({ x: "context", y: (p) => p.total / 1e9, fill: "var(--panel)",
        title: (p) => `${tokens(p.context)} tokens\n${TERMS.map((t) => `${TERM_NAMES[t]} ${gigabytes(p[t])}`).join("\n")}\ntotal ${gigabytes(p.total)}` })),
    ],
  });
  return figure("memory", "Memory against context", `${one.config}: what each term takes; the dashed line is the budget.`, svg,
    [["context", (p) => tokens(p.context)], ...TERMS.map((t) => [TERM_NAMES[t], (p) => gigabytes(p[t])]), ["total", (p) => gigabytes(p.total)], ["at most", (p) => gigabytes(p.total_high)]],
    one.over_contexts, TERMS.map((t, i) => [TERM_NAMES[t], TERM_COLORS[i]]));
}

function band(rows, x, key, options) {
  const low = key.replace("_s", "_low"), high = key.replace("_s", "_high");
  return [
    Plot.areaY(rows, { x, y1: low, y2: high, fill: "var(--weights)", fillOpacity: 0.18 }),
    Plot.lineY(rows, { x, y: key, stroke: "var(--weights)", marker: "dot" }),
    Plot.tip(rows, Plot.pointerX({ x, y: key, fill: "var(--panel)", title: (p) => `${options(p)}\n${seconds(p[key])} (${seconds(p[low])} to ${seconds(p[high])})` })),
  ];
}

function overContext(key, name) {
  const one = series();
  const rows = (one?.over_contexts ?? []).filter((p) => p[key] != null);
  if (rows.length < 2) return null;
  const svg = Plot.plot({ width: WIDTH, height: 260, marginLeft: 60, marginBottom: 44, style, x: { label: "context, tokens", type: "log", base: 2, tickFormat: short, labelOffset: 38 },
    y: { label: "time (log scale)", type: "log", grid: true, tickFormat: seconds }, marks: band(rows, "context", key, (p) => `${tokens(p.context)} tokens`) });
  return figure(key === "ttft_s" ? "ttft" : "tpot", `${name} against context`, `${one.config}: prediction and its interval.`, svg,
    [["context", (p) => tokens(p.context)], [name, (p) => seconds(p[key])]], rows);
}

function overChunk() {
  const one = series();
  const rows = (one?.over_chunks ?? []).filter((p) => p.ttft_s != null).map((p) => ({ ...p, name: p.chunk == null ? "one shot" : String(p.chunk) }));
  if (rows.length < 2) return null;
  const svg = Plot.plot({ width: WIDTH, height: 260, marginLeft: 60, marginBottom: 44, style, x: { label: "prefill chunk, tokens", type: "point", domain: rows.map((p) => p.name), labelOffset: 38 },
    y: { label: "TTFT (log scale)", type: "log", grid: true, tickFormat: seconds }, marks: band(rows, "name", "ttft_s", (p) => `chunk ${p.name}, ${gigabytes(p.total)}`) });
  return figure("chunk", "TTFT against prefill chunk", `${one.config.replace(/\+pc\w+/, "")} at ${tokens(rows[0].context)} tokens: larger chunks are faster and take more memory.`, svg,
    [["chunk", (p) => p.name], ["TTFT", (p) => seconds(p.ttft_s)], ["total", (p) => gigabytes(p.total)], ["activation peak", (p) => gigabytes(p.activation)]], rows);
}

function accuracy() {
  const one = series();
  const points = one?.over_contexts ?? [];
  if (!points.length) return null;
  const rows = points.flatMap((p) => Object.entries(p.tasks).map(([task, [kept, low, high]]) => ({ context: p.context, task: task.replaceAll("_", " "), kept, low, high })));
  const svg = Plot.plot({ width: WIDTH, height: 260, marginLeft: 60, marginBottom: 44, style, fx: { label: null }, x: { label: "context, tokens", type: "log", base: 2, ticks: 4, tickFormat: short, labelOffset: 38 },
    y: { label: "retention, %", grid: true, percent: true }, marks: [
      Plot.areaY(rows, { fx: "task", x: "context", y1: "low", y2: "high", fill: "var(--fits)", fillOpacity: 0.2 }),
      Plot.lineY(rows, { fx: "task", x: "context", y: "kept", stroke: "var(--fits)", marker: "dot" }),
      Plot.tip(rows, Plot.pointer({ fx: "task", x: "context", y: "kept", fill: "var(--panel)", title: (d) => `${d.task}, ${tokens(d.context)} tokens\n${percent(d.kept)} (${percent(d.low)} to ${percent(d.high)})` })),
    ] });
  return figure("accuracy", "Retention by kind of task and context", `${one.config}: prediction and its interval (90 %).`, svg,
    [["kind", (d) => d.task], ["context", (d) => tokens(d.context)], ["retention", (d) => percent(d.kept)], ["from", (d) => percent(d.low)], ["to", (d) => percent(d.high)]], rows);
}

function receipt(one, number) {
  const rows = one.terms.filter((t) => t.unit === "bytes" && t.predicted > 0);
  const name = (t) => t.name.replaceAll("_", " ");
  const svg = Plot.plot({ width: WIDTH, height: 40 + 34 * rows.length, marginLeft: 150, style, x: { label: "GB", grid: true }, y: { label: null, domain: rows.map(name) },
    marks: [
      Plot.ruleY(rows, { y: name, x1: (t) => t.low / 1e9, x2: (t) => t.high / 1e9, stroke: "var(--beyond)", strokeWidth: 6, strokeOpacity: 0.5 }),
      Plot.tickX(rows, { y: name, x: (t) => t.predicted / 1e9, stroke: "var(--text)" }),
      Plot.dot(rows.filter((t) => t.measured != null), { y: name, x: (t) => t.measured / 1e9, fill: (t) => (t.side === "worse" ? "var(--best)" : "var(--fits)"), r: 5 }),
      Plot.tip(rows, Plot.pointerY({ y: name, x: (t) => (t.measured ?? t.predicted) / 1e9, fill: "var(--panel)", title: (t) => `${name(t)}\npredicted ${gigabytes(t.predicted)}\n${t.measured == null ? "not measured" : `measured ${gigabytes(t.measured)}`}` })),
    ] });
  const show = (t, value) => (value == null ? "-" : t.unit === "bytes" ? gigabytes(value) : seconds(value));
  return figure(`receipt-${number + 1}`, `Receipt: ${one.config} at ${tokens(one.context)} tokens`, `${one.verdict} A dot is measured, a tick predicted, a bar the prediction's interval.`, svg,
    [["term", name], ["predicted", (t) => show(t, t.predicted)], ["from", (t) => show(t, t.low)], ["to", (t) => show(t, t.high)], ["measured", (t) => show(t, t.measured)], ["", (t) => t.side ?? "not judged"]], one.terms);
}

function short(n) {
  return n >= 1024 && n % 1024 === 0 ? `${n / 1024}k` : tokens(n);
}

function notes() {
  const asked = plan().document;
  const list = (title, lines) => (lines?.length ? [el("h2", {}, title), el("ul", {}, ...lines.map((line) => el("li", {}, line)))] : []);
  document.getElementById("notes").replaceChildren(...list("Why (at the budget and context asked)", asked.reasons), ...list("Next steps", asked.steps), ...list("Notes", asked.warnings));
}

function download(svg, name, kind) {
  const copy = svg.cloneNode(true);
  const found = getComputedStyle(document.documentElement);
  const source = new XMLSerializer().serializeToString(copy)
    .replace(/var\((--[a-z]+)\)/g, (_, variable) => found.getPropertyValue(variable).trim().replace(/light-dark\((#\w+), (#\w+)\)/, (_, light, dark) => (matchMedia("(prefers-color-scheme: dark)").matches ? dark : light)));
  const save = (url) => { const link = el("a", { href: url, download: name }); link.click(); };
  if (kind === "svg") return save(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`);
  const image = new Image();
  image.onload = () => {
    const canvas = el("canvas", { width: 2 * svg.width.baseVal.value, height: 2 * svg.height.baseVal.value });
    const ink = canvas.getContext("2d");
    ink.scale(2, 2);
    ink.drawImage(image, 0, 0);
    save(canvas.toDataURL("image/png"));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
}

// A served page asks its server for another plan; a page from a file has no such form.
function ask() {
  const form = document.getElementById("ask");
  if (!data.live) return;
  form.hidden = false;
  const field = (name, label, value, list) => el("label", { for: `ask-${name}` }, label, el("input", { id: `ask-${name}`, name, value: value ?? "", list: list ? `list-${name}` : null, autocomplete: "off" }),
    list ? el("datalist", { id: `list-${name}` }, ...list.map((one) => el("option", { value: one }))) : null);
  const said = el("span", { class: "error", role: "status" }, data.live.error ?? "");
  form.replaceChildren(
    field("model", "model", data.live.asked.model, data.live.models), field("gpu", "GPU", data.live.asked.gpu, data.live.gpus),
    field("budget", "budget", data.live.asked.budget), field("context", "context", data.live.asked.context),
    field("engine", "engine", data.live.asked.engine, data.live.engines), said);
  let waiting = null, last = 0;
  const plan_again = async () => {
    const number = ++last;
    const query = new URLSearchParams(new FormData(form));
    said.textContent = "planning …";
    try {
      const reply = await fetch(`plan.json?${query}`, { headers: { "X-Token": data.live.token } });
      const got = await reply.json();
      if (number !== last) return;
      if (got.error) { said.textContent = `${got.error} ${got.hint ?? ""}`; return; }
      said.textContent = "";
      Object.assign(data, { plans: got.plans });
      state.plan = 0;
      reset();
      document.getElementById("controls").replaceChildren();
      draw();
    } catch (error) {
      if (number === last) said.textContent = "the server does not answer any more";
    }
  };
  form.onsubmit = (event) => { event.preventDefault(); plan_again(); };
  form.oninput = () => { clearTimeout(waiting); waiting = setTimeout(plan_again, 300); };
}

start();
