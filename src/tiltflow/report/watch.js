// Asks for the state of a run every few seconds and shows it.

const SECONDS = 2;
const part = (id) => document.getElementById(id);
let curves = null;
let said = "";

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function sentence(state) {
  switch (state.status) {
    case "waiting":
      return "Waiting: nothing has been written yet.";
    case "running":
      return `Running: ${state.stage}.`;
    case "failed":
      return `Failed: ${state.reason}`;
    default:
      return state.verdict ? `Finished; the verdict is “${state.verdict}”.` : "Finished.";
  }
}

// Only what changed is set anew: it is read out when it is.
function say(text) {
  if (text !== said) part("status").textContent = said = text;
}

function show(state) {
  say(sentence(state));
  part("reasons").hidden = !state.reasons.length;
  part("reasons").replaceChildren(...state.reasons.map((reason) => element("li", {}, reason)));
  part("report").hidden = !(state.report && state.status === "finished");
  const rows = Object.entries(state.figures).map(([name, value]) => [name, format(value)]);
  if (state.rollbacks) rows.push(["times that training went back", String(state.rollbacks)]);
  if (known(state.seconds_since_report))
    rows.push(["since the last report", duration(state.seconds_since_report)]);
  part("figures").replaceChildren(
    ...rows.map(([name, value]) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "number" }, value)),
    ),
  );
  part("now").hidden = state.status === "waiting";
  const bar = part("progress");
  bar.hidden = state.status !== "running";
  if (known(state.total_steps) && known(state.step)) {
    bar.max = state.total_steps;
    bar.value = state.step;
  } else bar.removeAttribute("value");
  const counted = known(state.total_steps) && state.status === "running";
  part("steps").textContent = counted ? `Step ${state.step} of ${state.total_steps}` : "";
  part("curves").hidden = !state.chart;
  if (!state.chart) return;
  if (curves) curves.update(state.chart);
  else curves = lineCharts(part("chart"), state.chart);
}

async function ask() {
  try {
    const answer = await fetch("state.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch {
    say("No answer: is tiltflow watch still running?");
  }
  setTimeout(ask, 1000 * SECONDS);
}

ask();
