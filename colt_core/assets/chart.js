// A Vega-Lite chart in a page: drawn as SVG, whose marks say their numbers to screen readers.
function chart(id, specification) {
  const more = { export: true, source: false, compiled: false, editor: false }; // nothing that asks the network
  return vegaEmbed(document.getElementById(id), specification, { renderer: "svg", actions: more, logLevel: 1 });
}
