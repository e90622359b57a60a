"use strict";
// The read-out: values of all curves at the point under the pointer, or under the arrow keys.
for (const figure of document.querySelectorAll(".chart")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot"), cursor = figure.querySelector(".cursor");
  const values = [...figure.querySelectorAll(".value")], at = figure.querySelector(".at");
  const [low, high, logarithmic] = data.x;
  const share = x => logarithmic ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low);
  const value = s => logarithmic ? low * (high / low) ** s : low + s * (high - low);
  const across = [...new Set(data.series.flatMap(series => series.x))].sort((one, other) => one - other);
  const last = values.map(each => each.textContent);
  let place = -1;

  const nearest = (list, x) => {
    let first = 0, end = list.length - 1;
    while (end - first > 1) {
      const middle = (first + end) >> 1;
      if (list[middle] <= x) first = middle; else end = middle;
    }
    return Math.abs(share(list[first]) - share(x)) <= Math.abs(share(list[end]) - share(x)) ? first : end;
  };
  const short = y => y === null ? "not finite"
    : Math.abs(y) >= 1e4 ? y.toLocaleString("en", {maximumFractionDigits: 0}) : String(Number(y.toPrecision(5)));

  const show = next => {
    place = Math.min(Math.max(next, 0), across.length - 1);
    const x = across[place];
    cursor.hidden = false;
    cursor.style.left = 100 * share(x) + "%";
    let step = null;
    data.series.forEach((series, number) => {
      if (!series.x.length) return;
      const found = nearest(series.x, x);
      values[number].textContent = short(series.y[found]);
      if (series.x[found] === x && series.step.length) step = series.step[found];
    });
    at.textContent = (step === null ? "" : "step " + step.toLocaleString("en") + ", ") + short(x) + " " + figure.querySelector(".across").textContent;
  };
  const rest = () => {
    cursor.hidden = true;
    at.textContent = "";
    values.forEach((each, number) => { each.textContent = last[number]; });
    place = -1;
  };
  const point = event => {
    const box = plot.getBoundingClientRect();
    show(nearest(across, value((event.clientX - box.left) / box.width)));
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", rest);
  figure.addEventListener("blur", rest);
  figure.addEventListener("keydown", event => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    event.preventDefault();
    show(place < 0 ? across.length - 1 : place + by);
  });
}
