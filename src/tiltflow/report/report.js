// Puts the charts into a report; the pictures that they stand for are there without this script.

const DRAW = { lines: lineCharts, pairs: pairChart };
for (const host of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(host.querySelector("script").textContent);
  host.hidden = false;
  if (host.dataset.replaces === "yes") host.closest("section").querySelector("figure").hidden = true;
  DRAW[host.dataset.kind](host, spec);
}
