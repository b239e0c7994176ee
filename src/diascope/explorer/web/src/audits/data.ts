// What the server tells of audits (audit_api.py), and programs that do what the views show.
export type Verdict = { protocol: string; verdict: string; why: string };
export type Summary = { audit: string; modified?: number; model?: string; seed?: number | null; dictionary?: string; verdicts?: Verdict[]; problem?: string };
export type Report = { audit: string; path: string; source: string; style: string; markup: string };

// Each verdict has a sign of its own, as in the report (page/audit/marks.py): colour says nothing alone.
export const SIGNS: Record<string, string> = {
  causal: "●",
  "causal-but-damaging": "◐",
  "sparse-explains": "◆",
  detects: "○",
  confounded: "≠",
  "fidelity-fail": "✕",
  vacuous: "∅",
  underpowered: "…",
  "not-distinguishable": "–",
};

const text = JSON.stringify;

export const auditsPython = () => `import json
from pathlib import Path

for path in sorted(Path(".").glob("audit*/**/audit.json")):  # run it in the workspace's folder
    audit = json.loads(path.read_text())
    print(path.parent, audit["facts"]["model"], {r["protocol"]: r["verdict"] for r in audit["results"]})
`;

export const auditPython = (path: string) => `import json
from pathlib import Path

from diascope.page.audit import report_html

path = Path(${text(path)})  # run it in the workspace's folder
audit = json.loads(path.read_text())
for r in audit["results"]:
    print(r["protocol"], r["verdict"], r["why"], sep="  ")
Path("report.html").write_text(report_html(audit), encoding="utf-8")
`;
