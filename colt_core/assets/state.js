// What a view keeps where no kernel does: the same few calls as a widget's model has.
class State {
  constructor(values) {
    this.values = values;
    this.heard = {};
  }
  get(name) {
    return this.values[name];
  }
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    for (const tell of this.heard[`change:${name}`] ?? []) tell();
  }
  on(names, tell) {
    for (const name of names.split(" ")) (this.heard[name] ??= []).push(tell);
  }
  save_changes() {}
  send() {}
}

// An element with its attributes and children; "text" and "class" among them.
function make(kind, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}
