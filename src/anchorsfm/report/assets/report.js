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
  for (const card of cards)
    for (const kind of ["click", "focusin"]) card.addEventListener(kind, () => choose(Number(card.dataset.row), "sheet"));
  for (const node of document.querySelectorAll(".node")) node.addEventListener("click", () => choose(Number(node.dataset.image), "graph"));

  const matrix = document.getElementById("matrix"), read = document.getElementById("pair"), pairs = lookup.pairs;
  const rest = read.textContent, row = new Map(pairs.i.map((i, k) => [`${i} ${pairs.j[k]}`, k]));
  const count = (value) => value.toLocaleString("en");
  const told = (cell) => `${images[cell[0]].name} and ${images[cell[1]].name}: ${found(...cell)}`;
  function cellAt(event) {
    const box = matrix.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * matrix.naturalWidth);
    const y = Math.floor((event.clientY - box.top) / box.height * matrix.naturalHeight);
    return images[x] && images[y] ? [Math.min(x, y), Math.max(x, y)] : null;
  }
  const by = (k) => pairs.method.length && pairs.method[k] >= 0 ? ` by ${pairs.methods[pairs.method[k]]}` : "";
  function found(a, b) {
    const k = row.get(`${a} ${b}`);
    return a === b ? "the same image" : k === undefined ? "not looked at"
      : `${pairs.statuses[pairs.status[k]]}, ${count(pairs.matches[k])} verified matches${by(k)}`;
  }
  matrix.addEventListener("pointermove", (event) => {
    const cell = cellAt(event);
    if (cell) read.textContent = told(cell);
  });
  matrix.addEventListener("pointerleave", () => { read.textContent = rest; });

  const large = document.getElementById("large"), shown = large.querySelector(".shown");
  function show(title, picture, text) {
    document.getElementById("large-title").textContent = title;
    shown.replaceChildren(picture);
    large.querySelector(".hint").textContent = text;
    if (!large.open) large.showModal();
  }
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  large.addEventListener("close", () => { stepping = null; });

  /* Photographs and depth maps; arrow keys go on to the next of those that are listed. */
  let stepping = null;
  function enlarge(button) {
    const card = button.closest(".card"), picture = new Image();
    stepping = button;
    picture.src = button.querySelector("img").src;
    picture.alt = button.querySelector("img").alt || card.dataset.name;
    show(picture.alt, picture, [...card.querySelectorAll(".badges, .reason, dt")].map((part) =>
      part.tagName === "DT" ? `${part.textContent} ${part.nextElementSibling.textContent}` : part.textContent).join(", "));
  }
  for (const button of document.querySelectorAll(".enlarge")) button.addEventListener("click", () => enlarge(button));
  large.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !stepping) return;
    const all = [...stepping.closest(".sheet").querySelectorAll(".card:not([hidden]) .enlarge")];
    const next = all[all.indexOf(stepping) + step];
    if (next) enlarge(next);
    event.preventDefault();
  });

  /* Two photographs with lines between the places of points that both see. */
  const matches = JSON.parse(document.getElementById("common").textContent);
  const places = new Uint16Array(Uint8Array.from(atob(matches.xy), (c) => c.charCodeAt(0)).buffer);
  const starts = new Map();
  matches.count.reduce((at, n, k) => { starts.set(`${matches.i[k]} ${matches.j[k]}`, [k, at]); return at + 4 * n; }, 0);
  function svg(name, attributes, parent) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent?.append(made);
    return made;
  }
  function pairPicture(cell, k, at) {
    const beside = innerWidth > innerHeight, gap = 12, side = 1000;
    const frames = cell.map((image) => {
      const [w, h] = images[image].wh;
      return beside ? { w: w / h * side, h: side, x: 0, y: 0 } : { w: side, h: h / w * side, x: 0, y: 0 };
    });
    if (beside) frames[1].x = frames[0].w + gap; else frames[1].y = frames[0].h + gap;
    const picture = svg("svg", { viewBox: `0 0 ${frames[1].x + frames[1].w} ${frames[1].y + frames[1].h}`, role: "img", "aria-label": "Matches" });
    cell.forEach((image, side) => {
      const { x, y, w, h } = frames[side], source = document.querySelector(`#image-${image} .enlarge img`);
      if (source) svg("image", { href: source.src, x, y, width: w, height: h, preserveAspectRatio: "none" }, picture);
      else svg("rect", { class: "frame", x, y, width: w, height: h }, picture);
    });
    const number = k === undefined ? 0 : matches.count[k];
    for (let n = 0; n < number; n++) {
      const [x1, y1, x2, y2] = [0, 1, 2, 3].map((c) => {
        const frame = frames[c >> 1], share = places[at + 4 * n + c] / 65535;
        return (c & 1 ? frame.y + share * frame.h : frame.x + share * frame.w).toFixed(1);
      });
      const stroke = `hsl(${Math.round(300 * n / Math.max(number - 1, 1))} 90% 60%)`;
      svg("line", { class: "match wide", x1, y1, x2, y2 }, picture);
      svg("line", { class: "match", stroke, x1, y1, x2, y2 }, picture);
      for (const [cx, cy] of [[x1, y1], [x2, y2]]) svg("circle", { fill: stroke, cx, cy, r: 6 }, picture);
    }
    return picture;
  }
  function showPair(cell) {
    if (!cell || cell[0] === cell[1]) return;
    const [k, at] = starts.get(cell.join(" ")) ?? [];
    const common = k === undefined ? "no points of a model that both see, or too few among so many pairs"
      : `${count(matches.shared[k])} points of the model that both see, ${count(matches.count[k])} of them drawn`;
    show(`${images[cell[0]].name} and ${images[cell[1]].name}`, pairPicture(cell, k, at), `${found(...cell)}; ${common}`);
  }
  matrix.addEventListener("click", (event) => showPair(cellAt(event)));

  /* By keyboard one cell is a button, which keys put elsewhere: a new one each time, so that screen readers read it. */
  const grid = matrix.parentElement, side = Number(matrix.getAttribute("width"));
  const within = (value) => Math.min(Math.max(value, 0), side - 1);
  const steps = {
    ArrowLeft: (x, y) => [x - 1, y], ArrowRight: (x, y) => [x + 1, y], ArrowUp: (x, y) => [x, y - 1], ArrowDown: (x, y) => [x, y + 1],
    Home: (x, y) => [0, y], End: (x, y) => [side - 1, y], PageUp: (x, y) => [x, y - 10], PageDown: (x, y) => [x, y + 10],
  };
  function place(x, y) {
    const line = document.createElement("div"), button = document.createElement("button");
    const cell = [Math.min(x, y), Math.max(x, y)], share = 100 / side;
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", y + 1);
    button.type = "button";
    button.className = "cell";
    button.setAttribute("role", "gridcell");
    button.setAttribute("aria-colindex", x + 1);
    button.setAttribute("aria-label", told(cell));
    Object.assign(button.style, { left: `${x * share}%`, top: `${y * share}%`, width: `${share}%`, height: `${share}%` });
    button.addEventListener("click", () => showPair(cell));
    button.addEventListener("focus", () => { read.textContent = told(cell); });
    button.addEventListener("blur", () => { read.textContent = rest; });
    button.addEventListener("keydown", (event) => {
      if (!steps[event.key]) return;
      event.preventDefault();
      const next = place(...steps[event.key](x, y).map(within));
      grid.append(next);
      next.firstChild.focus();
      line.remove();
    });
    line.append(button);
    return line;
  }
  if (side > 1) {
    for (const [name, value] of [["role", "grid"], ["aria-label", `${matrix.alt}; Enter shows the matches`], ["aria-rowcount", side], ["aria-colcount", side]])
      grid.setAttribute(name, value);
    matrix.alt = "";
    grid.append(place(1, 0));
  }
})();
