// The page: a header and one view, chosen by the address after '#'.
import { render } from "preact";
import { signal } from "@preact/signals";
import type { Status } from "./api";
import { Browse } from "./browse";
import { Graph, Shelf } from "./circuits/shelf";
import { Feature } from "./feature";
import { useAsk } from "./load";
import { Sources } from "./sources";
import { Steer } from "./steer/page";
import { Text } from "./text";
import { installTips } from "./tokens";

const route = signal(location.hash);
addEventListener("hashchange", () => {
  route.value = location.hash;
  scrollTo(0, 0);
});

function View() {
  const [path, ...query] = route.value.split("?");
  const [, kind, name, latent] = path!.split("/").map(decodeURIComponent);
  if (kind === "text") return <Text />;
  if (kind === "steer") return <Steer query={query.join("?")} key={query.join("?")} />;
  if (kind === "circuits") return name ? <Graph id={name} key={name} /> : <Shelf />;
  if (kind === "s" && name && latent) return <Feature source={name} latent={Number(latent)} key={`${name}/${latent}`} />;
  if (kind === "s" && name) return <Browse source={name} key={name} />;
  return <Sources />;
}

function Page() {
  const { data } = useAsk<Status>("/api/status");
  const at = route.value;
  return (
    <>
      <header class="top">
        <a class="brand" href="#/"><svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="9.2" /><circle cx="12" cy="12" r="5.4" /><circle cx="12" cy="12" r="1.8" class="dot" /></svg>diascope</a>
        <nav aria-label="views">
          <a href="#/" aria-current={at === "" || at === "#/" ? "page" : undefined}>Sources</a>
          <a href="#/text" aria-current={at === "#/text" ? "page" : undefined}>Text</a>
          <a href="#/steer" aria-current={at.startsWith("#/steer") ? "page" : undefined}>Steer</a>
          <a href="#/circuits" aria-current={at.startsWith("#/circuits") ? "page" : undefined}>Circuits</a>
        </nav>
        <span class="faint small model">{data?.index.model}</span>
      </header>
      <main id="main"><View /></main>
    </>
  );
}

installTips();
render(<Page />, document.getElementById("app")!);
