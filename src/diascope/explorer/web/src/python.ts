// Programs that do what a view shows. They are run in the workspace's folder.
import type { Status } from "./api";

const text = JSON.stringify;

let folder = "index";
let model = "";

// What the programs must know of the server.
export function learn(status: Status): void {
  folder = status.folder ?? "index";
  model = String(status.index.model ?? "");
}

const opening = () => `from diascope.latents.store import Index

index = Index(${text(folder)})  # run it in the workspace's folder
`;

export const sourcesPython = () => `${opening()}for name, source in index.sources.items():
    alive = int((source.columns["density"] > 0).sum())
    print(name, source.meta["title"], f"{alive:,} of {len(source):,} latents fired")
    print(source.meta["card"].get("metrics", {}).get("dictionary"))
`;

export const browsePython = (source: string, options: { words: string; sort: string; descending: boolean; offset: number; limit: number; alive: boolean }) => {
  const flag = (x: boolean) => (x ? "True" : "False");
  const call = options.words
    ? `source.find(${text(options.words)}, offset=${options.offset}, limit=${options.limit})`
    : `source.browse(sort=${text(options.sort)}, descending=${flag(options.descending)}, offset=${options.offset}, limit=${options.limit}, alive=${flag(options.alive)})`;
  return `${opening()}source = index.sources[${text(source)}]
total, latents = ${call}
print(f"{len(latents)} of {total:,}")
for j in latents:
    print(j, f"density {source.columns['density'][j]:.2e}", source.description(int(j)))
`;
};

export const featurePython = (source: string, latent: number) => `${opening()}source, latent = index.sources[${text(source)}], ${latent}
print(source.description(latent))
print({name: column[latent].item() for name, column in source.columns.items()})
record = source.record(latent)
print("promotes", [(index.text(token), logit) for token, logit in record.top])
print("nearest", record.neighbours)
for group in record.groups:
    print(f"{group.low:.3g} to {group.high:.3g}, {group.share:.1%} of its firings")
    for e in group.examples:
        print("   ", repr("".join(index.text(t) for t in index.tokens[e.sequence, e.first : e.first + e.length])))
`;

export const encodePython = (source: string, said: string) => `import diascope

model = diascope.load_model(${text(model)}, dtype="float32")
d = diascope.load_dictionary(${text(`dictionaries/${source}`)})  # run it in the workspace's folder
ids = model.tokenize(${text(said)})
seen = model.capture([ids], d.config.reads)
latents = d.encode(d.inputs(seen)[0]).dense()  # [tokens, latents]
for token, row in zip(ids, latents):
    found = row.topk(5)
    print(repr(model.tokenizer.decode([token])), list(zip(found.indices.tolist(), found.values.tolist())))
`;

export const listPython = (list: { name: string; latents: { source: string; latent: number; note: string }[] }) => `${opening()}chosen = [  # ${list.name.replace(/\s+/g, " ")}
${list.latents.map((e) => `    (${text(e.source)}, ${e.latent}, ${text(e.note)}),`).join("\n")}
]
for source, latent, note in chosen:
    print(source, latent, index.sources[source].description(latent) if source in index.sources else "", note, sep="  ")
`;

export const listsPython = () => `import os

from diascope.explorer.lists import Lists

lists = Lists(os.environ.get("DIASCOPE_TEAM") or "lists.sqlite")  # run it in the workspace's folder
for found in lists.all():
    print(found["name"], [(e["source"], e["latent"], e["note"]) for e in lists.get(found["id"])["latents"]])
`;

export const runPython = (run: string, quantity: string) => `import json
from pathlib import Path

lines = [json.loads(line) for line in (Path(${text(run)}) / "log.jsonl").read_text().splitlines()]  # run it in the workspace's folder
curves = {}
for line in lines:
    curves.setdefault(line["member"], []).append((line["rows"], line.get(${text(quantity)})))
for member, points in curves.items():
    print(member, points[-1])
`;

export const evaluationsPython = () => `import json
from pathlib import Path

for path in sorted(Path("dictionaries").glob("*/card.json")):  # run it in the workspace's folder
    own = json.loads(path.read_text()).get("metrics", {}).get("dictionary", {})
    print(path.parent.name, {key: own[key]["value"] for key in ("l0", "fvu", "delta_ce") if key in own})
`;

export const mapPython = (source: string, kind: string) =>
  kind === "principal"
    ? `from diascope.explorer.decoder_map import principal
from diascope.explorer.decoders import decoder_rows

positions, share = principal(decoder_rows(${text(`dictionaries/${source}`)}))  # run it in the workspace's folder
print(positions.shape, f"{share:.1%} of the variance")
`
    : `from pathlib import Path

from diascope.explorer.map_store import make_map
${opening()}positions, about = make_map(index, index.sources[${text(source)}], Path(${text(`dictionaries/${source}`)}))
print(positions.shape, about)
`;

export const pairPython = (a: string, b: string) => `from pathlib import Path

from diascope.explorer.pairs import ordered, pairs, sides
${opening()}found = {(p.a.label, p.b.label): p for p in pairs(sides(index, Path(".")))}
columns = found[${text(a)}, ${text(b)}].columns()
total, latents = ordered(columns, sort="change", descending=True, offset=0, limit=20)
for j in latents:
    print(j, {name: float(column[j]) for name, column in columns.items()})
`;

export const graphsPython = () => `from pathlib import Path

from diascope.circuits import Graph

for path in sorted(Path("graphs").glob("*/graph.json")):  # run it in the workspace's folder
    graph = Graph.load(path.parent)
    print(path.parent.name, graph.target_names, graph.about["scores"])
`;
