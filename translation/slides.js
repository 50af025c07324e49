// SPDX-License-Identifier: Apache-2.0
"use strict";
document.documentElement.classList.add("scripted");

function show(slider) {
  const box = slider.closest(".slides");
  const [caption, url] = JSON.parse(box.dataset.slides)[slider.value];
  box.querySelector("img").src = url;
  box.querySelector("img").alt = `${box.dataset.name}, ${caption}`;
  box.querySelector("a").href = url;
  box.querySelector("figcaption").textContent = caption;
  slider.setAttribute("aria-valuetext", caption);
}

for (const slider of document.querySelectorAll(".slides input"))
  slider.addEventListener("input", () => show(slider));
