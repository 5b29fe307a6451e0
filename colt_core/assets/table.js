// A table whose rows can be chosen by a click or by the arrow keys.
function render({ model, el }) {
  const table = document.createElement("table");
  table.className = "colt-table";
  table.tabIndex = 0;
  table.setAttribute("role", "grid");
  el.append(table);

  function make(kind, texts) {
    const row = document.createElement("tr");
    for (const text of texts) {
      const cell = document.createElement(kind);
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }

  function draw() {
    const head = document.createElement("thead"), body = document.createElement("tbody");
    head.append(make("th", model.get("columns")));
    model.get("rows").forEach((texts, i) => {
      const row = make("td", texts);
      row.addEventListener("click", () => choose(i));
      body.append(row);
    });
    table.replaceChildren(head, body);
    table.setAttribute("aria-label", model.get("alt"));
    marked();
  }

  function marked() {
    [...table.tBodies[0].rows].forEach((row, i) => {
      row.setAttribute("aria-selected", i === model.get("chosen"));
    });
  }

  function choose(i) {
    model.set("chosen", Math.max(0, Math.min(model.get("rows").length - 1, i)));
    model.save_changes();
    marked();
  }

  table.addEventListener("keydown", (event) => {
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
export default { render };
