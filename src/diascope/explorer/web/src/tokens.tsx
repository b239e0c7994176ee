// Tokens with highlights. Runs without activation are merged into one node; hovering is handled once, at the top.
import type { Example } from "./api";

const shown = (text: string) => text.replace(/\n/g, "⏎").replace(/▁/g, " ");

export function Tokens({ example, max }: { example: Example; max: number }) {
  const level = new Map(example.fired);
  const out = [];
  let run = "";
  example.tokens.forEach((token, i) => {
    const value = level.get(i);
    if (value === undefined) {
      run += shown(token);
      return;
    }
    if (run) out.push(run);
    run = "";
    out.push(
      <mark
        class={i === example.peak ? "peak" : ""}
        style={{ "--a": (0.12 + 0.88 * (value / 255)).toFixed(3) }}
        data-tip={`${token.trim() || "space"}  ${((value / 255) * max).toPrecision(3)}`}
      >
        {shown(token)}
      </mark>,
    );
  });
  if (run) out.push(run);
  return <p class="tokens">{out}</p>;
}

// One tooltip for every element with data-tip.
export function installTips() {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  document.addEventListener("pointerover", (event) => {
    const target = (event.target as Element).closest?.("[data-tip]");
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = target.getAttribute("data-tip");
    const box = target.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${box.top > 44 ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
  });
}
