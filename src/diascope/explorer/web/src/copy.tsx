// A button that copies a text, and shows it where the browser does not let it.
import { useState } from "preact/hooks";

export function Copy({ label, text, disabled, why }: { label: string; text: () => string; disabled?: boolean; why?: string }) {
  const [state, setState] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setState("copied");
    } catch {
      setState(text());
    }
    setTimeout(() => setState((s) => (s === "copied" ? "" : s)), 1500);
  };
  return (
    <>
      <button type="button" onClick={copy} disabled={disabled} data-tip={disabled ? why : undefined}>{state === "copied" ? "Copied" : label}</button>
      {state && state !== "copied" && <textarea class="python" aria-label={label} readOnly rows={8} value={state} />}
    </>
  );
}
