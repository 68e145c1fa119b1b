// Elements of our own in a node, not part of the workflow file, and widgets that are shown or hidden, in both renderers.

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

/** Show or hide a widget; whether that changes anything. `makeRoom` has to follow. */
export function showWidget(widget, shown) {
  // Nodes 2.0 reads this; of an id that was there before, as after undo, it is the old widget's.
  const kept = widget._state?.options;
  if (widget.hidden === !shown && (kept?.hidden ?? !shown) === !shown) return false;
  widget.hidden = !shown; // the classic canvas reads this
  for (const options of [widget.options, kept]) if (options) options.hidden = !shown;
  return true;
}

/** Let the page see that a node shows other widgets than before. @param {boolean} resize let the node grow and shrink */
export function makeRoom(node, resize = true) {
  node.widgets.push(node.widgets.pop()); // Nodes 2.0 looks at its widgets when their list changes
  if (resize) node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas(true, true);
}
