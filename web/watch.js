// Looking at nodes: their inputs, and one watcher that sees every way in which an input can change.

import { app } from "../../scripts/app.js";

const REFRESH = 250; // milliseconds between looks: inputs change by hand, by undo, by links and by other packs
const watched = new Map(); // node → what to call
let timer = null;

/** Call `look` again and again while the node is on a canvas. */
export function watchNode(node, look) {
  if (!watched.has(node)) {
    watched.set(node, []);
    const removed = node.onRemoved;
    node.onRemoved = function (...given) {
      watched.delete(node);
      return removed?.apply(this, given);
    };
  }
  watched.get(node).push(look);
  timer ??= setInterval(lookAtAll, REFRESH);
}

function lookAtAll() {
  for (const [node, looks] of watched) {
    if (!node.graph) continue; // not on a canvas yet
    if (isReplaced(node)) watched.delete(node);
    else for (const look of looks) look();
  }
}

/** Whether another workflow has been opened since, or the node has been made anew by undo. */
export function isReplaced(node) {
  return Boolean(node.graph) && node.graph.getNodeById(node.id) !== node;
}

export function widget(node, name) {
  return node.widgets?.find((each) => each.name === name);
}

/** Whether an input comes through a link. */
export function linked(node, name) {
  return node.inputs?.some((input) => (input.widget?.name ?? input.name) === name && input.link != null);
}

/** Values of those of the named widgets that the node has. */
export function values(node, ...names) {
  const found = names.map((name) => [name, widget(node, name)?.value]);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

/** A node by the id that the server uses: "7", or "3:7" inside subgraphs. */
export function nodeById(id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}
