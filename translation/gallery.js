// SPDX-License-Identifier: Apache-2.0
"use strict";
document.documentElement.classList.add("scripted");
const cards = [...document.querySelectorAll("article")];
const [filter, count, viewer, shown] =
  ["filter", "count", "viewer", "shown"].map(name => document.getElementById(name));

function choose() {
  const wanted = filter.value.toLowerCase();
  for (const card of cards) card.hidden = !card.dataset.name.toLowerCase().includes(wanted);
  count.value = `${cards.filter(card => !card.hidden).length} of ${cards.length}`;
}

function lay(slider) {
  const picture = slider.parentElement;
  if (!picture.querySelector(".over")) {
    // made when it is first used, so that a page of a thousand pictures stays small
    const over = document.createElement("span");
    over.className = "over";
    over.append(...slider.closest(".pair").querySelector("a").cloneNode(true).children);
    over.firstChild.alt = "";
    picture.querySelector("a").append(over);
  }
  picture.style.setProperty("--laid", `${slider.value}%`);
}

for (const image of document.querySelectorAll(".pair img[width]"))
  image.closest("figure").style.setProperty("--shape", image.getAttribute("width") / image.getAttribute("height"));

document.addEventListener("input", event => {
  if (event.target === filter) choose();
  if (event.target.type === "range") lay(event.target);
});

let current = 0; // of the cards that the filter leaves

function show(index) {
  const left = cards.filter(card => !card.hidden);
  current = (index + left.length) % left.length;
  shown.replaceChildren(left[current].cloneNode(true));
  if (!viewer.open) viewer.showModal();
}

document.addEventListener("click", event => {
  const link = event.target.closest(".gallery .picture a");
  // with a key held, a browser opens the file in another tab
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  show(cards.filter(card => !card.hidden).indexOf(link.closest("article")));
});
document.getElementById("previous").addEventListener("click", () => show(current - 1));
document.getElementById("next").addEventListener("click", () => show(current + 1));
document.getElementById("toggle").addEventListener("click", () => document.getElementById("outlines").click());
// beside the dialog
viewer.addEventListener("click", event => { if (event.target === viewer) viewer.close(); });
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && event.target.type !== "range") show(current + step);
});
choose();
