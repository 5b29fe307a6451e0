// A table whose rows can be chosen by a click or by the arrow keys.
function table({ model, el }) {
  const body = make("tbody"), head = make("thead");
  const grid = make("table", { class: "colt-table", tabindex: "0", role: "grid" }, head, body);
  el.append(grid);

  function fill(part, kind, lines) { // rows and cells that are there stay: a new number costs little
    while (part.rows.length > lines.length) part.deleteRow(-1);
    lines.forEach((texts, i) => {
      const row = part.rows[i] ?? part.insertRow();
      while (row.cells.length > texts.length) row.deleteCell(-1);
      texts.forEach((text, j) => {
        const cell = row.cells[j] ?? row.appendChild(make(kind, kind === "th" ? { scope: "col" } : {}));
        if (cell.textContent !== text) cell.textContent = text;
      });
    });
  }

  function draw() {
    fill(head, "th", [model.get("columns")]);
    fill(body, "td", model.get("rows"));
    grid.setAttribute("aria-label", model.get("alt"));
    marked();
  }

  function marked() {
    [...body.rows].forEach((row, i) => row.setAttribute("aria-selected", i === model.get("chosen")));
  }

  function choose(i) {
    model.set("chosen", Math.max(0, Math.min(model.get("rows").length - 1, i)));
    model.save_changes();
    marked();
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose([...body.rows].indexOf(row));
  });
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1, Home: -1e9, End: 1e9 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    choose(model.get("chosen") + step);
  });
  model.on("change:rows change:columns", draw);
  model.on("change:chosen", marked);
  draw();
}
