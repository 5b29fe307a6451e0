// A view on a page without Python. Its file, gzip: length of the JSON (uint32), the JSON, then the arrays it names.
async function openView(id, draw) {
  const source = document.getElementById(id), place = source.dataset.file;
  const packed = (await fetch(place ?? `data:application/gzip;base64,${source.textContent}`)).body;
  const bytes = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const { state, known, arrays, common } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  Object.assign(known, { bits: {}, theta0: {} });
  for (const [name, [start, size]] of Object.entries(arrays)) {
    const [kind, key] = [name.slice(0, name.indexOf(" ")), name.slice(name.indexOf(" ") + 1)];
    known[kind][key] = kind === "bits" ? new Uint8Array(bytes, start, size) : new Float32Array(bytes, start, size / 4);
  }
  for (const [name, masks] of Object.entries(common)) { // a ticket that is what its copies have in common
    known.bits[name] = known.bits[masks[0]].slice();
    for (const mask of masks.slice(1)) known.bits[mask].forEach((byte, i) => (known.bits[name][i] &= byte));
  }
  const model = Object.assign(new State(state), { known }), el = document.getElementById("view");
  el.replaceChildren();
  draw({ model, el });
}
