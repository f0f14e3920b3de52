"use strict";
// The document in #data, what of it is chosen, and how numbers are written. The page chooses among
// the planner's numbers and computes none: a slider stops where the planner has answered.

const data = JSON.parse(document.getElementById("data").textContent);
const state = { plan: 0, budget: 0, context: 0, config: null };
const TERMS = ["weights", "kv", "activation", "overhead"];
const TERM_NAMES = { weights: "weights", kv: "KV cache", activation: "activation peak", overhead: "overhead" };
const TERM_COLORS = TERMS.map((name) => `var(--${name})`);
const LEAST_LOSS = 1e-3; // smaller ones are drawn there: no benchmark resolves them

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
const percent = (part) => `${(part < 1 - 1e-9 ? Math.min(100 * part, 99.9) : 100 * part).toFixed(1)} %`;
const seconds = (value) =>
  value == null ? "not predicted: no GPU named" : value < 0.1 ? `${+(1000 * value).toPrecision(3)} ms` : `${+value.toPrecision(3)} s`;
const tokens = (n) => n.toLocaleString("en");
// How the numbers of a receipt are written, by the units that records/measuring.py names.
const WRITTEN = { bytes: gigabytes, seconds, fraction: percent, tokens, "tokens per second": (value) => `${value.toFixed(1)} tokens/s` };
const short = (n) => (n >= 1024 && n % 1024 === 0 ? `${n / 1024}k` : tokens(n));
const loss = (kept) => Math.max(1 - kept, LEAST_LOSS);
const lossTick = (v) => `${v <= LEAST_LOSS ? "≤ " : ""}${+(100 * v).toPrecision(2)} %`;

const plan = () => data.plans[state.plan];
const answers = () => plan().answers[state.context];
const budget = () => plan().budgets[state.budget];
const called = (one) => `${one.document.model}, ${one.document.engine}`;

// Points of the frontier at a context of a plan for one of its budgets, and the recommended of them.
function view(one, at, place) {
  const here = at.by_budget ? at.by_budget[place] : { points: at.points, recommended: at.recommended?.[place] };
  const { points, recommended } = here;
  if (recommended === undefined) return { points, best: points.find((p) => p.config === one.recommended) };
  return { points, best: recommended === null ? null : points[recommended] };
}
const shown = () => view(plan(), answers(), state.budget);

const series = () => {
  const { configs } = plan();
  return configs.find((one) => one.config === state.config) ?? configs[0];
};

// Where a plan was asked: places in its budgets and contexts.
function asked(one) {
  return {
    budget: Math.max(0, one.budgets.indexOf(one.document.budget)),
    context: Math.max(0, one.answers.findIndex((at) => at.context === one.document.context)),
  };
}

// What to type for a point: an engine's own start, else a verification by this program.
function command(point) {
  if (point.command) return point.command;
  const { model, model_path: path, engine, output, batch } = plan().document;
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const words = ["kvpareto verify -m", quoted(path ?? model), "--config", quoted(point.config), "--budget", `${budget() / 1e9}GB`, "--context", answers().context];
  if (engine !== "kvpareto") words.push("--engine", engine);
  if (output !== 512) words.push("--output", output);
  if (batch > 1) words.push("--batch", batch);
  return words.join(" ");
}
