// An element of our own in a node: not part of the workflow file, and at its place in both renderers.

const mounted = new Map(); // graph, node and widget → the element on the page

/** @param {() => number} getMinHeight pixels */
export function addPanel(node, name, element, getMinHeight) {
  const options = { serialize: false, getMinHeight, getValue: () => undefined, setValue: () => {} };
  const panel = node.addDOMWidget(name, name, element, options);
  panel.serialize = false; // ComfyUI asks the widget as well as its options
  return panel;
}

/** Undo makes the node anew, but Nodes 2.0 goes on showing the element of the old one: take its place. */
export function keepMounted(node, name, element) {
  const key = `${node.graph.id}/${node.id}/${name}`;
  const old = mounted.get(key);
  if (old && old !== element && old.isConnected && !element.isConnected) old.replaceWith(element);
  if (element.isConnected) mounted.set(key, element);
}
