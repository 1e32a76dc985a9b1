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
  const drawn = new Map();
  const retheme = () => { for (const place of drawn.keys()) window.Plotly.relayout(place, { template: template() }); };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", retheme);
  document.getElementById("theme")?.addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    retheme();
  });

  // --- figures: drawn when they come near the screen -----------------------------------------------------------
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  const draw = async (place) => {
    if (drawn.has(place)) return;
    drawn.set(place, true);
    const [Plotly, all] = await Promise.all([plotly(), figures()]);
    const figure = all[place.dataset.figure];
    const layout = { ...figure.layout, template: template() };
    await Plotly.newPlot(place, figure.data, layout, config);
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
  };
  const places = [...document.querySelectorAll(".plot")];
  const failed = (error) => { console.error(error); };
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) { watch.unobserve(entry.target); draw(entry.target).catch(failed); }
  }, { rootMargin: "400px" });
  for (const place of places) watch.observe(place);
  // print needs every figure; what is drawn by then is printed, so start early, when the browser has nothing to do
  const later = window.requestIdleCallback ?? ((job) => setTimeout(job, 1500));
  addEventListener("load", () => later(() => { if (places.length) plotly().catch(failed); }));
  addEventListener("beforeprint", () => { for (const place of places) draw(place).catch(failed); });

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
