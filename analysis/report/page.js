"use strict";

// Columns sort as they say: numbers by value, words as a reader would. Empty cells stay last both ways.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const EMPTY = new Set(["", "–", "-", "nan"]);

function value(cell, numeric) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (EMPTY.has(text)) return null;
  if (!numeric) return text;
  const number = text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
  return Number.isNaN(number) ? null : number;
}

function sort(heading) {
  const table = heading.closest("table");
  const body = table.tBodies[0];
  const numeric = heading.classList.contains("number");
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const keyed = [...body.rows].map((row) => [value(row.cells[heading.cellIndex], numeric), row]);
  const compare = numeric ? (a, b) => (a === b ? 0 : a < b ? -1 : 1) : collator.compare;
  keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  body.append(...keyed.map(([, row]) => row));
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
      choices.every((one) => row.cells[Number(one.dataset.column)].dataset.value === one.value);
    row.hidden = !kept;
    left += kept;
  }
  block.querySelector("output").textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
}

for (const heading of document.querySelectorAll(".sortable th")) {
  heading.querySelector("button").addEventListener("click", () => sort(heading));
}
for (const controls of document.querySelectorAll(".controls")) {
  controls.hidden = false;
  controls.addEventListener("input", () => filter(controls.parentElement));
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
