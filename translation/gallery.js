// SPDX-License-Identifier: Apache-2.0
"use strict";
document.documentElement.classList.add("scripted");
const cards = [...document.querySelectorAll("article")];
const filter = document.getElementById("filter");
const count = document.getElementById("count");
const viewer = document.getElementById("viewer");
const enlarged = document.getElementById("enlarged");

function matchingCards() {
  return cards.filter(card => !card.hidden);
}

function applyFilter() {
  const text = filter.value.toLowerCase();
  for (const card of cards) card.hidden = !card.dataset.name.toLowerCase().includes(text);
  count.value = `${matchingCards().length} of ${cards.length}`;
}

function moveSlider(slider) {
  const picture = slider.parentElement;
  if (!picture.querySelector(".over")) {
    // created on first use, so that a page of a thousand pictures stays small
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
  if (event.target === filter) applyFilter();
  if (event.target.type === "range") moveSlider(event.target);
});

let current = 0; // index of the enlarged card among those that match the filter

function enlarge(index) {
  const matching = matchingCards();
  current = (index + matching.length) % matching.length;
  enlarged.replaceChildren(matching[current].cloneNode(true));
  if (!viewer.open) viewer.showModal();
}

document.addEventListener("click", event => {
  const link = event.target.closest(".gallery .picture a");
  // with a key held, browsers open the file in another tab
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  enlarge(matchingCards().indexOf(link.closest("article")));
});
document.getElementById("previous").addEventListener("click", () => enlarge(current - 1));
document.getElementById("next").addEventListener("click", () => enlarge(current + 1));
document.getElementById("toggle").addEventListener("click", () => document.getElementById("outlines").click());
// a click beside the dialog
viewer.addEventListener("click", event => { if (event.target === viewer) viewer.close(); });
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && event.target.type !== "range") enlarge(current + step);
});
applyFilter();
