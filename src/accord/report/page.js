"use strict";
// Read-outs under the pointer. The page is complete without this: it only adds what a still picture cannot show.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const SVG = "http://www.w3.org/2000/svg";

  const number = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 }));
  const line = (text, className) => {
    const element = document.createElement("span");
    element.textContent = text;
    element.className = className;
    return element;
  };

  let shown = null;

  function show(event, svg, children) {
    hide();
    shown = svg;
    svg.classList.add("reading");
    tip.replaceChildren(...children);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const above = event.clientY - box.height - 14;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above < 8 ? event.clientY + 18 : above}px`;
  }

  function hide() {
    tip.hidden = true;
    if (shown) shown.classList.remove("reading");
    shown = null;
  }

  function picture(index) {
    const svg = document.createElementNS(SVG, "svg");
    const { side, columns, crisp } = data.sprite;
    svg.setAttribute("viewBox", `${(index % columns) * side} ${Math.floor(index / columns) * side} ${side} ${side}`);
    svg.setAttribute("class", crisp ? "thumb crisp" : "thumb");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", "#sprite");
    svg.append(use);
    return svg;
  }

  // A finger leaves the page after each tap; what it chose stays until the page is scrolled or something else is chosen.
  function follow(svg, read) {
    svg.addEventListener("pointermove", read);
    svg.addEventListener("pointerdown", read);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  }

  function curves(chart) {
    const svg = document.getElementById(chart.id);
    const cursor = svg.querySelector(".cursor");
    const { left, right, width } = data.plot;
    const first = chart.x[0], last = chart.x[chart.x.length - 1];
    follow(svg, (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * width;
      const step = first + ((at - left) / (right - left)) * (last - first);
      let near = 0;
      chart.x.forEach((x, i) => { if (Math.abs(x - step) < Math.abs(chart.x[near] - step)) near = i; });
      const share = last > first ? (chart.x[near] - first) / (last - first) : 0.5;
      cursor.setAttribute("transform", `translate(${left + share * (right - left)})`);
      const values = chart.names.map((name, i) => line(`${name} ${number(chart.y[i][near])}`, "value"));
      show(event, svg, [line(`step ${number(chart.x[near])}`, "key"), ...values]);
    });
  }

  function map(points) {
    const svg = document.getElementById("map");
    const ring = svg.querySelector(".ring");
    const reach = 26;
    const nearest = (event) => {
      const tile = event.target.closest("[data-i]");
      if (tile) return Number(tile.getAttribute("data-i"));
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      let near = -1, best = reach * reach;
      points.x.forEach((px, i) => {
        const distance = (px - x) ** 2 + (points.y[i] - y) ** 2;
        if (distance < best) { best = distance; near = i; }
      });
      return near;
    };
    follow(svg, (event) => {
      const i = nearest(event);
      if (i < 0) { hide(); return; }
      ring.setAttribute("cx", points.x[i]);
      ring.setAttribute("cy", points.y[i]);
      const parts = [];
      if (data.sprite && points.thumbnail[i] >= 0) parts.push(picture(points.thumbnail[i]));
      if (points.label[i] >= 0) parts.push(line(data.classes[points.label[i]], "value"));
      parts.push(line(points.key[i], "key"));
      show(event, svg, parts);
    });
  }

  data.charts.forEach(curves);
  if (data.map) map(data.map);
  window.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
