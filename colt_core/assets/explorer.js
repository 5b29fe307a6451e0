// The mask explorer. What it knows of runs, masks and numbers it keeps; what it lacks it asks of the kernel, where one is.
// A page without a kernel knows everything from the start: see page.js.
const ENOUGH = 300e6; // bytes of masks that are fetched ahead

function explorer({ model, el }) {
  const known = model.known ?? { about: {}, sheets: {}, bits: {}, theta0: {} };
  const asked = new Set(), get = (name) => model.get(name), live = !model.known;
  let sheet = null, edition = get("edition"), shown = "", due = false, theme = null, later = 0;

  // --- what is on the page ---
  const field = (name, control, ...more) => {
    control.setAttribute("aria-label", name);
    return make("label", { class: "colt-field" }, make("span", { text: name }), control, ...more);
  };
  const button = (text, title, act) => {
    const element = make("button", { type: "button", text, title, "aria-label": title });
    element.addEventListener("click", act);
    return element;
  };
  const slider = () => make("input", { type: "range", min: 0, max: 0, step: 1 });
  const run = make("select"), other = make("select"), round = slider(), layer = slider();
  const roundSaid = make("output"), layerSaid = make("output");
  const says = make("div", { class: "colt-says", role: "status" }), legend = make("ul", { class: "colt-legend" });
  const caption = make("div", { class: "colt-caption" }), note = make("div", { class: "colt-note", role: "status" });
  const history = make("div", { class: "colt-history" }), numbers = make("div", { class: "colt-numbers" });
  const canvas = maskCanvas({ pointed, chosen, moved });
  canvas.frame.append(note);
  const tools = [button("+", "zoom in (+)", () => canvas.zoom(1.6)), button("\u2212", "zoom out (-)", () => canvas.zoom(1 / 1.6))];
  tools.push(button("Whole layer", "show the whole layer (0)", () => canvas.fit()));
  if (live) tools.push(button("Reload", "read the store again", () => model.send({ want: "reload" })));
  const rows = new State({ columns: [], rows: [], chosen: 0, alt: "every layer's counts" });
  table({ model: rows, el: numbers });
  el.classList.add("colt-view", "colt-explorer");
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab has commands of its own for arrows, + and 0
  el.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
  el.append(
    make("div", { class: "colt-title", text: get("title") }),
    make("div", { class: "colt-form" }, field("A", run), field("B", other), field("Round", round, roundSaid), field("Layer", layer, layerSaid)),
    says,
    make("div", { class: "colt-grid" },
      make("div", { class: "colt-left" }, make("div", { class: "colt-tools" }, ...tools), canvas.frame, caption, legend, history),
      numbers),
  );

  // --- what is chosen ---
  const about = () => known.about[get("run")];
  const key = (number = get("round")) => `${get("run")}/${number}/${get("other")}`;
  const layers = () => about().layers, at = () => Math.max(0, layers().findIndex(([name]) => name === get("layer")));
  const shape = () => layers()[at()][1], span = () => shape().slice(1).reduce((all, n) => all * n, 1);
  const place = ([row, column]) => row * span() + column;
  const bit = (name, where) => known.bits[name] && bitAt(known.bits[name], about().starts[at()], where);

  function set(changes) {
    due = true; // this is no news
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    due = false;
    update();
    setTimeout(() => model.save_changes()); // after the picture
  }

  function want(what, of) {
    const name = `${what} ${of}`;
    if (!live || asked.has(name)) return;
    if (what === "sheet" && held() > 2 * ENOUGH) Object.assign(known, { sheets: {}, bits: {} }); // begin anew
    asked.add(name);
    model.send({ want: what, of, have: what === "sheet" ? Object.keys(known.bits) : [] });
  }

  const held = () => Object.values(known.bits).reduce((sum, mask) => sum + mask.length, 0); // bytes

  function took(message, buffers) {
    const { want: what, of, is, keys } = message, name = of.join?.("/") ?? of;
    asked.delete(`${what} ${of}`);
    if (message.edition !== get("edition")) return; // of before a reload
    const bytes = buffers.map((b) => new Uint8Array(b.buffer ?? b, b.byteOffset ?? 0, b.byteLength));
    if (what === "theta0") known.theta0[name] = new Float32Array(bytes[0].slice().buffer);
    else if (what === "about") known.about[name] = is;
    else known.sheets[name] = is;
    keys?.forEach((mask, i) => (known.bits[mask] = bytes[i]));
    if (what === "about" || name === key()) update();
    else if (what === "theta0") tellWeight();
    ahead();
  }

  function ahead() { // fetch the rounds beside this one while nothing else is asked for
    if (!live || asked.size || held() > ENOUGH || !about()?.rounds) return;
    const near = about().rounds.map(([number]) => number).filter((number) => number > 0 && !known.sheets[key(number)]);
    near.sort((a, b) => Math.abs(a - get("round")) - Math.abs(b - get("round")));
    if (near.length) want("sheet", [get("run"), near[0], get("other")]);
  }

  // --- what is shown ---
  function fill(select, options, value) {
    const now = options.flat().join("\n");
    if (select.dataset.options !== now) {
      select.replaceChildren(...options.map(([text, value]) => make("option", { text, value })));
      select.dataset.options = now;
    }
    select.value = value;
    select.title = select.selectedOptions[0]?.textContent ?? "";
  }

  function update() {
    if (edition !== get("edition")) {
      edition = get("edition");
      Object.assign(known, { about: {}, sheets: {}, bits: {}, theta0: {} });
      asked.clear();
    }
    fill(run, get("runs"), get("run"));
    if (!get("run")) return nothing("");
    if (!about()) return want("about", get("run"));
    if (about().problem) return nothing(about().problem);
    settle();
    fill(other, about().others, get("other"));
    const there = about().rounds.map(([number]) => number);
    round.max = there.length - 1;
    round.value = there.indexOf(get("round"));
    round.setAttribute("aria-valuetext", (roundSaid.textContent = `${get("round")} of ${there.at(-1)}`));
    layer.max = layers().length - 1;
    layer.value = at();
    layer.setAttribute("aria-valuetext", (layerSaid.textContent = layers()[at()][0].replace(/\.weight$/, "")));
    sheet = known.sheets[key()];
    if (!sheet) {
      says.classList.add("colt-waits");
      return want("sheet", [get("run"), get("round"), get("other")]);
    }
    if (sheet.problem) return nothing(sheet.problem);
    show();
    setTimeout(ahead, 200);
  }

  function settle() { // on what this run has
    const { others, rounds } = about(), there = rounds.map(([number]) => number), had = due;
    due = true;
    if (!others.some(([, value]) => value === get("other"))) model.set("other", others[0][1]);
    if (!there.includes(get("round"))) model.set("round", there.find((number) => number > 0) ?? there[0]);
    if (!layers().some(([name]) => name === get("layer"))) model.set("layer", layers()[0][0]);
    due = had;
  }

  function nothing(why) {
    sheet = null;
    clearTimeout(later);
    tell([why], true);
    canvas.show(null);
    for (const part of [legend, caption, history]) part.replaceChildren();
    rows.set("rows", []);
  }

  function tell(lines, bad) {
    const text = [...lines, ...get("problems")].join("\n");
    if (says.textContent !== text) says.textContent = text;
    says.classList.toggle("colt-bad", bad);
    says.classList.remove("colt-waits");
  }

  function show() {
    const i = at(), colours = palette(), names = sheet.legend[i], same = `${get("run")} ${get("layer")}`;
    canvas.show(pictureOf(sheet, i, colours), shown === same);
    shown = same;
    clearTimeout(later);
    later = setTimeout(() => beside(i, colours), 30);
    const listed = sheet.every ? names.map((text, k) => [text, k]).reverse() : names.map((text, k) => [text, [3, 1, 2, 0][k]]);
    listed.forEach(([text, kind], k) => {
      const item = legend.children[k] ?? legend.appendChild(make("li", {}, make("i"), make("span")));
      item.firstChild.style.background = `rgb(${colours[kind]})`;
      item.lastChild.textContent = text;
    });
    while (legend.children.length > listed.length) legend.lastChild.remove();
    const fallen = sheet.collapsed[i] ? [`${layerSaid.textContent} has collapsed: no mask keeps a weight of it.`] : [];
    tell([...sheet.words, ...fallen], false);
    rows.set("columns", sheet.columns);
    rows.set("rows", sheet.cells);
    rows.set("chosen", i);
    canvas.frame.setAttribute("aria-label", `${sheet.notes[i]}; ${names.join("; ")}. Arrow keys choose a weight, + and - zoom, 0 shows the whole layer.`);
    const cell = get("weight");
    canvas.mark(cell.length ? cell : null);
    tellWeight();
  }

  function pictureOf({ sides, every }, i, colours) {
    const [layer, [rows, ...more]] = layers()[i], masks = sides.map((name) => known.bits[name]);
    const order = every ? colours.map((_, k) => k).slice(1).reverse() : [3, 1, 2];
    const columns = more.reduce((all, n) => all * n, 1), name = [sides, layer, every, colours, edition].join();
    return { name, masks, start: about().starts[i], rows, columns, every, colours, order };
  }

  function beside(i, colours) { // paint what the next key may ask for, one at a time, while nobody waits
    const there = about().rounds.map(([number]) => number), at = there.indexOf(get("round"));
    const rounds = [at + 1, at - 1].map((n) => known.sheets[key(there[n])]).filter((next) => next?.sides?.length === sheet.sides.length);
    const next = [...rounds.map((other) => [other, i]), ...[i + 1, i - 1].filter((n) => layers()[n]).map((n) => [sheet, n])];
    const one = () => {
      const [of, n] = next.shift();
      canvas.prepare(pictureOf(of, n, colours), n === i);
      if (next.length) later = setTimeout(one, 10);
    };
    if (sheet && next.length) one();
  }

  function palette() { // of the theme that the page has
    const read = (name) => {
      const hex = getComputedStyle(el).getPropertyValue(`--colt-${name}`).trim();
      return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    };
    if (!theme) theme = Object.fromEntries(["none", "a", "b", "both", "few", "many"].map((name) => [name, read(name)]));
    if (!sheet.every) return [theme.none, theme.a, theme.b, theme.both];
    const most = sheet.sides.length, { few, many } = theme;
    const between = (k) => few.map((v, i) => Math.round(v + ((many[i] - v) * (k - 1)) / Math.max(1, most - 2)));
    return [theme.none, ...Array.from({ length: most - 1 }, (_, k) => between(k + 1)), theme.both];
  }

  function moved(view) {
    const whole = view.rows === shape()[0] && view.columns === span(), inside = shape().slice(2).join(" x ");
    const step = span() / shape()[1], last = view.column + view.columns - 1;
    caption.textContent = `${whole ? "Whole layer" : "Part"}: filters ${view.row} to ${view.row + view.rows - 1} down, ` +
      `inputs ${Math.floor(view.column / step)} to ${Math.floor(last / step)}${inside && ` (${inside} each)`} across.`;
  }

  // --- one weight ---
  function described([row, column]) {
    const index = [row];
    let rest = column;
    for (let d = shape().length - 1; d > 0; d--) {
      index.splice(1, 0, rest % shape()[d]);
      rest = Math.floor(rest / shape()[d]);
    }
    if (about().turned?.includes(get("layer"))) [index[0], index[1]] = [index[1], index[0]]; // as PyTorch has it
    return `${layerSaid.textContent}[${index.join(", ")}]`;
  }

  function theta0(where) {
    const name = `${get("run")}/${get("layer")}`;
    if (known.theta0[name]) return `theta0 = ${signed(known.theta0[name][where])}`;
    want("theta0", [get("run"), get("layer")]);
    return live ? "theta0 ..." : "theta0 is not in this file";
  }
  const signed = (value) => (value < 0 ? "-" : "+") + Math.abs(value).toFixed(4);

  function gone(where) {
    const seen = about().rounds.map(([number]) => [number, bit(`${get("run")}/${number}/ticket`, where)]);
    const first = seen.find(([number, kept]) => kept === 0 && number > 0);
    const before = seen.filter(([number]) => number > 0 && (!first || number < first[0]));
    if (before.some(([, kept]) => kept === undefined)) return "looking through the rounds ...";
    const last = seen.length ? seen[seen.length - 1][0] : 0; // a saved page may hold some rounds alone
    if (!first) return `kept up to round ${last}`;
    const there = seen.some(([number]) => number === first[0] - 1);
    return there || first[0] === 1 ? `first gone in round ${first[0]}` : `gone by round ${first[0]}`;
  }

  function copies(where) {
    const count = about().rounds.find(([number]) => number === get("round"))?.[2] ?? 0;
    if (!count) return "";
    const kept = Array.from({ length: count }, (_, i) => i).filter((i) => bit(`${get("run")}/${get("round")}/${i}`, where));
    const which = kept.length ? `: ${kept.join(", ")}` : "";
    return `\nround ${get("round")}: kept by ${kept.length} of ${count} copies${which}`;
  }

  function pointed(cell) {
    note.style.display = cell && sheet ? "block" : "none";
    if (!cell || !sheet) return;
    const where = place(cell), [x, y] = canvas.where(cell);
    note.textContent = `${described(cell)}\n${theta0(where)}\n${gone(where)}${copies(where)}`;
    note.classList.toggle("colt-left", x > 0.6 * canvas.frame.clientWidth);
    [note.style.left, note.style.top] = [`${x}px`, `${y}px`];
  }

  function chosen(cell) {
    due = true; // the picture stays
    model.set("weight", cell);
    due = false;
    setTimeout(() => model.save_changes());
    pointed(cell);
  }

  function tellWeight() { // which masks kept the chosen weight, round by round
    const cell = get("weight");
    if (!cell.length || !sheet || cell[0] >= shape()[0] || cell[1] >= span()) return history.replaceChildren();
    const where = place(cell), rounds = about().rounds, most = Math.max(...rounds.map((r) => r[2]));
    const lines = [["ticket", (n) => `${get("run")}/${n}/ticket`]];
    for (let i = 0; i < most; i++) lines.push([`copy ${i}`, (n) => `${get("run")}/${n}/${i}`]);
    if (known.about[get("other")] || /^[0-9a-f]{16}$/.test(get("other"))) lines.push(["B", (n) => known.sheets[key(n)]?.sides?.[1]]);
    const words = { 0: "gone", 1: "kept" };
    const body = lines.map(([name, mask]) => make("tr", {}, make("th", { scope: "row", text: name }), ...rounds.map(([n]) => {
      const kept = n === 0 && name === "ticket" ? 1 : bit(mask(n), where);
      const cell = make("td", kept === undefined ? {} : { "data-kept": kept, title: `${name}, round ${n}: ${words[kept]}` });
      cell.append(make("span", { text: words[kept] ?? "-" }));
      return cell;
    })));
    const head = make("tr", {}, make("th", { scope: "col", text: "round" }), ...rounds.map(([n]) => make("th", { scope: "col", text: n })));
    const title = `${described(cell)}, ${theta0(where)}: ${gone(where)}`;
    const table = make("table", { "aria-label": `masks that kept ${title}` }, make("thead", {}, head), make("tbody", {}, ...body));
    history.replaceChildren(make("p", { text: title }), table);
  }

  // --- who says what ---
  run.addEventListener("change", () => set({ run: run.value, weight: [] }));
  other.addEventListener("change", () => set({ other: other.value }));
  round.addEventListener("input", () => set({ round: about().rounds[+round.value][0] }));
  const toLayer = (i) => layers()[i][0] !== get("layer") && set({ layer: layers()[i][0], weight: [] });
  layer.addEventListener("input", () => toLayer(+layer.value));
  rows.on("change:chosen", () => toLayer(rows.get("chosen")));
  model.on("change:runs change:run change:other change:round change:layer change:problems change:edition", () => {
    if (!due) queueMicrotask(() => ((due = false), update())); // several change together
    due = true;
  });
  model.on("change:weight", () => sheet && (canvas.mark(get("weight").length ? get("weight") : null), tellWeight()));
  model.on("msg:custom", took);
  const changed = () => { theme = null; if (sheet) show(); };
  const themed = new MutationObserver(changed);
  for (const part of [document.documentElement, document.body]) themed.observe(part, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  update();
}
