"use strict";
(() => {
  // --- data: base64 of a zlib stream, unpacked by the browser itself -------------------------------------------
  const parsed = new Promise((done) => {
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", done, { once: true }); else done();
  });
  const unpack = async (id) => {
    await parsed;
    const element = document.getElementById(id);
    const packed = Uint8Array.from(atob(element.textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const once = (make) => { let made; return () => (made ??= make()); };
  const json = async (id) => JSON.parse(new TextDecoder().decode(await unpack(id)));
  const figures = once(() => json("figures"));
  const plotly = once(async () => {
    await parsed;
    if (window.Plotly) return window.Plotly;
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await unpack("plotly-js"));
    document.head.append(script);
    return window.Plotly;
  });

  // --- theme ---------------------------------------------------------------------------------------------------
  const root = document.documentElement;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const template = () => {
    const axis = { gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--line"), tickcolor: css("--line") };
    const hoverlabel = { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--fg") } };
    return { layout: { font: { color: css("--fg") }, xaxis: axis, yaxis: axis, hoverlabel, modebar: { color: css("--muted"), activecolor: css("--fg"), bgcolor: "transparent" } } };
  };
  // lanes of a timeline stand on a ground of their own, so that empty ones are seen
  const ground = (place) => (place.closest(".timeline") ? { plot_bgcolor: css("--card") } : {});
  const drawn = new Map();
  const retheme = () => { for (const place of drawn.keys()) window.Plotly.relayout(place, { template: template(), ...ground(place) }); };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", retheme);
  document.getElementById("theme")?.addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    retheme();
  });

  // --- figures: drawn when they come near the screen -----------------------------------------------------------
  const config = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  const draw = async (place) => {
    if (drawn.has(place)) return;
    drawn.set(place, true);
    const [Plotly, all] = await Promise.all([plotly(), figures()]);
    const figure = all[place.dataset.figure];
    const layout = { ...figure.layout, template: template(), ...ground(place) };
    await Plotly.newPlot(place, figure.data, layout, config);
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
  };
  const places = [...document.querySelectorAll(".plot")];
  const failed = (error) => { console.error(error); };
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) { watch.unobserve(entry.target); draw(entry.target).catch(failed); }
  }, { rootMargin: "400px" });
  for (const place of places) watch.observe(place);
  // print needs every figure: those never scrolled to are drawn one by one when the browser has nothing to do
  const later = window.requestIdleCallback ?? ((job) => setTimeout(job, 300));
  const drawRest = () => {
    const next = places.find((place) => !drawn.has(place));
    if (next) draw(next).catch(failed).finally(() => later(drawRest));
  };
  addEventListener("load", () => later(drawRest));
  const PAPER_PX = 690;
  const resize = (change) => { for (const place of drawn.keys()) if (place.layout) window.Plotly.relayout(place, change); };
  addEventListener("beforeprint", () => resize({ width: PAPER_PX, autosize: false }));
  addEventListener("afterprint", () => resize({ width: null, autosize: true }));

  // --- timelines: what is drawn depends on how far one has zoomed in --------------------------------------------
  const ARRAYS = { d: Float64Array, i: Int32Array, B: Uint8Array };
  const FULL = 255, ENOUGH_COLUMNS = 600, MIN_PX = 1;
  const human = (ns) => {
    for (const [unit, factor] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
      if (ns >= factor * 0.9995) return `${(ns / factor).toPrecision(4)} ${unit}`;
    }
    return `${Math.round(ns)} ns`;
  };
  const percent = (share) => `${(share * 100).toFixed(1)} %`;

  const readPacket = async (id) => {
    const bytes = await unpack(id);
    const size = new DataView(bytes.buffer).getUint32(0, true);
    const packet = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
    packet.body = bytes.buffer.slice(Math.ceil((4 + size) / 8) * 8);
    if (packet.kind === "events") {
      for (const [name, { type, offset, length }] of Object.entries(packet.arrays)) {
        packet[name] = new ARRAYS[type](packet.body, offset, length);
      }
      for (let row = 1; row < packet.start.length; row++) {
        if (packet.lane[row] === packet.lane[row - 1]) packet.start[row] += packet.start[row - 1];
      }
    }
    return packet;
  };

  const densityData = (packet, from, to) => {
    const share = Math.max(to - from, 1) / packet.ns;
    const level = packet.levels.findIndex((each, index) => each.columns * share >= ENOUGH_COLUMNS || index === packet.levels.length - 1);
    const { columns, offset } = packet.levels[level];
    const first = Math.max(0, Math.floor(from / packet.ns * columns) - 1);
    const last = Math.min(columns, Math.ceil(to / packet.ns * columns) + 1);
    const x = Array.from({ length: last - first + 1 }, (_, index) => (first + index) * packet.ns / columns / packet.unitNs);
    const traces = [];
    let at = offset;
    for (const lane of packet.lanes) {
      const texts = Array.from({ length: last - first + 1 }, () => []);
      for (const part of lane.parts) {
        const shares = new Uint8Array(packet.body, at + first, last - first);
        const y = Array.from(shares, (value) => value / FULL);
        y.push(y.length ? y[y.length - 1] : 0);
        shares.forEach((value, index) => { if (value) texts[index].push(`${part} ${percent(value / FULL)}`); });
        traces.push({ x, y });
        at += columns;
      }
      texts[texts.length - 1] = texts[texts.length - 2] ?? [];
      traces.push({ x, y: x.map(() => 0.5), text: texts.map((words) => words.join("<br>") || "nothing") });
    }
    const status = `One column is ${human(packet.ns / columns)} (level ${level + 1} of ${packet.levels.length}).`;
    return { traces, status };
  };

  // events narrower than a pixel are drawn together with their neighbours; nothing is left out
  const eventsData = (packet, from, to, pixels) => {
    const px = (to - from) / pixels * MIN_PX;
    const traces = packet.lanes.map((lane) => lane.parts.map(() => ({ base: [], x: [], y: [], customdata: [] })));
    const open = packet.lanes.map((lane) => lane.parts.map(() => null));
    let together = 0, seen = 0;
    const put = (lane, part, start, width, words) => {
      const trace = traces[lane][part];
      trace.base.push(start / packet.unitNs); trace.x.push(width / packet.unitNs); trace.y.push(0.5); trace.customdata.push(words);
    };
    const words = (row) => {
      const part = packet.lanes[packet.lane[row]].parts[packet.part[row]];
      if (packet.count[row] > 1) return `${packet.count[row].toLocaleString("en")} events (${part}), together ${human(packet.dur[row])}`;
      if (packet.bubble[row] >= 0) return `idle, ${part} ${human(packet.dur[row])}<br>${packet.bubbles[packet.bubble[row]]}`;
      return `${packet.names[packet.name[row]] ?? part}<br>${human(packet.dur[row])}`;
    };
    const flush = (lane, part) => {
      const run = open[lane][part];
      if (!run) return;
      open[lane][part] = null;
      if (run.rows === 1) return put(lane, part, run.start, run.end - run.start, words(run.row));
      together += run.rows;
      const name = packet.lanes[lane].parts[part];
      put(lane, part, run.start, Math.max(run.end - run.start, px), `${run.count.toLocaleString("en")} events (${name}), together ${human(run.dur)}`);
    };
    for (let row = 0; row < packet.start.length; row++) {
      const start = packet.start[row], end = start + packet.width[row];
      if (end < from || start > to) continue;
      const lane = packet.lane[row], part = packet.part[row];
      seen += packet.count[row];
      const run = open[lane][part];
      if (end - start >= px) { flush(lane, part); put(lane, part, start, end - start, words(row)); continue; }
      if (run && start - run.end < px && end - run.start < 4 * px) {
        run.end = Math.max(run.end, end); run.rows += 1; run.count += packet.count[row]; run.dur += packet.dur[row];
        continue;
      }
      flush(lane, part);
      open[lane][part] = { start, end, row, rows: 1, count: packet.count[row], dur: packet.dur[row] };
    }
    packet.lanes.forEach((lane, index) => lane.parts.forEach((_, part) => flush(index, part)));
    const status = `${seen.toLocaleString("en")} events in ${human(to - from)}` + (together
      ? `; ${together.toLocaleString("en")} narrower than a pixel are drawn together: zoom in.`
      : packet.aggregated ? "; neighbours are put together." : "; every one is drawn.");
    return { traces: traces.flat(), status };
  };

  const refill = async (box, place) => {
    const packet = await (box.packet ??= readPacket(box.dataset.lod));
    const [low, high] = place.layout.xaxis.range.map((value) => value * packet.unitNs);
    const from = Math.max(0, low), to = Math.min(packet.ns, high);
    const make = packet.kind === "density" ? densityData : eventsData;
    const { traces, status } = make(packet, from, Math.max(to, from + 1), Math.max(place.clientWidth - 12, 100));
    const update = {};
    for (const key of Object.keys(traces[0] ?? {})) update[key] = traces.map((trace) => trace[key]);
    if (traces.some((trace) => trace.text)) update.text = traces.map((trace) => trace.text);
    await window.Plotly.restyle(place, update, traces.map((_, index) => index));
    box.querySelector("[role=status]").textContent = status;
  };
  const zoom = (box, place, action) => {
    const [low, high] = place.layout.xaxis.range, width = high - low;
    const whole = box.whole;
    const moves = { in: [low + width / 4, high - width / 4], out: [low - width / 2, high + width / 2], left: [low - width / 2, high - width / 2], right: [low + width / 2, high + width / 2], reset: whole };
    let [from, to] = moves[action];
    if (from < whole[0]) [from, to] = [whole[0], Math.min(whole[1], whole[0] + to - from)];
    if (to > whole[1]) [from, to] = [Math.max(whole[0], whole[1] - (to - from)), whole[1]];
    return window.Plotly.relayout(place, { "xaxis.range": [from, to] });
  };
  for (const box of document.querySelectorAll(".timeline")) {
    const place = box.querySelector(".plot");
    place.addEventListener("drawn", () => {
      box.whole = [...place.layout.xaxis.range];
      refill(box, place).catch(failed);
      place.on("plotly_relayout", (change) => {
        if (change["xaxis.autorange"]) return window.Plotly.relayout(place, { "xaxis.range": box.whole });
        if (Object.keys(change).some((key) => key.startsWith("xaxis"))) refill(box, place).catch(failed);
      });
    });
    // a step that is clicked is shown in the timeline of the whole window
    if (place.id === "figure-timeline") document.getElementById("figure-steps")?.addEventListener("drawn", (event) => {
      event.target.on("plotly_click", async ({ points }) => {
        await draw(place);
        const { unitNs } = await (box.packet ??= readPacket(box.dataset.lod));
        const [from, to, index] = points[0].customdata, margin = (to - from) / 4;
        await window.Plotly.relayout(place, { "xaxis.range": [Math.max(box.whole[0], (from - margin) / unitNs), Math.min(box.whole[1], (to + margin) / unitNs)] });
        const fold = document.getElementById(`step-${index}`);
        if (fold) fold.open = true;
        (fold ?? box).scrollIntoView();
      });
    });
    for (const button of box.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", async () => { await draw(place); zoom(box, place, button.dataset.zoom); });
    }
  }

  // --- tables --------------------------------------------------------------------------------------------------
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.toLowerCase();
    return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
  };
  const sortBy = (table, heading, column) => {
    const descending = heading.getAttribute("aria-sort") !== "descending" && heading.classList.contains("number")
      || heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
    rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1));
    const folded = table.querySelectorAll(".folded").length;
    table.tBodies[0].append(...rows.map(([, row], index) => {
      row.classList.toggle("folded", index >= rows.length - folded);
      return row;
    }));
  };
  const search = (table, text, found) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    table.classList.toggle("searching", words.length > 0);
    let hits = 0;
    for (const row of table.tBodies[0].rows) {
      const all = [row.textContent, ...[...row.querySelectorAll("[title]")].map((cell) => cell.title)].join(" ").toLowerCase();
      const hit = words.every((word) => all.includes(word));
      row.classList.toggle("miss", !hit);
      hits += hit;
    }
    found.textContent = words.length ? `${hits} of ${table.dataset.total}` : "";
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) =>
      heading.querySelector("button").addEventListener("click", () => sortBy(table, heading, column)));
    const box = table.closest(".table");
    box.querySelector(".search")?.addEventListener("input", (event) => search(table, event.target.value, box.querySelector(".found")));
    const fold = box.querySelector(".fold");
    fold?.addEventListener("click", () => {
      const all = table.classList.toggle("all");
      fold.setAttribute("aria-expanded", String(all));
      fold.textContent = all ? "Show fewer" : `Show all ${table.dataset.total}`;
    });
  }
})();
