// The script of the circuits page, by itself: in a saved file it opens the graph written there, in the explorer it is loaded
// when the page is first visited and hands over `circuits`.
import { render } from "preact";
import { installTips } from "../tokens";
import { Bench, type Given } from "./bench";

declare global {
  interface Window {
    circuits?: { show: (into: Element, given: Given) => void; hide: (into: Element) => void };
  }
}

window.circuits = {
  show: (into, given) => render(<Bench {...given} />, into),
  hide: (into) => render(null, into),
};

const written = document.getElementById("data");
if (written) {
  installTips();
  render(<main id="main"><Bench view={JSON.parse(written.textContent!)} live={false} /></main>, document.getElementById("app")!);
}
