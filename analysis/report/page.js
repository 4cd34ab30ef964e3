"use strict";

// Tables sort by what their columns say, numbers by value and words as a reader would; empty cells stay last both ways.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const EMPTY = new Set(["", "–", "-", "nan"]);
const NUMBER = /^(?:± ?)?([-+]?(?:∞|\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?))(?=$|[\s%×(\[]|x\b)/i;
const FILTERED_FROM = 12; // rows
const LONG = 40; // characters from which a cell is broken into lines
const VERDICTS = { "not confirmed": ["no", "✗"], confirmed: ["yes", "✓"], undecided: ["open", "?"], "not testable": ["open", "○"] };

const said = (cell) => cell.dataset.value ?? cell.textContent.trim();
const cells = (table, at) => [...table.tBodies[0].rows].map((row) => row.cells[at]);

function number(text) {
  const found = text.length <= LONG && NUMBER.exec(text.replaceAll("−", "-"));
  return found ? Number(found[1].replaceAll(",", "").replace("∞", "Infinity")) : null;
}

function value(cell, numeric) {
  const text = said(cell);
  return EMPTY.has(text) ? null : numeric ? number(text) : text;
}

function sort(heading) {
  const table = heading.closest("table");
  const numeric = heading.classList.contains("number");
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const keyed = cells(table, heading.cellIndex).map((cell) => [value(cell, numeric), cell.parentElement]);
  const compare = numeric ? (a, b) => (a === b ? 0 : a < b ? -1 : 1) : collator.compare;
  keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

// A row stays when it holds every word of the filter and, in each column with a choice, the chosen word.
function filter(block) {
  const words = (block.querySelector("input")?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const choices = [...block.querySelectorAll("select")].filter((one) => one.value);
  const rows = [...block.querySelector("tbody").rows];
  let left = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const kept =
      words.every((word) => text.includes(word)) &&
      choices.every((one) => said(row.cells[Number(one.dataset.column)]) === one.value);
    row.hidden = !kept;
    left += kept;
  }
  block.querySelector("output").textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
}

// A verdict is a word, a mark and a colour, and comes first, where the narrowest screen shows it.
function verdicts(table, at) {
  for (const cell of cells(table, at)) {
    const text = cell.textContent.trim();
    const known = Object.keys(VERDICTS).find((start) => text.toLowerCase().startsWith(start));
    cell.dataset.value = known ?? text;
    if (!known) continue;
    const [colour, mark] = VERDICTS[known];
    const badge = Object.assign(document.createElement("span"), { className: `verdict ${colour}`, textContent: ` ${text}` });
    badge.prepend(Object.assign(document.createElement("span"), { ariaHidden: "true", textContent: mark }));
    cell.replaceChildren(badge);
  }
}

function choice(table, at, title) {
  const counts = new Map();
  for (const cell of cells(table, at)) counts.set(said(cell), (counts.get(said(cell)) ?? 0) + 1);
  const select = document.createElement("select");
  select.dataset.column = at;
  select.add(new Option("all", ""));
  for (const word of [...counts.keys()].sort()) if (word) select.add(new Option(`${word} (${counts.get(word)})`, word));
  const label = Object.assign(document.createElement("label"), { textContent: `${title} ` });
  label.append(select);
  return label;
}

for (const block of document.querySelectorAll(".sortable")) {
  const table = block.querySelector("table");
  const titles = () => [...table.tHead.rows[0].cells].map((one) => one.textContent.trim().toLowerCase());
  const at = titles().indexOf("verdict");
  if (at > 0) for (const row of table.rows) row.prepend(row.cells[at]);
  if (at >= 0) table.classList.add("fits"); // whatever a verdict rests on is seen beside it
  const controls = Object.assign(document.createElement("p"), { className: "controls" });
  titles().forEach((title, column) => {
    if (title === "verdict") verdicts(table, column);
    if (title === "verdict" || title === "kind") controls.append(choice(table, column, title));
    const heading = table.tHead.rows[0].cells[column];
    const filled = new Set(cells(table, column).map(said).filter((text) => !EMPTY.has(text)));
    const numeric = [...filled].filter((text) => number(text) !== null).length * 2 > filled.size;
    for (const cell of [heading, ...cells(table, column)]) {
      if (cell !== heading) cell.dataset.label = title;
      if (numeric) cell.classList.add("number");
      else if (cell !== heading && cell.textContent.length > LONG) cell.classList.add("long");
    }
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading));
    heading.append(button);
  });
  if (table.tBodies[0].rows.length >= FILTERED_FROM) {
    const label = Object.assign(document.createElement("label"), { textContent: "filter " });
    label.append(Object.assign(document.createElement("input"), { type: "search", autocomplete: "off" }));
    controls.append(label);
  }
  if (controls.children.length) {
    const rows = `${table.tBodies[0].rows.length} rows`;
    controls.append(Object.assign(document.createElement("output"), { textContent: rows }));
    controls.addEventListener("input", () => filter(block));
    block.prepend(controls);
  }
}

// A picture fits its column; where that makes it smaller than it is, a button shows it as it is.
for (const button of document.querySelectorAll(".zoom")) {
  const box = button.previousElementSibling;
  const image = box.querySelector("img");
  const offer = () => {
    const full = box.classList.contains("full");
    button.hidden = !full && image.clientWidth >= Number(image.getAttribute("width"));
  };
  button.addEventListener("click", () => {
    const full = box.classList.toggle("full");
    button.setAttribute("aria-pressed", String(full));
    offer();
  });
  addEventListener("resize", offer);
  offer();
}
