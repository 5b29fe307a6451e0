// A layer's mask on a canvas: a row is a filter, a column one of its weights, a bit a weight.
// A picture is { name, masks, start, rows, columns, span, every, colours, order }: packed masks and the byte at which the layer
// begins in each; weights of an input channel; whether kinds are "kept by k of them" or 0 none, 1 A, 2 B, 3 both.

const BARS = 34; // pixels: how much each row, and each column, keeps
const LEAST = 8; // weights across, zoomed in as far as it goes

const bitAt = (mask, start, place) => (mask[start + (place >>> 3)] >> (place & 7)) & 1;

const ONES = Uint8Array.from({ length: 256 }, (_, v) => v.toString(2).replaceAll("0", "").length);

function shift(to, from, kept) {
  for (let i = 0; i < to.length; i++) to[i] = (to[i] & ~kept[i]) | (from[i] & kept[i]);
}

// Return, for each kind but the first, the bits of a layer's weights that are of it.
function kindsOf({ masks, start, rows, columns, every }) {
  const length = Math.ceil((rows * columns) / 8), room = 4 * Math.ceil((length + 1) / 4);
  const words = masks.map((mask) => {
    const bytes = new Uint8Array(room);
    bytes.set(mask.subarray(start, start + length));
    return new Uint32Array(bytes.buffer);
  });
  const [a, b] = words, kinds = Array.from({ length: every ? words.length : 3 }, () => new Uint32Array(room / 4));
  if (every) {
    const by = [new Uint32Array(room / 4).fill(~0), ...kinds]; // those that k masks keep so far
    for (const word of words) {
      for (let k = words.length; k > 0; k--) shift(by[k], by[k - 1], word);
      by[0].forEach((none, i) => (by[0][i] = none & ~word[i]));
    }
  } else {
    for (let i = 0; i < a.length; i++) {
      const both = a[i] & b[i];
      kinds[0][i] = a[i] ^ both;
      kinds[1][i] = b[i] ^ both;
      kinds[2][i] = both;
    }
  }
  return kinds.map((kind) => new Uint8Array(kind.buffer));
}

// Add up a row's weights of one kind, `step` (a power of two) at a time.
function count(bytes, at, columns, step, into) {
  const last = columns & ~7, eightAt = (at) => ((bytes[at >> 3] | (bytes[(at >> 3) + 1] << 8)) >> (at & 7)) & 255;
  if (step >= 8) {
    const wide = 31 - Math.clz32(step);
    for (let c = 0; c < last; c += 8) into[c >> wide] += ONES[eightAt(at + c)];
    if (last < columns) into[last >> wide] += ONES[eightAt(at + last) & ((1 << (columns - last)) - 1)];
  } else {
    const within = (1 << step) - 1;
    for (let c = 0, x = 0; c < columns; c += 8) {
      let eight = eightAt(at + c);
      if (c === last) eight &= (1 << (columns - last)) - 1;
      for (let left = 8; left > 0 && x < into.length; left -= step, x++, eight >>= step) into[x] += ONES[eight & within];
    }
  }
}

// Mix a kind's colour, as a difference to the background, into a line of pixels; add up what each column has of it.
function blend(counts, difference, parts, line, sums) {
  const [dr, dg, db] = difference, [red, green, blue] = line, length = counts.length;
  let all = 0;
  for (let x = 0; x < length; x++) {
    const n = counts[x], share = n * parts[x];
    all += n;
    sums[x] += n;
    red[x] += share * dr;
    green[x] += share * dg;
    blue[x] += share * db;
  }
  return all;
}

function pack([red, green, blue], pixels, from) {
  for (let x = 0; x < red.length; x++) pixels[from + x] = -16777216 | (blue[x] << 16) | (green[x] << 8) | red[x];
}

// Draw the part in view on width x height pixels or fewer: a pixel mixes the colours of the weights behind it.
function paint({ columns, colours }, kinds, view, width, height) {
  const many = view.rows * view.columns > 5e5; // then whole bytes are quicker than parts of them
  let step = 1;
  while (view.columns > 1.1 * width * step || (many && step > 1 && step < 8)) step *= 2;
  const high = Math.ceil(view.rows / height), nx = Math.ceil(view.columns / step), ny = Math.ceil(view.rows / high);
  const pixels = new Int32Array(nx * ny), counts = new Int32Array(nx), line = colours[0].map(() => new Float64Array(nx));
  const across = kinds.map(() => new Int32Array(nx)), down = kinds.map(() => new Int32Array(ny));
  const differences = kinds.map((_, k) => colours[k + 1].map((value, i) => value - colours[0][i]));
  const parts = new Float64Array(nx);
  for (let y = 0; y < ny; y++) {
    const first = y * high, last = Math.min(view.rows, first + high);
    parts.fill(1 / (step * (last - first)));
    parts[nx - 1] = 1 / ((view.columns - (nx - 1) * step) * (last - first));
    line.forEach((part, i) => part.fill(colours[0][i] + 0.5));
    for (let k = 0; k < kinds.length; k++) {
      counts.fill(0);
      for (let r = first; r < last; r++) count(kinds[k], (view.row + r) * columns + view.column, view.columns, step, counts);
      down[k][y] = blend(counts, differences[k], parts, line, across[k]);
    }
    pack(line, pixels, y * nx);
  }
  return { pixels, nx, ny, across, down };
}

// Stack the counts of each row, or column, as a bar of BARS pixels; the longest fills it.
function stack(totals, count, { colours, order }, along, aside) {
  const pixels = new Uint32Array(count * BARS), sum = (i) => order.reduce((all, k) => all + totals[k - 1][i], 0);
  let most = 1;
  for (let i = 0; i < count; i++) most = Math.max(most, sum(i));
  for (let i = 0; i < count; i++) {
    let from = 0, all = 0;
    for (const k of order) {
      const [r, g, b] = colours[k], to = Math.round((BARS * (all += totals[k - 1][i])) / most);
      for (; from < to; from++) pixels[i * along + aside(from)] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
  }
  return pixels;
}

function maskCanvas({ pointed, chosen, moved }) {
  const canvas = make("canvas"), mark = make("div", { class: "colt-mark" });
  const frame = make("div", { class: "colt-mask", tabindex: "0", role: "application" }, canvas, mark);
  const context = canvas.getContext("2d"), off = make("canvas"), paper = off.getContext("2d");
  const ready = new Map(); // pictures painted ahead, by what they are of and how large
  let picture = null, kinds = null, view = null, cursor = null, drag = null;

  let box = [0, 0]; // the canvas, in the page's pixels; asking for it at every move would have the page laid out twice
  const size = () => [box[0] - BARS, box[1] - BARS]; // the mask
  const visible = () => size().every((side) => side >= 8); // not in a tab that is closed, where there is no room
  const whole = () => ({ row: 0, column: 0, rows: picture.rows, columns: picture.columns });

  const called = (of, part) => [of.name, ...size(), part.row, part.column, part.rows, part.columns].join();

  function prepare(next, same) { // paint a picture that may be asked for next
    const part = same ? view : { row: 0, column: 0, rows: next.rows, columns: next.columns }, name = called(next, part);
    if (!visible() || ready.has(name)) return;
    if (ready.size > 8) ready.delete(ready.keys().next().value);
    ready.set(name, paint(next, kindsOf(next), part, ...size()));
  }

  function put(pixels, width, height, x, y, w, h) {
    if (off.width < width || off.height < height) [off.width, off.height] = [Math.max(off.width, width), Math.max(off.height, height)];
    paper.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
    context.drawImage(off, 0, 0, width, height, x, y, w, h);
  }

  function draw() {
    const [w, h] = size(), scale = window.devicePixelRatio || 1;
    if (!picture || !visible()) return;
    const wide = Math.round(box[0] * scale), high = Math.round(box[1] * scale);
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, w + BARS, h + BARS);
    context.imageSmoothingEnabled = false;
    const painted = ready.get(called(picture, view)) ?? paint(picture, (kinds ??= kindsOf(picture)), view, w, h);
    const { pixels, nx, ny, across, down } = painted;
    put(pixels, nx, ny, 0, BARS, w, h);
    put(stack(across, nx, picture, 1, (t) => (BARS - 1 - t) * nx), nx, BARS, 0, 0, w, BARS - 3);
    put(stack(down, ny, picture, BARS, (t) => t), BARS, ny, w + 3, BARS, BARS - 3, h);
    marked();
  }

  function marked() {
    const [w, h] = size(), inside = cursor && picture && cursor[0] >= view.row && cursor[0] < view.row + view.rows &&
      cursor[1] >= view.column && cursor[1] < view.column + view.columns;
    mark.style.display = inside ? "block" : "none";
    if (!inside) return;
    mark.style.left = `${(w * (cursor[1] - view.column + 0.5)) / view.columns}px`;
    mark.style.top = `${BARS + (h * (cursor[0] - view.row + 0.5)) / view.rows}px`;
  }

  function look(next) { // at a part of the layer, as near to what is asked as there is
    const clip = (value, most) => Math.max(0, Math.min(most, Math.round(value)));
    const rows = clip(next.rows, picture.rows) || 1, columns = clip(next.columns, picture.columns) || 1;
    view = { rows, columns, row: clip(next.row, picture.rows - rows), column: clip(next.column, picture.columns - columns) };
    draw();
    moved(view);
  }

  function zoom(factor, at = cursor ?? [view.row + view.rows / 2, view.column + view.columns / 2]) {
    const rows = Math.max(Math.min(LEAST, picture.rows), view.rows / factor);
    const columns = Math.max(Math.min(LEAST, picture.columns), view.columns / factor);
    const row = at[0] - ((at[0] - view.row) * rows) / view.rows;
    look({ rows, columns, row, column: at[1] - ((at[1] - view.column) * columns) / view.columns });
  }

  function cellAt(event) {
    const place = canvas.getBoundingClientRect(), [w, h] = size();
    const column = Math.floor(view.column + ((event.clientX - place.left) / w) * view.columns);
    const row = Math.floor(view.row + ((event.clientY - place.top - BARS) / h) * view.rows);
    const inside = row >= view.row && row < view.row + view.rows && column >= view.column && column < view.column + view.columns;
    return inside ? [row, column] : null;
  }

  function choose(cell) {
    cursor = cell;
    marked();
    chosen(cell);
  }

  frame.addEventListener("pointerdown", (event) => {
    if (!picture || event.button !== 0) return;
    drag = { x: event.clientX, y: event.clientY, view, far: false };
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!picture) return;
    if (!drag) return pointed(cellAt(event), event.clientX, event.clientY);
    const [w, h] = size(), [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.far ||= Math.hypot(x, y) > 4;
    const from = drag.view;
    if (drag.far) look({ ...from, row: from.row - (y / h) * from.rows, column: from.column - (x / w) * from.columns });
  });
  frame.addEventListener("pointerleave", () => pointed(null));
  frame.addEventListener("pointerup", (event) => {
    const cell = picture && drag && !drag.far && cellAt(event);
    drag = null;
    if (cell) choose(cell);
  });
  frame.addEventListener("wheel", (event) => { // the page goes on scrolling unless the picture has been taken up
    if (!picture || !(event.ctrlKey || frame.matches(":focus"))) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), cellAt(event) ?? undefined);
  }, { passive: false });
  frame.addEventListener("keydown", (event) => {
    if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const zooms = { "+": 1.6, "=": 1.6, "-": 1 / 1.6 }[event.key];
    if (!step && !zooms && event.key !== "0") return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "0") return look(whole());
    if (zooms) return zoom(zooms);
    const far = event.shiftKey ? [Math.ceil(view.rows / 10), Math.ceil(view.columns / 10)] : [1, 1];
    const old = cursor ?? [view.row + (view.rows >> 1), view.column + (view.columns >> 1)];
    const clip = (value, count) => Math.max(0, Math.min(count - 1, value));
    const to = [clip(old[0] + step[0] * far[0], picture.rows), clip(old[1] + step[1] * far[1], picture.columns)];
    const follow = (at, first, count) => (at < first ? at : at >= first + count ? at - count + 1 : first);
    const [row, column] = [follow(to[0], view.row, view.rows), follow(to[1], view.column, view.columns)];
    if (row !== view.row || column !== view.column) look({ ...view, row, column });
    choose(to);
  });
  new ResizeObserver(() => {
    box = [canvas.clientWidth, canvas.clientHeight];
    draw();
  }).observe(frame);

  return {
    frame, zoom, prepare,
    fit: () => look(whole()),
    mark: (cell) => { cursor = cell; marked(); },
    where: (cell) => { // in the frame, in pixels
      const [w, h] = size();
      return [(w * (cell[1] - view.column + 0.5)) / view.columns, BARS + (h * (cell[0] - view.row + 0.5)) / view.rows];
    },
    show: (next, same) => { // the part in view stays where the layer does
      picture = next;
      if (!picture) return context.clearRect(0, 0, canvas.width, canvas.height);
      kinds = null;
      if (!same || !view) look(whole());
      else draw();
    },
  };
}
