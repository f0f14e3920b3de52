// The figures, drawn with Observable Plot from the document of base.js; each has its numbers as a
// table and is saved as SVG or PNG.

const style = { background: "transparent", fontSize: "13px" };
const width = () => Math.max(320, Math.min(960, document.getElementById("figures").clientWidth || 900));
const common = (height) => ({ width: width(), height, marginLeft: 62, marginRight: 24, marginTop: 30, marginBottom: 44, style });
const contextTicks = (rows, most) => {
  const every = [...new Set(rows.map((p) => p.context))];
  const round = every.filter((n) => Number.isInteger(Math.log2(n)));
  const all = round.length > 1 ? round : every;
  const step = Math.ceil(all.length / most);
  return all.filter((_, i) => i % step === 0);
};
const overContexts = (rows, most = 12) => ({ label: "context, tokens", type: "log", base: 2, ticks: contextTicks(rows, width() < 600 ? Math.min(most, 5) : most), tickFormat: short, labelOffset: 38 });
const lossAxis = { label: "loss (log scale)", type: "log", reverse: true, tickFormat: lossTick, grid: true };

function figure(id, title, caption, svg, columns, rows, { legend, above } = {}) {
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title}. ${caption} The numbers are in the table below.`);
  for (const group of svg.querySelectorAll("g[aria-label]")) { // a picture is read as one thing
    group.dataset.mark = group.getAttribute("aria-label");
    group.removeAttribute("aria-label");
  }
  const save = (kind) => el("button", { type: "button", "aria-label": `Save ${title} as ${kind.toUpperCase()}`, onclick: () => download(svg, `${id}.${kind}`, kind) }, kind.toUpperCase());
  return el("figure", { class: "part", id },
    el("div", { class: "tools" }, save("svg"), " ", save("png")),
    el("h2", {}, title), el("figcaption", {}, caption),
    above ?? null,
    legend ? el("div", { class: "legend" }, ...legend.map(([name, color, mark]) => el("span", {}, sign(color, mark), name))) : null,
    svg,
    el("details", {}, el("summary", {}, "Numbers"), table(title, columns, rows)));
}

function table(title, columns, rows) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Numbers of ${title}` },
    el("table", {},
      el("thead", {}, el("tr", {}, ...columns.map(([name]) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...columns.map(([, value], i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, value(row))))))));
}

function sign(color, mark) {
  const node = el("i", { class: mark ?? "box", "aria-hidden": "true" }, mark === "star" ? "★" : null);
  node.style.color = color;
  return node;
}

const tip = (rows, options, pointer = Plot.pointer) => Plot.tip(rows, pointer({ fill: "var(--panel)", stroke: "var(--line)", ...options }));

function frontier() {
  const { points: all, best } = shown();
  const fits = (p) => (p.fits ?? true) && p.total_high <= budget();
  const role = (p) => (p === best ? "recommended" : fits(p) ? "fits" : "beyond");
  const color = (p) => ({ recommended: "var(--best)", fits: "var(--fits)", beyond: "var(--beyond)" })[role(p)];
  const points = [...all].sort((a, b) => (a === best) - (b === best));
  const at = { x: (p) => p.total / 1e9, y: (p) => loss(p.retention) };
  const of = (name) => points.filter((p) => role(p) === name);
  const svg = Plot.plot({
    ...common(400), x: { label: "total memory, GB", grid: true, labelOffset: 38 }, y: lossAxis,
    marks: [
      Plot.ruleX([budget() / 1e9], { stroke: "var(--best)", strokeDasharray: "4 3" }),
      Plot.ruleX(points, { x: at.x, y1: (p) => loss(p.high), y2: (p) => loss(p.low), stroke: color, strokeOpacity: (p) => (p === best ? 1 : 0.35), strokeWidth: (p) => (p === best ? 2 : 1) }),
      Plot.dot(of("beyond"), { ...at, stroke: "var(--beyond)", fill: "var(--back)", r: 4 }),
      Plot.dot(of("fits"), { ...at, fill: "var(--fits)", r: 4, fillOpacity: 0.8 }),
      Plot.dot(of("recommended"), { ...at, fill: "var(--best)", stroke: "var(--back)", symbol: "star", r: 9 }),
      tip(points, { ...at, title: (p) => `${p.config}\n${gigabytes(p.total)}, at most ${gigabytes(p.total_high)}: ${role(p)}\nkeeps ${percent(p.retention)}, ${percent(p.low)} to ${percent(p.high)}\nTTFT ${seconds(p.ttft_s)}, TPOT ${seconds(p.tpot_s)}` }),
    ],
  });
  return figure("frontier", "Frontier", "Configurations that no other beats in memory, retention and time, with the interval of their loss; the dashed line is the budget.", svg,
    [["configuration", (p) => p.config], ["where", role], ["total", (p) => gigabytes(p.total)], ["at most", (p) => gigabytes(p.total_high)],
      ["retention", (p) => percent(p.retention)], ["at least", (p) => percent(p.low)], ["TTFT", (p) => seconds(p.ttft_s)], ["TPOT", (p) => seconds(p.tpot_s)]],
    all, { legend: [["recommended", "var(--best)", "star"], ["fits", "var(--fits)", "dot"], ["beyond the budget", "var(--beyond)", "ring"]] });
}

function compare() {
  if (data.plans.length < 2) return null;
  const colors = ["var(--weights)", "var(--kv)", "var(--activation)", "var(--overhead)"];
  const sides = data.plans.map((one, i) => {
    const here = asked(one);
    const { points, best } = view(one, one.answers[here.context], here.budget);
    return { one, best, color: colors[i], rows: points.map((p) => ({ ...p, name: called(one), color: colors[i], best: p === best })) };
  });
  const rows = sides.flatMap((side) => side.rows).sort((a, b) => a.best - b.best);
  const at = { x: (p) => p.total / 1e9, y: (p) => loss(p.retention) };
  const svg = Plot.plot({
    ...common(400), x: { label: "total memory, GB", grid: true, labelOffset: 38 }, y: lossAxis,
    marks: [
      Plot.ruleX(sides, { x: (side) => side.one.document.budget / 1e9, stroke: "color", strokeDasharray: "4 3" }),
      Plot.ruleX(rows.filter((p) => p.best), { x: at.x, y1: (p) => loss(p.high), y2: (p) => loss(p.low), stroke: "color", strokeWidth: 2 }),
      Plot.dot(rows.filter((p) => !p.best), { ...at, fill: "color", fillOpacity: 0.8, r: 4 }),
      Plot.dot(rows.filter((p) => p.best), { ...at, fill: "color", stroke: "var(--back)", symbol: "star", r: 9 }),
      tip(rows, { ...at, title: (p) => `${p.name}\n${p.config}\n${gigabytes(p.total)}, at most ${gigabytes(p.total_high)}\nkeeps ${percent(p.retention)}, at least ${percent(p.low)}` }),
    ],
    color: { type: "identity" },
  });
  const columns = [["total", (p) => gigabytes(p.total)], ["at most", (p) => gigabytes(p.total_high)], ["retention", (p) => percent(p.retention)], ["at least", (p) => percent(p.low)], ["TTFT", (p) => seconds(p.ttft_s)], ["TPOT", (p) => seconds(p.tpot_s)]];
  const recommended = sides.filter((side) => side.best);
  const above = table("what each plan recommends", [["plan", ({ one }) => called(one)], ["recommended", ({ best }) => best.config], ...columns.map(([name, value]) => [name, ({ best }) => value(best)])], recommended);
  return figure("compare", "Side by side", "Each plan's frontier at the context it was made for; a star is what it recommends, a dashed line its budget.", svg,
    [["plan", (p) => p.name], ["configuration", (p) => p.config + (p.best ? " (recommended)" : "")], ...columns],
    sides.flatMap((side) => side.rows), { above, legend: sides.map(({ one, color }) => [called(one), color, "dot"]) });
}

function memory() {
  const one = series();
  if (!one || one.over_contexts.length < 2) return null;
  const points = one.over_contexts;
  const rows = points.flatMap((p) => TERMS.map((term) => ({ context: p.context, term, bytes: p[term] })));
  const places = points.some((p) => p.host);
  const beside = (p) => (p.host ? `\non the host ${gigabytes(p.host)}; ${p.layers} layers on the device` : "");
  const svg = Plot.plot({
    ...common(360), x: overContexts(points), y: { label: "GB", grid: true },
    color: { domain: TERMS, range: TERM_COLORS },
    marks: [
      Plot.areaY(rows, { x: "context", y: (d) => d.bytes / 1e9, fill: "term", order: TERMS }),
      Plot.ruleY([budget() / 1e9], { stroke: "var(--best)", strokeDasharray: "4 3", strokeWidth: 2 }),
      tip(points, { x: "context", y: (p) => p.total / 1e9, title: (p) => `${tokens(p.context)} tokens\n${TERMS.map((t) => `${TERM_NAMES[t]} ${gigabytes(p[t])}`).join("\n")}\ntotal ${gigabytes(p.total)}, at most ${gigabytes(p.total_high)}${beside(p)}` }, Plot.pointerX),
    ],
  });
  const caption = places
    ? `${one.config}: what each term takes on the device, within the budget asked; the rest of the layers is in host memory. The dashed line is the budget.`
    : `${one.config}: what each term takes; the dashed line is the budget.`;
  return figure("memory", "Memory against context", caption, svg,
    [["context", (p) => tokens(p.context)], ...TERMS.map((t) => [TERM_NAMES[t], (p) => gigabytes(p[t])]), ["total", (p) => gigabytes(p.total)], ["at most", (p) => gigabytes(p.total_high)],
      ...(places ? [["on the host", (p) => gigabytes(p.host ?? 0)], ["layers on the device", (p) => p.layers ?? "all"]] : [])],
    points, { legend: TERMS.map((t, i) => [TERM_NAMES[t], TERM_COLORS[i]]) });
}

function band(rows, x, key, title) {
  const low = key.replace("_s", "_low"), high = key.replace("_s", "_high");
  return [
    Plot.areaY(rows, { x, y1: low, y2: high, fill: "var(--weights)", fillOpacity: 0.18 }),
    Plot.lineY(rows, { x, y: key, stroke: "var(--weights)", strokeWidth: 2, marker: "dot" }),
    tip(rows, { x, y: key, title: (p) => `${title(p)}\n${seconds(p[key])} (${seconds(p[low])} to ${seconds(p[high])})` }, Plot.pointerX),
  ];
}

function overContext(key, name) {
  const one = series();
  const rows = (one?.over_contexts ?? []).filter((p) => p[key] != null);
  if (rows.length < 2) return null;
  const low = key.replace("_s", "_low"), high = key.replace("_s", "_high");
  const svg = Plot.plot({ ...common(280), x: overContexts(rows),
    y: { label: "time (log scale)", type: "log", grid: true, ticks: 5, tickFormat: seconds }, marks: band(rows, "context", key, (p) => `${tokens(p.context)} tokens`) });
  return figure(key.slice(0, 4), `${name} against context`, `${one.config}: prediction and its interval.`, svg,
    [["context", (p) => tokens(p.context)], [name, (p) => seconds(p[key])], ["from", (p) => seconds(p[low])], ["to", (p) => seconds(p[high])]], rows);
}

function overChunk() {
  const one = series();
  const rows = (one?.over_chunks ?? []).filter((p) => p.ttft_s != null).map((p) => ({ ...p, name: p.chunk == null ? "one shot" : String(p.chunk) }));
  if (rows.length < 2) return null;
  const times = rows.map((p) => p.ttft_s);
  const same = Math.max(...times) < 1.01 * Math.min(...times);
  const svg = Plot.plot({ ...common(280), x: { label: "prefill chunk, tokens", type: "point", domain: rows.map((p) => p.name), ticks: rows.map((p) => p.name).filter((_, i, all) => width() >= 600 || (all.length - 1 - i) % 3 === 0), labelOffset: 38 },
    y: { label: "TTFT (log scale)", type: "log", grid: true, ticks: 5, tickFormat: seconds }, marks: band(rows, "name", "ttft_s", (p) => `chunk ${p.name}, ${gigabytes(p.total)}, TPOT ${seconds(p.tpot_s)}`) });
  const said = same ? "no difference is predicted in time, larger chunks take more memory." : "the chunk decides the time to the first token and the activation peak.";
  return figure("chunk", "TTFT against prefill chunk", `${one.config.replace(/\+pc\w+/, "")} at ${tokens(rows[0].context)} tokens: ${said}`, svg,
    [["chunk", (p) => p.name], ["TTFT", (p) => seconds(p.ttft_s)], ["TPOT", (p) => seconds(p.tpot_s)], ["total", (p) => gigabytes(p.total)], ["activation peak", (p) => gigabytes(p.activation)]], rows);
}

function accuracy() {
  const one = series();
  const points = one?.over_contexts ?? [];
  if (!points.length) return null;
  const rows = points.flatMap((p) => Object.entries(p.tasks).map(([task, [kept, low, high]]) => ({ context: p.context, task: task.replaceAll("_", " "), kept, low, high })));
  const kinds = [...new Set(rows.map((d) => d.task))];
  const columns = width() < 600 ? 2 : 3;
  const place = (d) => ({ fx: kinds.indexOf(d.task) % columns, fy: Math.floor(kinds.indexOf(d.task) / columns) });
  const at = { fx: (d) => place(d).fx, fy: (d) => place(d).fy, x: "context" };
  const svg = Plot.plot({ ...common(170 * Math.ceil(kinds.length / columns)), fx: { axis: null, padding: 0.08 }, fy: { axis: null, padding: 0.14 }, x: overContexts(points, 4),
    y: { label: "retention, %", grid: true, percent: true, ticks: 4, domain: [100 * Math.min(0.99, ...rows.map((d) => d.low)), 100.2] }, marks: [
      Plot.frame({ stroke: "var(--line)" }),
      Plot.areaY(rows, { ...at, y1: "low", y2: "high", fill: "var(--fits)", fillOpacity: 0.2 }),
      Plot.lineY(rows, { ...at, y: "kept", stroke: "var(--fits)", strokeWidth: 2, marker: "dot" }),
      Plot.text(kinds.map((task) => ({ task })), { fx: (d) => place(d).fx, fy: (d) => place(d).fy, text: "task", frameAnchor: "bottom-left", dx: 8, dy: -8, fontWeight: 600 }),
      tip(rows, { ...at, y: "kept", title: (d) => `${d.task}, ${tokens(d.context)} tokens\n${percent(d.kept)} (${percent(d.low)} to ${percent(d.high)})` }),
    ] });
  return figure("accuracy", "Retention by kind of task and context", `${one.config}: prediction and its interval (90 %).`, svg,
    [["kind", (d) => d.task], ["context", (d) => tokens(d.context)], ["retention", (d) => percent(d.kept)], ["from", (d) => percent(d.low)], ["to", (d) => percent(d.high)]], rows);
}

function receipt(one, number) {
  const rows = one.terms.filter((t) => t.unit === "bytes" && t.predicted > 0);
  const name = (t) => t.name.replaceAll("_", " ");
  const color = (t) => (t.side === "worse" ? "var(--best)" : t.side === "better" ? "var(--kv)" : "var(--fits)");
  const svg = Plot.plot({ ...common(60 + 34 * rows.length), marginLeft: 150, x: { label: "GB", grid: true, labelOffset: 38 }, y: { label: null, domain: rows.map(name) },
    marks: [
      Plot.ruleY(rows, { y: name, x1: (t) => t.low / 1e9, x2: (t) => t.high / 1e9, stroke: "var(--beyond)", strokeWidth: 6, strokeOpacity: 0.5 }),
      Plot.tickX(rows, { y: name, x: (t) => t.predicted / 1e9, stroke: "var(--text)" }),
      Plot.dot(rows.filter((t) => t.measured != null), { y: name, x: (t) => t.measured / 1e9, fill: color, r: 5 }),
      tip(rows, { y: name, x: (t) => (t.measured ?? t.predicted) / 1e9, title: (t) => `${name(t)}\npredicted ${gigabytes(t.predicted)}\n${t.measured == null ? "not measured" : `measured ${gigabytes(t.measured)}`}` }, Plot.pointerY),
    ] });
  const show = (t, value) => (value == null ? "-" : WRITTEN[t.unit](value));
  return figure(`receipt-${number + 1}`, `Receipt: ${one.config} at ${tokens(one.context)} tokens`, `${one.verdict} A dot is measured, a tick predicted, a bar the prediction's interval.`, svg,
    [["term", name], ["predicted", (t) => show(t, t.predicted)], ["from", (t) => show(t, t.low)], ["to", (t) => show(t, t.high)], ["measured", (t) => show(t, t.measured)], ["verdict", (t) => t.side ?? "not judged"]], one.terms,
    { legend: [["measured, inside its interval", "var(--fits)", "dot"], ["better", "var(--kv)", "dot"], ["worse", "var(--best)", "dot"]] });
}

// The figure as a file: colours of the page are written out, since a file has no style sheet.
function download(svg, name, kind) {
  const root = getComputedStyle(document.documentElement);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const colour = (variable) => root.getPropertyValue(variable).trim().replace(/light-dark\((#\w+), (#\w+)\)/, (_, light, other) => (dark ? other : light));
  const copy = svg.cloneNode(true);
  copy.style.background = colour("--back");
  copy.style.color = colour("--text");
  const source = new XMLSerializer().serializeToString(copy).replace(/var\((--[a-z]+)\)/g, (_, variable) => colour(variable));
  const save = (url) => { const link = el("a", { href: url, download: name }); link.click(); };
  const url = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
  if (kind === "svg") return save(url);
  const image = new Image();
  image.onload = () => {
    const canvas = el("canvas", { width: 2 * svg.width.baseVal.value, height: 2 * svg.height.baseVal.value });
    const ink = canvas.getContext("2d");
    ink.scale(2, 2);
    ink.drawImage(image, 0, 0);
    save(canvas.toDataURL("image/png"));
  };
  image.src = url;
}
