// The page around the figures: the answer, the sliders, the notes, and in a served page the form.

function start() {
  ask();
  if (!data.plans.length) return;
  reset();
  draw();
  let waiting = null;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawFigures, 150); });
}

function reset() {
  Object.assign(state, asked(plan()));
  state.config = plan().configs[0]?.config ?? null;
}

function draw() {
  heading();
  answer();
  controls();
  drawFigures();
  notes();
}

function drawFigures() {
  const place = document.getElementById("figures");
  const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.parentElement.id));
  const parts = [compare(), frontier(), memory(), overContext("ttft_s", "TTFT"), overContext("tpot_s", "TPOT"), overChunk(), accuracy(), ...data.receipts.map(receipt)];
  place.replaceChildren(...parts.filter(Boolean));
  for (const one of place.children) if (open.has(one.id)) one.querySelector("details").open = true;
}

function heading() {
  const of = plan().document;
  document.getElementById("title").textContent = of.model;
  const gpu = of.gpu ? `, ${of.gpu}` : "";
  const ram = of.ram ? `, ${gigabytes(of.ram)} of host memory` : "";
  document.getElementById("question").textContent =
    `${(of.parameters / 1e9).toFixed(2)} B parameters, ${tokens(of.context)} + ${tokens(of.output)} tokens, ` +
    `batch ${of.batch}, engine ${of.engine}, budget ${gigabytes(of.budget)}${gpu}${ram}`;
}

function answer() {
  const { best } = shown();
  const place = document.getElementById("answer");
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
  const between = (low, high) => (low == null ? "" : ` (${seconds(low)} to ${seconds(high)})`);
  const line = (name, ...text) => [el("dt", {}, name), el("dd", {}, ...text)];
  const terms = TERMS.filter((term) => best[term] > 0).flatMap((term) => [sign(`var(--${term})`), `${TERM_NAMES[term]} ${gigabytes(best[term])}  `]);
  place.replaceChildren(
    el("h2", { id: "answer-title" }, `Recommended for ${where}`),
    el("div", { class: "config" }, el("code", {}, best.config)),
    bar,
    el("dl", {},
      ...line("memory", `${gigabytes(best.total)}, at most ${gigabytes(best.total_high)}`),
      ...line("of that", el("span", { class: "legend" }, ...terms)),
      ...(best.serves ? line("serves", best.serves) : []),
      ...(best.layers ? line("where", `${best.layers} layers on the device, ${gigabytes(best.host)} in host memory`) : []),
      ...line("retention", `${percent(best.retention)}, at least ${percent(best.low)} (${best.provenance})`),
      ...line("TTFT", seconds(best.ttft_s) + between(best.ttft_low, best.ttft_high)),
      ...line("TPOT", seconds(best.tpot_s) + between(best.tpot_low, best.tpot_high)),
      ...line("try it", el("code", {}, command(best)))),
  );
}

function slider(id, name, count, value, text, onChange) {
  const output = el("output", { for: id }, text(value));
  const input = el("input", { type: "range", id, min: 0, max: count - 1, step: 1, value, "aria-valuetext": text(value),
    oninput: () => {
      output.textContent = text(+input.value);
      input.setAttribute("aria-valuetext", text(+input.value));
      onChange(+input.value);
    } });
  return el("label", { for: id }, el("span", {}, `${name}: `, output), input);
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
    parts.push(select("plan", "plan", data.plans.map((one, i) => [String(i), called(one)]), state.plan,
      (value) => { state.plan = +value; reset(); draw(); document.getElementById("plan").focus(); }));
  if (budgets.length > 1)
    parts.push(slider("budget", "budget", budgets.length, state.budget, (i) => gigabytes(plan().budgets[i]), (i) => { state.budget = i; draw(); }));
  if (all.length > 1)
    parts.push(slider("context", "context", all.length, state.context, (i) => `${tokens(plan().answers[i].context)} tokens`, (i) => { state.context = i; draw(); }));
  if (configs.length > 1)
    parts.push(select("config", "drawn against context and chunk", configs.map((one) => [one.config, one.config]), state.config,
      (value) => { state.config = value; drawFigures(); }));
  place.replaceChildren(...parts);
}

function notes() {
  const of = plan().document;
  const list = (title, lines) => (lines?.length ? [el("h2", {}, title), el("ul", {}, ...lines.map((line) => el("li", {}, ...[line].flat())))] : []);
  document.getElementById("notes").replaceChildren(...list("Why (at the budget and context asked)", of.reasons), ...list("Next steps", of.steps), ...list("Notes", of.warnings),
    ...list("Nearest in other engines", (of.elsewhere ?? []).map((one) => [one.config, ": ", el("code", {}, one.command)])));
}

// A served page asks its server for another plan; a page from a file has no such form.
function ask() {
  const form = document.getElementById("ask");
  if (!data.live) return;
  form.hidden = false;
  const field = ([name, label, known]) => el("label", { for: `ask-${name}` }, label,
    el("input", { id: `ask-${name}`, name, value: data.live.asked[name] ?? "", list: known ? `list-${name}` : null, autocomplete: "off", "aria-describedby": "said" }),
    known ? el("datalist", { id: `list-${name}` }, ...known.map((one) => el("option", { value: one }))) : null);
  const { models, gpus, engines, objectives, tasks } = data.live;
  const first = [["model", "model", models], ["gpu", "GPU", gpus], ["budget", "budget"], ["context", "context"], ["engine", "engine", engines]];
  const more = [["ram", "host memory"], ["output", "output tokens"], ["batch", "batch"], ["max_loss", "largest loss"], ["objective", "objective", objectives], ["task", "kind of task", tasks]];
  const said = el("span", { class: "error", role: "status", id: "said" }, data.live.error ?? "");
  form.replaceChildren(...first.map(field), el("details", {}, el("summary", {}, "More"), el("div", { class: "fields" }, ...more.map(field))), said);
  let waiting = null, last = 0;
  const planAgain = async () => {
    const number = ++last;
    const query = new URLSearchParams(new FormData(form));
    said.textContent = "planning …";
    try {
      const reply = await fetch(`plan.json?${query}`, { headers: { "X-Token": data.live.token } });
      const got = await reply.json();
      if (number !== last) return;
      if (got.error) { said.textContent = `${got.error}. ${got.hint ?? ""}`; return; }
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
  form.onsubmit = (event) => { event.preventDefault(); planAgain(); };
  form.oninput = () => { clearTimeout(waiting); waiting = setTimeout(planAgain, 300); };
}

start();
