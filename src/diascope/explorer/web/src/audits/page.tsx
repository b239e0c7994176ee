// One audit: its report as the server makes it, in a shadow tree of its own, so that its style and this page's do not meet.
import { useEffect, useRef } from "preact/hooks";
import { Copy } from "../copy";
import { Load } from "../load";
import { auditPython, type Report } from "./data";

function Shown({ style, markup }: { style: string; markup: string }) {
  const into = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = into.current!;
    const root = element.shadowRoot ?? element.attachShadow({ mode: "open" });
    root.innerHTML = `<style>${style}</style>${markup}`; // the server escaped every string; the page's policy runs no script of it
    const follow = (event: Event) => {
      const to = (event.target as Element).closest("a")?.getAttribute("href");
      if (!to?.startsWith("#") || to.startsWith("#/")) return; // an address of this page: the browser follows it
      event.preventDefault();
      root.getElementById(to.slice(1))?.scrollIntoView();
    };
    root.addEventListener("click", follow);
    return () => root.removeEventListener("click", follow);
  }, [style, markup]);
  return <div class="audit" ref={into} />;
}

export function AuditPage({ audit }: { audit: string }) {
  return (
    <Load<Report> path={`/api/audits/${audit.split("/").map(encodeURIComponent).join("/")}`}>
      {(report) => (
        <section>
          <header class="bar">
            <h2 class="crumb"><a href="#/audits">Audits</a> <span class="faint">/</span> {report.audit}</h2>
            {report.source && <span class="faint small">latents lead to <a href={`#/s/${encodeURIComponent(report.source)}`}>{report.source}</a></span>}
            <Copy label="Copy as Python" text={() => auditPython(report.path)} />
          </header>
          <Shown style={report.style} markup={report.markup} />
        </section>
      )}
    </Load>
  );
}
