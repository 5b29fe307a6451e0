// A Vega-Lite chart in a page: drawn as SVG, whose marks say their numbers to screen readers.
function chart(id, specification) {
  const place = document.getElementById(id);
  const more = { export: true, source: false, compiled: false, editor: false }; // nothing that asks the network
  // Vega names neither its menu nor the groups that hold marks.
  const name = () => {
    place.querySelector("summary")?.setAttribute("aria-label", "Save the picture");
    for (const group of place.querySelectorAll('g[role="graphics-symbol"]:not([aria-label])')) group.removeAttribute("role");
  };
  return vegaEmbed(place, specification, { renderer: "svg", actions: more, logLevel: 1 }).then((result) => {
    name();
    new MutationObserver(name).observe(place, { childList: true, subtree: true });
    return result;
  });
}
