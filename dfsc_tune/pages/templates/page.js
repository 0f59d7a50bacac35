"use strict";
(() => {
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const specs = new Map();
  for (const node of document.querySelectorAll("script[data-figure]")) {
    specs.set(node.dataset.figure, node);
  }
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  // Figures take their colours of text, grid and ground from the page, in light, dark and print.
  function themed(layout) {
    const axis = { gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line") };
    const theme = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: style("--text"), size: 12 },
      hoverlabel: { bgcolor: style("--paper"), bordercolor: style("--line"), font: { color: style("--text") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--soft"), activecolor: style("--accent") },
    };
    const found = { hovermode: "closest", ...layout, ...theme };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) found[key] = { ...layout[key], ...axis };
    }
    return found;
  }

  function draw(element) {
    const node = specs.get(element.id);
    if (!node || element.dataset.drawn) return;
    element.dataset.drawn = "yes";
    const spec = JSON.parse(node.textContent);
    Plotly.newPlot(element, spec.data, themed(spec.layout), config);
  }

  const drawn = () => document.querySelectorAll(".figure[data-drawn]");
  function recolor() {
    for (const element of drawn()) Plotly.react(element, element.data, themed(element.layout), config);
  }

  // What is out of sight is drawn when it comes near: the page opens at once.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "300px" });
  for (const element of document.querySelectorAll(".figure")) watcher.observe(element);

  const tabs = [...document.querySelectorAll('[role="tab"]')];
  function select(chosen) {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
  }
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      select(next);
      next.focus();
    });
  });
  if (tabs.length) {
    document.documentElement.classList.add("scripted");
    select(tabs[0]);
  }

  for (const chooser of document.querySelectorAll("select.threshold")) {
    const section = chooser.closest("section");
    const rows = section.querySelectorAll("tbody tr");
    chooser.addEventListener("change", () => {
      rows.forEach((row, index) => row.classList.toggle("marked", index === chooser.selectedIndex));
      const plot = section.querySelector(".figure");
      draw(plot);
      const value = Number(chooser.value);
      Plotly.relayout(plot, { "shapes[0].x0": value, "shapes[0].x1": value });
    });
  }

  for (const input of document.querySelectorAll("input.filter")) {
    const section = input.closest("section");
    const rows = [...section.querySelectorAll("tbody tr")];
    const shown = section.querySelector(".shown");
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        count += !row.hidden;
      }
      shown.textContent = `${count} of ${rows.length} shown`;
    };
    input.addEventListener("input", apply);
    apply();
  }

  for (const radio of document.querySelectorAll("input.kind")) {
    radio.addEventListener("change", () => {
      for (const picture of radio.closest("section").querySelectorAll("figure")) {
        picture.hidden = radio.value !== "all" && picture.dataset.kind !== radio.value;
      }
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
  function setPrinting(on) {
    document.documentElement.classList.toggle("printing", on);
    // A print does not wait for a resize: what is drawn already is drawn anew at its new width.
    for (const element of drawn()) {
      const { data, layout } = element;
      Plotly.purge(element);
      Plotly.newPlot(element, data, themed({ ...layout, width: undefined }), config);
    }
    if (on) document.querySelectorAll(".figure").forEach(draw);
  }
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
})();
