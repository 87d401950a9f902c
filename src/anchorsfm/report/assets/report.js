"use strict";
/* Sorting and filtering of the contact sheet, reading of the match matrix, choosing an image everywhere. */
(() => {
  const lookup = JSON.parse(document.getElementById("lookup").textContent), images = lookup.images;
  const tools = document.getElementById("sheet-tools"), sheet = document.querySelector("#images .sheet");
  const cards = [...sheet.children];
  const numeric = (name, sign) => (a, b) => {
    const [x, y] = [a.dataset[name], b.dataset[name]].map((v) => (v === "" ? NaN : sign * Number(v)));
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return x - y;
  };
  const orders = {
    row: numeric("row", 1), points: numeric("points", 1), error: numeric("error", -1), position: numeric("position", -1),
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }),
  };
  function arrange() {
    const wanted = tools.find.value.trim().toLowerCase(), show = tools.show.value;
    let count = 0;
    for (const card of cards) {
      const text = `${card.dataset.name} ${card.dataset.reason}`.toLowerCase(), status = card.dataset.status;
      const kind = !show || status === show || (show === "in" && status === "weak");
      card.hidden = !(kind && text.includes(wanted));
      count += !card.hidden;
    }
    sheet.append(...[...cards].sort((a, b) => orders[tools.sort.value](a, b) || a.dataset.row - b.dataset.row));
    tools.querySelector("output").textContent = count === cards.length ? "" : `${count} of ${cards.length}`;
  }
  tools.addEventListener("input", arrange);
  tools.addEventListener("submit", (event) => event.preventDefault());

  const choose = (image, from) => document.dispatchEvent(new CustomEvent("choose", { detail: { image, from } }));
  document.addEventListener("choose", ({ detail }) => {
    for (const old of document.querySelectorAll(".chosen:not(.trial)")) old.classList.remove("chosen");
    if (detail.image < 0) return;
    document.getElementById(`image-${detail.image}`)?.classList.add("chosen");
    for (const node of document.querySelectorAll(`.node[data-image="${detail.image}"]`)) node.classList.add("chosen");
  });
  for (const card of cards) card.addEventListener("click", () => choose(Number(card.dataset.row), "sheet"));
  for (const node of document.querySelectorAll(".node")) node.addEventListener("click", () => choose(Number(node.dataset.image), "graph"));

  const matrix = document.getElementById("matrix"), read = document.getElementById("pair"), pairs = lookup.pairs;
  const rest = read.textContent, row = new Map(pairs.i.map((i, k) => [`${i} ${pairs.j[k]}`, k]));
  matrix.addEventListener("pointermove", (event) => {
    const box = matrix.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * matrix.naturalWidth);
    const y = Math.floor((event.clientY - box.top) / box.height * matrix.naturalHeight);
    const k = row.get(`${Math.min(x, y)} ${Math.max(x, y)}`);
    if (!images[x] || !images[y]) return;
    const found = x === y ? "the same image" : k === undefined ? "not looked at"
      : `${pairs.statuses[pairs.status[k]]}, ${pairs.matches[k].toLocaleString("en")} verified matches`;
    read.textContent = `${images[y].name} and ${images[x].name}: ${found}`;
  });
  matrix.addEventListener("pointerleave", () => { read.textContent = rest; });

  for (const details of document.querySelectorAll("details")) {
    addEventListener("beforeprint", () => { details.dataset.open = details.open; details.open = true; });
    addEventListener("afterprint", () => { details.open = details.dataset.open === "true"; });
  }
})();
