// What was tried on the graph as a whole when it was traced: its heaviest supernode taken away, and nodes swapped in from another prompt.
import { short } from "../format";
import { shownToken, type Swap, type Tried } from "./data";
import { signed } from "./detail";
import { percentOf } from "./layout";

const sentence = (text: string) => `${text[0]?.toUpperCase() ?? ""}${text.slice(1)}.`;

export function Supernode({ tried }: { tried: Tried }) {
  const { effect, control_95: limit, names = [] } = tried;
  if (effect === undefined || limit === undefined) return <p class="faint small">{sentence(tried.says)}</p>;
  const far = Math.max(Math.abs(effect), Math.abs(tried.predicted ?? 0), limit, 1e-12);
  const bar = (label: string, value: number, kind: string) => (
    <tr><th scope="row">{label}</th><td class="num">{signed(value)}</td><td class="wide"><span class={`effect ${kind}${value < 0 ? " minus" : ""}`} style={{ width: `${(100 * Math.abs(value)) / far}%` }} /></td></tr>
  );
  return (
    <details class="check tried" open={!tried.exceeds}>
      <summary>{tried.exceeds ? "" : "⚠ "}{sentence(tried.says)}</summary>
      <div class="scroll"><table>
        <tbody>
          {bar("ablating it, measured", effect, "own")}
          {tried.predicted !== undefined && bar("predicted by the graph", tried.predicted, "")}
          {bar(`95 % of ${tried.controls} matched controls move it less than`, limit, "control")}
        </tbody>
      </table></div>
      <p class="faint small">Change of the first target's logit. Controls are sets of latents matched in layer, position and activation.{tried.exceeds ? "" : " It does not stand out from them: the group is no better than chance."}{tried.passed_over ? ` ${tried.passed_over} heavier supernode${tried.passed_over === 1 ? " has" : "s have"} no controls.` : ""}</p>
      <p class="faint small">Its latents: {names.slice(0, 12).join(", ")}{names.length > 12 ? `, and ${names.length - 12} more` : ""}.</p>
    </details>
  );
}

export function Swapped({ swap }: { swap: Swap }) {
  const list = (title: string, pairs: [string, number][]) => (
    <div>
      <h3>{title}</h3>
      <ol class="logits">{pairs.map(([t, p]) => <li style={{ "--w": `${100 * p}%` }}><span class="token">{shownToken(t)}</span><span class="num">{percentOf(p)}</span></li>)}</ol>
    </div>
  );
  return (
    <details class="check swap">
      <summary>Swapped in from another prompt: {swap.nodes.slice(0, 6).join(", ")}{swap.nodes.length > 6 ? `, and ${swap.nodes.length - 6} more` : ""} ({swap.latents} latents{swap.errors ? ` and ${swap.errors} errors` : ""} held)</summary>
      <p class="prompt there" aria-label="the other prompt">{swap.tokens.map((t) => <span>{t.replace(/\n/g, "⏎").replace(/▁/g, " ")}</span>)}</p>
      <div class="trio">{list("Before", swap.before)}{list("After the swap", swap.after)}{list("The other prompt", swap.there)}</div>
      <div class="scroll"><table>
        <thead><tr><th scope="col">target</th><th scope="col" class="num" data-tip="in the model as it is">measured</th><th scope="col" class="num" data-tip="by all paths of the graph">predicted</th><th scope="col" class="num" data-tip="by direct edges alone">direct</th><th scope="col" class="num" data-tip="attention patterns as they were">patterns frozen</th><th scope="col" class="num" data-tip="patterns and norms as they were">norms frozen</th><th scope="col" class="num" data-tip="difference between the two prompts themselves: all that could be moved">prompts</th></tr></thead>
        <tbody>
          {swap.targets.map((t) => (
            <tr class={Math.sign(t.free) === Math.sign(t.total) ? "" : "wrong"}>
              <td class="token">{shownToken(t.name)}</td><td class="num"><b>{signed(t.free)}</b></td><td class="num">{signed(t.total)}</td><td class="num faint">{signed(t.direct)}</td><td class="num faint">{signed(t["patterns frozen"])}</td><td class="num faint">{signed(t["norms frozen"])}</td><td class="num faint">{short(t.whole)}</td>
            </tr>
          ))}
        </tbody>
      </table></div>
      <p class="faint small">Changes of logits. An equal sign of measured and predicted is the least to ask.</p>
    </details>
  );
}
