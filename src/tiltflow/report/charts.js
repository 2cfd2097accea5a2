// The charts of a page: drawn as SVG in the page's own colours, read and zoomed by mouse, touch and
// keyboard. Everything shown is set as text, never as markup.

// The name of a namespace, not an address: nothing is fetched, and no page holds an address.
const SVG = ["http:", "", "www.w3.org", "2000", "svg"].join("/");

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes, parent, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// What a chart says in words stands beside it, so that its lines are not read out.
function canvas(width, height) {
  const made = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ width, height, "aria-hidden": "true" }))
    made.setAttribute(name, value);
  return made;
}

const known = (value) => typeof value === "number" && Number.isFinite(value);

function format(value, digits = 5) {
  if (!known(value)) return "not known";
  const size = Math.abs(value);
  const far = size !== 0 && (size >= 1e7 || size < 1e-4);
  const text = far ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

// Round values at steps of 1, 2 or 5 times a power of ten, with as many decimals as they need.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 12);
  const size = Math.max(Math.abs(low), Math.abs(high));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    const value = i * step;
    const plain = size < 1e6 && size >= 1e-4;
    const text = plain ? value.toFixed(decimals) : String(Number(value.toPrecision(6)));
    found.push([value, text.replaceAll("-", "−")]);
    if (found.length > 20) break;
  }
  return found;
}

// A frame with axes around `box` (left, top, right, bottom), and the two scales of its inside.
function frame(svg, box, across, up, names, tickCounts) {
  const x = (value) => box.left + ((value - across[0]) / (across[1] - across[0])) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - up[0]) / (up[1] - up[0])) * (box.bottom - box.top);
  for (const [value, text] of ticks(...across, tickCounts[0])) {
    drawn("line", { x1: x(value), x2: x(value), y1: box.top, y2: box.bottom, class: "grid" }, svg);
    const label = { x: x(value), y: box.bottom + 16, "text-anchor": "middle", class: "tick" };
    drawn("text", label, svg, text);
  }
  for (const [value, text] of ticks(...up, tickCounts[1])) {
    drawn("line", { x1: box.left, x2: box.right, y1: y(value), y2: y(value), class: "grid" }, svg);
    const label = { x: box.left - 6, y: y(value) + 4, "text-anchor": "end", class: "tick" };
    drawn("text", label, svg, text);
  }
  const middle = (box.left + box.right) / 2;
  if (names[0]) {
    const label = { x: middle, y: box.bottom + 34, "text-anchor": "middle", class: "name" };
    drawn("text", label, svg, names[0]);
  }
  if (names[1]) {
    const height = (box.top + box.bottom) / 2;
    const turn = { transform: `translate(13 ${height}) rotate(-90)`, "text-anchor": "middle" };
    drawn("text", { ...turn, class: "name" }, svg, names[1]);
  }
  return { x, y };
}

let clips = 0;
function clipped(svg, box) {
  const id = `clip-${clips++}`;
  const path = drawn("clipPath", { id }, drawn("defs", {}, svg));
  const { left, top, right, bottom } = box;
  drawn("rect", { x: left, y: top, width: right - left, height: bottom - top }, path);
  return drawn("g", { "clip-path": `url(#${id})` }, svg);
}

function labelWidth(low, high, count) {
  return 7 * Math.max(...ticks(low, high, count).map(([, text]) => text.length), 1);
}

function button(text, action) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", action);
  return made;
}

// [low, high] made `factor` times as long around `centre`, kept within `home`.
function zoomed([low, high], factor, centre, home) {
  const length = Math.min((high - low) * factor, home[1] - home[0]);
  if (length < (home[1] - home[0]) * 1e-4) return [low, high];
  const share = (centre - low) / (high - low);
  const start = Math.min(Math.max(centre - share * length, home[0]), home[1] - length);
  return [start, start + length];
}

function moved([low, high], share, home) {
  const shift = share * (high - low);
  const start = Math.min(Math.max(low + shift, home[0]), home[1] - (high - low));
  return [start, start + high - low];
}

// Calls `draw(width)` now and whenever the width of `host` changes.
function onWidth(host, draw) {
  let last = 0;
  const look = () => {
    const width = Math.floor(host.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  };
  new ResizeObserver(look).observe(host);
  look();
}

// A drag from one place to another inside `box()` calls `chosen(from, to)` in pixels.
function onDrag(area, box, chosen) {
  let from = null;
  let mark = null;
  const inside = (event, svg) => {
    const place = svg.getBoundingClientRect();
    const { left, top, right, bottom } = box(svg);
    return {
      x: Math.min(Math.max(event.clientX - place.left, left), right),
      y: Math.min(Math.max(event.clientY - place.top, top), bottom),
    };
  };
  const end = () => {
    mark?.remove();
    from = mark = null;
  };
  area.addEventListener("pointerdown", (event) => {
    const svg = event.target.closest("svg");
    if (!svg || event.button !== 0 || event.pointerType === "touch") return;
    from = { svg, ...inside(event, svg) };
  });
  area.addEventListener("pointermove", (event) => {
    if (!from || !from.svg.isConnected) return end();
    const to = inside(event, from.svg);
    mark ??= drawn("rect", { class: "drag" }, from.svg);
    const { top, bottom, vertical } = box(from.svg);
    mark.setAttribute("x", Math.min(from.x, to.x));
    mark.setAttribute("width", Math.abs(to.x - from.x));
    mark.setAttribute("y", vertical ? Math.min(from.y, to.y) : top);
    mark.setAttribute("height", vertical ? Math.abs(to.y - from.y) : bottom - top);
  });
  area.addEventListener("pointerup", (event) => {
    if (!from) return;
    const to = inside(event, from.svg);
    const { svg, x, y } = from;
    end();
    if (Math.abs(to.x - x) > 6) chosen(svg, { x, y }, to);
  });
  area.addEventListener("pointerleave", end);
}

// Curves of several quantities against one x, in panels that share their zoom and their cursor.
// spec: label, x, x_name, panels of title, fixed, robust, series of name, colour, y; and mark.
function lineCharts(host, spec) {
  const hint = element("p", { class: "hint" });
  hint.id = `hint-${clips++}`;
  hint.textContent =
    "Drag across a panel to zoom, double-click for all. By keyboard: left and right read the values, + and − zoom, 0 shows all.";
  const area = element("div", {
    class: "panels", tabindex: "0", role: "application", "aria-label": spec.label,
    "aria-roledescription": "interactive chart", "aria-describedby": hint.id,
  });
  const readout = element("p", { class: "readout", role: "status" });
  let home = [0, 1];
  let range = null; // null shows all, also of what is still to come
  let cursor = null;
  const shown = () => range ?? home;
  const set = (next) => {
    range = next[1] - next[0] >= (home[1] - home[0]) * 0.999 ? null : next;
    draw();
  };
  const centre = () => (cursor === null ? (shown()[0] + shown()[1]) / 2 : spec.x[cursor]);
  const controls = element(
    "div", { class: "controls" },
    button("Zoom in", () => set(zoomed(shown(), 0.5, centre(), home))),
    button("Zoom out", () => set(zoomed(shown(), 2, centre(), home))),
    button("Show all", () => set(home)),
  );
  host.append(area, readout, controls, hint);

  function within() {
    const [low, high] = shown();
    return spec.x.map((x, i) => i).filter((i) => spec.x[i] >= low && spec.x[i] <= high);
  }

  function limits(panel) {
    if (panel.fixed) return panel.fixed;
    const values = panel.series.flatMap((each) => within().map((i) => each.y[i])).filter(known);
    if (!values.length) return [0, 1];
    values.sort((a, b) => a - b);
    const at = (share) => values[Math.round(share * (values.length - 1))];
    // Zoomed in, everything there is shown; in the whole view a wild start must not flatten the rest.
    const [low, high] = range ? [values[0], at(1)] : panel.robust.map(at);
    const margin = 0.12 * (high - low) || 0.05 * Math.abs(high) || 1;
    return [low - margin, high + margin];
  }

  function drawPanel(panel, width) {
    const height = Math.max(150, Math.min(230, 0.55 * width));
    const up = limits(panel);
    const left = 16 + labelWidth(...up, 4);
    const box = { left, top: 26, right: width - 12, bottom: height - 40 };
    const made = canvas(width, height);
    made.box = box;
    const { x, y } = frame(made, box, shown(), up, [spec.x_name, ""], [Math.max(2, width / 90), 4]);
    drawn("text", { x: 4, y: 15, class: "title" }, made, panel.title);
    const inside = clipped(made, box);
    let any = false;
    for (const each of panel.series) {
      const places = each.y.map((value, i) => (known(value) ? [x(spec.x[i]), y(value)] : null));
      let path = "";
      places.forEach((place, i) => {
        if (place) path += `${i && places[i - 1] ? "L" : "M"}${place[0].toFixed(1)} ${place[1].toFixed(1)}`;
      });
      any ||= path !== "";
      drawn("path", { d: path, class: `line ${each.colour}` }, inside);
      if (places.filter(Boolean).length < 15) {
        for (const place of places.filter(Boolean))
          drawn("circle", { cx: place[0], cy: place[1], r: 3, class: `dot ${each.colour}` }, inside);
      }
    }
    if (!any) {
      const place = { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2 };
      drawn("text", { ...place, "text-anchor": "middle", class: "tick" }, made, "not recorded");
    }
    if (panel.series.length > 1) {
      let end = width - 12;
      for (const each of [...panel.series].reverse()) {
        drawn("text", { x: end, y: 15, "text-anchor": "end", class: "tick" }, made, each.name);
        end -= 6 * each.name.length + 6;
        drawn("line", { x1: end - 16, x2: end, y1: 11, y2: 11, class: `line ${each.colour}` }, made);
        end -= 28;
      }
    }
    if (panel.mark && known(panel.mark.y)) {
      const place = { cx: x(panel.mark.x), cy: y(panel.mark.y), r: 5, class: "mark" };
      drawn("circle", place, inside);
      const text = { x: width - 12, y: 15, "text-anchor": "end", class: "tick" };
      drawn("text", text, made, panel.mark.text);
    }
    if (cursor !== null) {
      const place = x(spec.x[cursor]);
      drawn("line", { x1: place, x2: place, y1: box.top, y2: box.bottom, class: "cursor" }, inside);
      for (const each of panel.series)
        if (known(each.y[cursor]))
          drawn("circle", { cx: place, cy: y(each.y[cursor]), r: 4, class: `dot ${each.colour}` }, inside);
    }
    return made;
  }

  function draw() {
    const values = spec.x.filter(known);
    home = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    if (home[1] <= home[0]) home = [home[0] - 1, home[0] + 1];
    const columns = area.clientWidth > 640 ? 2 : 1;
    const width = Math.floor((area.clientWidth - 16 * (columns - 1)) / columns);
    if (width < 40) return;
    area.replaceChildren(...spec.panels.map((panel) => drawPanel(panel, width)));
    if (cursor === null) return void (readout.textContent = "");
    const parts = spec.panels.flatMap((panel) =>
      panel.series.map((each) => {
        const name = panel.series.length > 1 ? `${panel.title}, ${each.name}` : panel.title;
        return `${name} ${format(each.y[cursor])}`;
      }),
    );
    readout.textContent = `${spec.x_name} ${format(spec.x[cursor], 8)}: ${parts.join("; ")}`;
  }

  function point(index) {
    cursor = index;
    draw();
  }

  area.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg");
    const places = within();
    if (!svg?.box || !places.length || event.buttons) return;
    const share = (event.clientX - svg.getBoundingClientRect().left - svg.box.left) / (svg.box.right - svg.box.left);
    const at = shown()[0] + share * (shown()[1] - shown()[0]);
    const nearest = places.reduce((a, b) => (Math.abs(spec.x[b] - at) < Math.abs(spec.x[a] - at) ? b : a));
    if (nearest !== cursor) point(nearest);
  });
  area.addEventListener("pointerleave", () => cursor !== null && document.activeElement !== area && point(null));
  area.addEventListener("dblclick", () => set(home));
  onDrag(area, (svg) => svg.box, (svg, from, to) => {
    const value = (x) => shown()[0] + ((x - svg.box.left) / (svg.box.right - svg.box.left)) * (shown()[1] - shown()[0]);
    set([Math.min(value(from.x), value(to.x)), Math.max(value(from.x), value(to.x))]);
  });
  area.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const places = within();
    const at = places.indexOf(cursor);
    const steps = {
      ArrowLeft: () => point(places[Math.max(at === -1 ? places.length - 1 : at - 1, 0)] ?? null),
      ArrowRight: () => point(places[Math.min(at + 1, places.length - 1)] ?? null),
      Home: () => point(places[0] ?? null),
      End: () => point(places.at(-1) ?? null),
      Escape: () => point(null),
      "+": () => set(zoomed(shown(), 0.5, centre(), home)),
      "=": () => set(zoomed(shown(), 0.5, centre(), home)),
      "-": () => set(zoomed(shown(), 2, centre(), home)),
      0: () => set(home),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    steps[event.key]();
  });
  onWidth(host, draw);
  return {
    update(next) {
      spec = next;
      if (cursor !== null && cursor >= spec.x.length) cursor = null;
      draw();
    },
  };
}

// Data, samples and contours of a density on a pair of columns that the reader chooses.
// spec: label, columns of name, low, high, data, samples; contours by "i,j", i across, j up.
function pairChart(host, spec) {
  const hint = element("p", { class: "hint" });
  hint.id = `hint-${clips++}`;
  hint.textContent =
    "Drag over a region to zoom, double-click for all. By keyboard: arrows go from point to point, with shift they move the view, + and − zoom, 0 shows all.";
  const area = element("div", {
    class: "plane", tabindex: "0", role: "application", "aria-label": spec.label,
    "aria-roledescription": "interactive chart", "aria-describedby": hint.id,
  });
  const tip = element("div", { class: "tip" });
  const readout = element("p", { class: "readout", role: "status" });
  let pair = [0, 1];
  let view = null; // [across, up], null shows all
  let chosen = null; // { kind, index }
  const home = () => pair.map((j) => [spec.columns[j].low, spec.columns[j].high]);
  const shown = () => view ?? home();

  const selects = ["Across", "Up"].map((name, side) => {
    const select = element("select");
    spec.columns.forEach((column, j) => {
      const option = element("option", { value: String(j) }, column.name);
      option.selected = pair[side] === j;
      select.append(option);
    });
    select.addEventListener("change", () => {
      const other = pair[1 - side];
      const next = Number(select.value);
      if (next === other) pair[1 - side] = pair[side];
      pair[side] = next;
      selects.forEach((each, i) => (each.select.value = String(pair[i])));
      view = chosen = null;
      draw();
      tell();
    });
    return { select, label: element("label", {}, `${name} `, select) };
  });
  const layers = {};
  const boxes = [
    ["data", "rows of the table", "data"],
    ["samples", "samples of the density", "model"],
    ["contours", spec.contours_name, "contour"],
  ].map(([key, text, colour]) => {
    const input = element("input", { type: "checkbox" });
    input.checked = true;
    layers[key] = input;
    input.addEventListener("change", () => {
      if (chosen && !layers[chosen.kind].checked) chosen = null;
      draw();
    });
    return element("label", {}, input, element("span", { class: `swatch ${colour}` }), ` ${text}`);
  });
  const zoomBy = (factor) => {
    const centre = chosen ? place(chosen) : shown().map(([low, high]) => (low + high) / 2);
    set(shown().map((each, i) => zoomed(each, factor, centre[i], home()[i])));
  };
  const buttons = element(
    "div", { class: "controls" },
    button("Zoom in", () => zoomBy(0.5)),
    button("Zoom out", () => zoomBy(2)),
    button("Show all", () => set(home())),
  );
  const choice = element("div", { class: "controls" }, selects[0].label, selects[1].label, ...boxes);
  const stage = element("div", { class: "stage" }, area, tip);
  host.append(choice, stage, readout, buttons, hint);

  function set(next) {
    const whole = next.every(([low, high], i) => high - low >= (home()[i][1] - home()[i][0]) * 0.999);
    view = whole ? null : next;
    draw();
  }

  const values = (kind, side) => spec.columns[pair[side]][kind];
  const place = ({ kind, index }) => [values(kind, 0)[index], values(kind, 1)[index]];
  const inView = ([a, b]) => {
    const [across, up] = shown();
    return known(a) && known(b) && a >= across[0] && a <= across[1] && b >= up[0] && b <= up[1];
  };
  const points = (kind) =>
    values(kind, 0).map((_, index) => ({ kind, index })).filter((each) => inView(place(each)));

  function lines() {
    const [i, j] = pair;
    const flip = i > j;
    const [grid, found] = [spec.grid, spec.contours[flip ? `${j},${i}` : `${i},${j}`] ?? []];
    const scale = (side, value) => {
      const { low, high } = spec.columns[pair[side]];
      return low + (grid[0] + (value / 1000) * (grid[1] - grid[0])) * (high - low);
    };
    return found.map((share) =>
      share.map((line) => {
        const path = [];
        for (let k = 0; k < line.length; k += 2)
          path.push([scale(0, line[k + (flip ? 1 : 0)]), scale(1, line[k + (flip ? 0 : 1)])]);
        return path;
      }),
    );
  }

  let scales = null;
  let box = null;
  function draw() {
    const width = area.clientWidth;
    if (width < 40) return;
    const height = Math.round(Math.min(0.72 * width, 520));
    const [across, up] = shown();
    const counts = [Math.max(2, width / 100), Math.max(2, height / 70)];
    box = { left: 30 + labelWidth(...up, counts[1]), top: 10, right: width - 12, bottom: height - 42, vertical: true };
    const svg = canvas(width, height);
    const names = pair.map((j) => spec.columns[j].name);
    const short = names.map((name) => (name.length > 48 ? `${name.slice(0, 47)}…` : name));
    scales = frame(svg, box, across, up, short, counts);
    drawn("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top, class: "edge" }, svg);
    const inside = clipped(svg, box);
    const at = (value) => `${scales.x(value[0]).toFixed(1)} ${scales.y(value[1]).toFixed(1)}`;
    for (const [kind, colour] of [["samples", "model"], ["data", "data"]]) {
      if (!layers[kind].checked) continue;
      const path = points(kind).map((each) => `M${at(place(each))}h0`).join("");
      drawn("path", { d: path, class: `points ${colour}` }, inside);
    }
    if (layers.contours.checked) {
      lines().forEach((share, order) => {
        const path = share.map((line) => `M${line.map(at).join("L")}`).join("");
        drawn("path", { d: path, class: `contour-line order-${order}` }, inside);
      });
    }
    if (chosen && inView(place(chosen))) {
      const [x, y] = place(chosen);
      drawn("circle", { cx: scales.x(x), cy: scales.y(y), r: 6, class: "mark" }, inside);
    }
    area.replaceChildren(svg);
    showTip();
  }

  function showTip() {
    tip.replaceChildren();
    tip.hidden = !chosen || !inView(place(chosen));
    if (tip.hidden) return;
    const kind = chosen.kind === "data" ? "Row of the table" : "Sample of the density";
    tip.append(element("strong", {}, kind));
    const rest = spec.columns.map((_, j) => j).filter((j) => !pair.includes(j));
    const listed = [...pair, ...rest].slice(0, 10);
    for (const j of listed) {
      const column = spec.columns[j];
      tip.append(element("div", {}, `${column.name}: ${format(column[chosen.kind][chosen.index])}`));
    }
    if (spec.columns.length > listed.length)
      tip.append(element("div", {}, `and ${spec.columns.length - listed.length} more`));
    const [x, y] = place(chosen);
    const [left, top] = [scales.x(x), scales.y(y)];
    const side = left > area.clientWidth / 2 ? -tip.offsetWidth - 12 : 12;
    tip.style.left = `${Math.max(0, left + side)}px`;
    tip.style.top = `${Math.max(0, Math.min(top - 10, area.clientHeight - tip.offsetHeight))}px`;
  }

  function tell() {
    const names = pair.map((j) => spec.columns[j].name);
    if (!chosen) {
      const counts = [points("data").length, points("samples").length];
      readout.textContent = `${names[0]} across, ${names[1]} up: ${counts[0]} rows and ${counts[1]} samples in view.`;
      return;
    }
    const [x, y] = place(chosen);
    const kind = chosen.kind === "data" ? "Row" : "Sample";
    readout.textContent = `${kind}: ${names[0]} ${format(x)}, ${names[1]} ${format(y)}.`;
  }

  function choose(next) {
    chosen = next;
    draw();
    tell();
  }

  // The next point along an axis, from the one that is chosen or from the edge.
  function walk(side, direction) {
    const kind = layers.data.checked ? "data" : "samples";
    const along = (each) => place(each)[side];
    const order = points(kind).sort((a, b) => direction * (along(a) - along(b)) || a.index - b.index);
    const at = order.findIndex((each) => each.kind === chosen?.kind && each.index === chosen.index);
    if (order.length) choose(order[Math.min(at + 1, order.length - 1)]);
  }

  area.addEventListener("pointermove", (event) => {
    if (event.buttons || !scales) return;
    const origin = area.getBoundingClientRect();
    const pointer = [event.clientX - origin.left, event.clientY - origin.top];
    let nearest = null;
    let least = 18;
    for (const kind of ["data", "samples"]) {
      if (!layers[kind].checked) continue;
      for (const each of points(kind)) {
        const [x, y] = place(each);
        const distance = Math.hypot(scales.x(x) - pointer[0], scales.y(y) - pointer[1]);
        if (distance < least) [nearest, least] = [each, distance];
      }
    }
    if (nearest?.kind !== chosen?.kind || nearest?.index !== chosen?.index) choose(nearest);
  });
  area.addEventListener("pointerleave", () => chosen && document.activeElement !== area && choose(null));
  area.addEventListener("dblclick", () => set(home()));
  onDrag(area, () => box, (_, from, to) => {
    const [across, up] = shown();
    const x = (pixel) => across[0] + ((pixel - box.left) / (box.right - box.left)) * (across[1] - across[0]);
    const y = (pixel) => up[0] + ((box.bottom - pixel) / (box.bottom - box.top)) * (up[1] - up[0]);
    if (Math.abs(to.y - from.y) <= 6) return;
    const sorted = (a, b) => [Math.min(a, b), Math.max(a, b)];
    set([sorted(x(from.x), x(to.x)), sorted(y(from.y), y(to.y))]);
    tell();
  });
  area.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = (side, share) => {
      const next = shown().map((each, i) => (i === side ? moved(each, share, home()[i]) : each));
      set(next);
    };
    const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] };
    const others = {
      "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(2),
      0: () => set(home()), Escape: () => choose(null),
    };
    if (arrows[event.key]) {
      const [side, direction] = arrows[event.key];
      if (event.shiftKey) pan(side, 0.25 * direction);
      else walk(side, direction);
    } else if (others[event.key]) {
      others[event.key]();
      tell();
    } else return;
    event.preventDefault();
  });
  onWidth(stage, draw);
  tell();
}
