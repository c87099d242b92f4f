// Tables sort by their heads, the list of runs is searched, and paper shows what is folded. Texts are read, none is run.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const main = document.querySelector("main");

  // a copy of a report lies alone: what it would link to beside itself is not there
  const place = decodeURIComponent(location.pathname), home = `/${document.title}/report.html`;
  if (!place.endsWith(home)) for (const part of document.querySelectorAll(".beside")) part.hidden = true;

  const value = cell => {
    const text = cell.textContent.trim().replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1");
    return /^[-+]?[\d.]/.test(text) && !/^\d{4}-\d/.test(text) ? parseFloat(text) : text;
  };
  const order = (a, b) => {
    const numbers = (typeof a === "number") + (typeof b === "number");
    return numbers === 2 ? a - b : numbers ? (typeof a === "number" ? -1 : 1) : a.localeCompare(b, "en", {numeric: true});
  };
  const sort = (table, column, head) => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].map(row => [value(row.cells[column]), row]);
      rows.sort((a, b) => falling ? order(b[0], a[0]) : order(a[0], b[0]));
      body.append(...rows.map(pair => pair[1]));
    }
  };
  for (const table of main.querySelectorAll("table")) {
    const heads = table.tHead ? [...table.tHead.rows].map(row => row.cells) : [];
    const rows = [...table.tBodies].flatMap(body => [...body.rows]);
    const even = heads.length === 1 && rows.every(row => row.cells.length === heads[0].length);
    if (!even || rows.length < 3 || table.querySelector("[colspan], [rowspan]")) continue;
    [...heads[0]].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, column, head));
      head.append(button);
    });
  }
  for (const box of main.querySelectorAll(".scroll, .jp-OutputArea-output"))
    if (box.scrollHeight > box.clientHeight || box.scrollWidth > box.clientWidth) box.tabIndex = 0;

  const tools = document.querySelector("main > .tools");
  if (tools) {
    const [text, study, state] = tools.querySelectorAll("input, select"), said = tools.querySelector("output");
    const runs = [...main.querySelectorAll("tr[data-study]")];
    const look = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of runs) {
        const seen = row.textContent.toLowerCase();
        row.hidden = !(words.every(word => seen.includes(word)) && (!study.value || row.dataset.study === study.value)
                       && (!state.value || row.dataset.state === state.value));
      }
      const searched = Boolean(words.length || study.value || state.value);
      for (const folded of main.querySelectorAll("details"))
        folded.open = searched && [...folded.querySelectorAll("tr[data-study]")].some(row => !row.hidden);
      said.value = `${runs.filter(row => !row.hidden).length} of ${runs.length} runs`;
    };
    for (const tool of [text, study, state]) tool.addEventListener("input", look);
    document.addEventListener("keydown", event => {
      if (event.key === "/" && !/INPUT|SELECT/.test(event.target.tagName)) { event.preventDefault(); text.focus(); }
      if (event.key === "Escape" && event.target === text) { text.value = ""; look(); }
    });
    tools.hidden = false;
    look();
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const folded of opened) folded.open = true;
  });
  addEventListener("afterprint", () => { for (const folded of opened) folded.open = false; });
});
