// Everything that a run of the playground depends on: as an address that reproduces it, as a request, as a Python program.

export type Push = { source: string; latent: number; dose: string };
export type Setup = {
  chat: boolean;
  prompt: string;
  system: string;
  pushes: Push[];
  method: string;
  unit: string;
  tokens: string;
  temperature: string;
  seed: string;
};

export const METHODS: [string, string, string][] = [
  ["additive", "add", "adds the dose along the direction"],
  ["orthogonal", "replace", "orthogonal: what stands along the direction is replaced by the dose"],
  ["cap", "cap", "what stands along the direction is cut off above the dose"],
  ["clamp", "clamp", "the latent is written as if its activation were the dose everywhere"],
];
export const UNITS: [string, string, string][] = [
  ["max", "× its largest activation", "largest in the corpus"],
  ["norm", "× the typical vector", "the median length of the model's vectors where the latent is written"],
  ["activation", "of activation", "the latent's own units"],
];
export const PLAIN: Setup = { chat: false, prompt: "My favourite city is", system: "", pushes: [], method: "additive", unit: "max", tokens: "40", temperature: "0", seed: "0" };

export function read(query: string): Setup {
  const given = new URLSearchParams(query);
  const text = (key: string, usual: string) => given.get(key) ?? usual;
  const one = (key: string, among: [string, ...unknown[]][], usual: string) => (among.some(([k]) => k === given.get(key)) ? given.get(key)! : usual);
  const number = (key: string, usual: string) => (given.has(key) && given.get(key) !== "" && Number.isFinite(Number(given.get(key))) ? given.get(key)! : usual);
  const pushes = given.getAll("push").flatMap((p) => {
    const found = /^(.+):(\d{1,9}):(-?[\d.e+-]+)$/.exec(p); // a source's name may hold colons
    return found && Number.isFinite(Number(found[3])) ? [{ source: found[1]!, latent: Number(found[2]), dose: found[3]! }] : [];
  });
  return {
    chat: given.get("chat") === "1",
    prompt: text("prompt", PLAIN.prompt),
    system: text("system", ""),
    pushes,
    method: one("method", METHODS, PLAIN.method),
    unit: one("unit", UNITS, PLAIN.unit),
    tokens: number("tokens", PLAIN.tokens),
    temperature: number("temperature", PLAIN.temperature),
    seed: number("seed", PLAIN.seed),
  };
}

export function address(s: Setup): string {
  const q = new URLSearchParams({ prompt: s.prompt });
  if (s.chat) q.set("chat", "1");
  if (s.chat && s.system) q.set("system", s.system);
  for (const p of s.pushes) q.append("push", `${p.source}:${p.latent}:${p.dose}`);
  for (const key of ["method", "unit", "tokens", "temperature", "seed"] as const) q.set(key, s[key]);
  return `#/steer?${q}`;
}

const messages = (s: Setup) => [...(s.system.trim() ? [{ role: "system", content: s.system }] : []), { role: "user", content: s.prompt }];

export function request(s: Setup) {
  const said = s.chat ? { messages: messages(s) } : { prompt: s.prompt };
  const pushes = s.pushes.map((p) => ({ ...p, dose: Number(p.dose) }));
  return { ...said, pushes, method: s.method, unit: s.unit, max_new_tokens: Number(s.tokens), temperature: Number(s.temperature), seed: Number(s.seed) };
}

// What keeps a setup from being run, in words; "" where nothing does.
export function problem(s: Setup): string {
  const whole = (v: string, low: number, high: number) => v.trim() !== "" && Number.isInteger(Number(v)) && Number(v) >= low && Number(v) <= high;
  if (!s.prompt.trim()) return "Write a prompt.";
  if (!s.pushes.length) return "Add a latent to steer with.";
  if (!s.pushes.every((p) => p.dose.trim() !== "" && Number.isFinite(Number(p.dose)) && Math.abs(Number(p.dose)) <= 1e6)) return "A dose is a number of at most 1,000,000 in size.";
  if (!whole(s.tokens, 1, 256)) return "Ask for 1 to 256 tokens.";
  if (!(s.temperature.trim() !== "" && Number(s.temperature) >= 0 && Number(s.temperature) <= 100)) return "The temperature is a number from 0 to 100.";
  if (!whole(s.seed, 0, 2 ** 53)) return "The seed is a whole number from 0.";
  return "";
}

// `doses` are in the directions' own units, as the server told them.
export function asPython(s: Setup, model: string, doses: number[]): string {
  const names = [...new Set(s.pushes.map((p) => p.source))];
  const text = JSON.stringify;
  const prompt = s.chat ? text(messages(s)) : text(s.prompt);
  const pushes = s.pushes.map((p, i) => `    Push.of_latent(dictionaries[${text(p.source)}], ${p.latent}, dose=${doses[i]}, method=${text(s.method)}),`);
  return `import diascope
from diascope.latents.steering import Push, side_by_side

model = diascope.load_model(${text(model)}, dtype="float32")
# run it in the workspace's folder
dictionaries = {name: diascope.load_dictionary(f"dictionaries/{name}") for name in ${text(names)}}
pushes = [
${pushes.join("\n")}
]
prompt = ${prompt}
default = steered = ""
for pair in side_by_side(model, prompt, pushes, max_new_tokens=${Number(s.tokens)}, temperature=${Number(s.temperature)}, seed=${Number(s.seed)}):
    default += pair.default.text if pair.default and not pair.default.ends else ""
    steered += pair.steered.text if pair.steered and not pair.steered.ends else ""
print(default, steered, sep="\\n---\\n")
`;
}
