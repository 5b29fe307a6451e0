// A picture of a figure: hovering or clicking one of its spots, or a cell of its grid, and moving among them by keys.
function render({ model, el }) {
  const frame = document.createElement("div");
  const image = document.createElement("img");
  const mark = document.createElement("div");
  const note = document.createElement("div");
  frame.className = "colt-picture";
  frame.tabIndex = 0;
  mark.className = "colt-mark";
  note.className = "colt-note";
  note.setAttribute("role", "status");
  frame.append(image, mark, note);
  el.append(frame);
  let address = null;

  const grid = () => (model.get("grid").rows ? model.get("grid") : null);
  const spots = () => model.get("spots");

  function middle(cell) {  // of a cell, in shares of the picture
    const { box, rows, columns } = grid();
    const [left, top, right, bottom] = box;
    return [left + ((right - left) * (cell[1] + 0.5)) / columns, top + ((bottom - top) * (cell[0] + 0.5)) / rows];
  }

  function cellAt(x, y) {
    const { box, rows, columns } = grid();
    const [left, top, right, bottom] = box;
    const column = Math.floor(((x - left) / (right - left)) * columns);
    const row = Math.floor(((y - top) / (bottom - top)) * rows);
    return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  }

  function spotAt(x, y) {  // the nearest, if it is near
    let best = -1, least = 14 * 14;
    spots().forEach(([sx, sy], i) => {
      const far = ((sx - x) * frame.clientWidth) ** 2 + ((sy - y) * frame.clientHeight) ** 2;
      if (far < least) [best, least] = [i, far];
    });
    return best;
  }

  const described = (cell) => {
    const { row, column, span, kernel } = grid();
    const place = column * span + cell[1];
    const at = place % span;
    const inside = span > 1 ? `, position (${Math.floor(at / kernel)}, ${at % kernel})` : "";
    return `filter ${row + cell[0]}, input ${Math.floor(place / span)}${inside}`;
  };

  function put(thing, where) {
    thing.style.left = `${100 * where[0]}%`;
    thing.style.top = `${100 * where[1]}%`;
    thing.style.display = "block";
  }

  function tell(text, where) {
    note.textContent = text;
    note.classList.toggle("colt-left", where[0] > 0.6);
    put(note, where);
  }

  function draw() {
    const bytes = model.get("png");
    if (address) URL.revokeObjectURL(address);
    address = bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/png" })) : null;
    image.hidden = !address;
    if (address) image.src = address;
    image.alt = model.get("alt");
    frame.classList.toggle("colt-active", Boolean(grid()) || spots().length > 0);
    marked();
  }

  function marked() {
    mark.style.display = note.style.display = "none";
    const cell = model.get("cell"), spot = model.get("spot");
    if (grid() && cell.length && cell[0] < grid().rows && cell[1] < grid().columns) put(mark, middle(cell));
    else if (!grid() && spot >= 0 && spot < spots().length) put(mark, spots()[spot]);
  }

  function choose(cell, spot) {
    if (cell) model.set("cell", cell);
    if (spot >= 0) model.set("spot", spot);
    model.save_changes();
    marked();
  }

  function where(event) {
    const box = image.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  frame.addEventListener("mousemove", (event) => {
    const [x, y] = where(event);
    const cell = grid() && cellAt(x, y);
    const spot = grid() ? -1 : spotAt(x, y);
    if (cell) tell(described(cell), middle(cell));
    else if (spot >= 0) tell(spots()[spot][2], spots()[spot]);
    else note.style.display = "none";
  });
  frame.addEventListener("mouseleave", () => (note.style.display = "none"));
  frame.addEventListener("click", (event) => {
    const [x, y] = where(event);
    if (grid()) choose(cellAt(x, y), -1);
    else choose(null, spotAt(x, y));
  });
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !(grid() || spots().length)) return;
    event.preventDefault();
    event.stopPropagation();
    if (grid()) {
      const clip = (value, count) => Math.max(0, Math.min(count - 1, value));
      const old = model.get("cell").length ? model.get("cell") : [-step[0], -step[1]];
      choose([clip(old[0] + step[0], grid().rows), clip(old[1] + step[1], grid().columns)], -1);
      tell(described(model.get("cell")), middle(model.get("cell")));
    } else {
      const count = spots().length, old = model.get("spot"), way = step[0] + step[1];
      const next = old < 0 ? (way > 0 ? 0 : count - 1) : (old + way + count) % count;
      choose(null, next);
      tell(spots()[next][2], spots()[next]);
    }
  });
  model.on("change:png change:grid change:spots change:alt", draw);
  model.on("change:cell change:spot", marked);
  draw();
  return () => address && URL.revokeObjectURL(address);
}
export default { render };
