// The pinned circuit as a program that finds its nodes in the saved graph and reads the edges between them.
import type { State } from "./state";

const NUMBER: Record<string, number> = { token: 0, latent: 1, error: 2, excluded: 3, bias: 4, earlier: 5, target: 6 };

export function asPython({ circuit, pins, groups, selected }: State): string {
  const place = (k: string) => {
    const n = circuit.nodes[circuit.place.get(k)!]!;
    return `places[${NUMBER[n.kind]}, ${n.layer}, ${n.position ?? -1}, ${n.index}]`;
  };
  const grouped = new Set(groups.value.flatMap((g) => g.keys));
  const single = pins.value.length ? pins.value.filter((k) => !grouped.has(k)) : selected.value >= 0 ? [circuit.keys[selected.value]!] : [];
  const lines = [
    ...groups.value.map((g) => `    ${JSON.stringify(g.name)}: [${g.keys.map(place).join(", ")}],`),
    ...single.map((k) => `    ${JSON.stringify(circuit.nodes[circuit.place.get(k)!]!.name)}: [${place(k)}],`),
  ];
  return `from diascope.circuits import Graph
from diascope.circuits.graph import between

graph = Graph.load(${JSON.stringify(`graphs/${circuit.view.graph ?? "NAME"}`)})
columns = (graph.kind, graph.layer, graph.position, graph.index)
places = {key: node for node, key in enumerate(zip(*(c.tolist() for c in columns)))}
pinned = {
${lines.join("\n")}
}
nodes = [node for group in pinned.values() for node in group]
edges = between(graph, nodes, nodes)  # [to, from]
`;
}
