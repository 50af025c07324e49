// SPDX-License-Identifier: Apache-2.0
// The page: a photo is chosen, its instances marked (editor.js), translated by the server (server.js), and compared.

import { Editor } from "./editor.js";
import { readMask } from "./mask.js";
import { cancelJob, decodeBase64, follow, getBlob, getJson, post, sentence } from "./server.js";

const $ = id => document.getElementById(id);
const ZOOMS = [1, 1.5, 2, 3, 4];
const MOST_RESULTS = 30; // of the history; older ones go
const HINTS = {
  box: "Drag a box closely around each instance; the instance is found inside it.",
  brush: "Paint over an instance. The chosen one grows; with none chosen, a new one begins.",
  eraser: "Wipe away what does not belong to the chosen instance.",
  polygon: "Click around an instance; click the first point again to close it.",
};

let about; // of the server: models, samples, colours, limits
let photo = null; // what the server says about the uploaded photo, and its `file`
let newestTurn = 0; // counts the photos that were chosen, of which only the newest is opened
let job = null; // the translation that runs
let isCancelled = false; // whether its user has cancelled it, maybe before the server has it
let shown = null; // the entry of the history that is shown
const results = [];

const editor = new Editor($("canvas"), { onChange: showInstances, onBox: findInBox, onHint: hint });

// --- messages ---

function notify(text) {
  $("notice-text").textContent = text;
  $("notice").hidden = !text;
}

function hint(text) {
  $("hint").textContent = text;
}

// For screen readers, which do not see what changes.
function announce(text) {
  $("status").textContent = text;
}

// Run something that may fail: its error is shown.
async function attempt(action) {
  notify("");
  try {
    return await action();
  } catch (error) {
    notify(error.message);
  }
}

// --- choosing a photo ---

// Open a photo; returns false if another one was chosen in the meantime.
async function openPhoto(file, turn = ++newestTurn) {
  announce("Reading the photo");
  $("choose").textContent = "Reading…";
  try {
    const uploaded = await upload(file);
    const picture = await createImageBitmap(await getBlob(uploaded.view));
    if (turn !== newestTurn) return false;
    photo = { ...uploaded, file };
    editor.open(picture, uploaded.view_width, uploaded.view_height);
  } catch (error) {
    if (turn !== newestTurn) return false;
    throw error;
  } finally {
    if (turn === newestTurn) $("choose").textContent = "Choose a photo…";
  }
  shown = null;
  showWork();
  zoom(0);
  showView("mark");
  setHint();
  announce(`${photo.name}, ${photo.width} by ${photo.height} pixels. ${$("hint").textContent}`);
  $("canvas").focus({ preventScroll: true });
  return true;
}

function upload(file) {
  return post("/api/pictures", { image: { blob: file, name: file.name || "pasted.png" } });
}

// Send a request about a photo: `ask(id)`. If the server has dropped the photo, it is uploaded again first.
async function askAbout(current, ask) {
  try {
    return await ask(current.id);
  } catch (error) {
    if (error.status !== 404) throw error;
    current.id = (await upload(current.file)).id;
    return ask(current.id);
  }
}

async function openSample(sample) {
  const turn = ++newestTurn;
  const masks = await Promise.all(sample.masks.map(getBlob));
  const isOpen = await openPhoto(new File([await getBlob(sample.picture)], `${sample.name}.png`), turn);
  if (!isOpen) return;
  // another model may have been chosen in the meantime
  if (currentModel().name === sample.model) selectDirection(sample.direction);
  await addFound({ masks: masks.map((blob, i) => ({ blob, name: `${i}.png` })) }, masks);
  if (turn === newestTurn && currentModel().needs_masks) hint("The instances are marked already: translate them, or change them first.");
}

function openFirst(files) {
  const file = [...files].find(one => one.type.startsWith("image/") || /\.tiff?$/i.test(one.name)) ?? files[0];
  if (file) attempt(() => openPhoto(file));
}

function showWork() {
  $("start").hidden = true;
  $("work").hidden = $("another").hidden = false;
  $("another").textContent = "Another photo…";
}

// Choose another photo, or go back to the one before.
function leaveOrReturn() {
  if ($("work").hidden) {
    showWork();
    editor.draw();
    return;
  }
  $("work").hidden = true;
  $("start").hidden = false;
  $("another").textContent = `Back to ${photo?.name ?? "the result"}`;
  notify("");
  $("choose").focus();
}

// --- instances ---

// Have the server find instances in the photo, and add them. `files` are those to send again for the translation, where
// the masks were files already.
async function addFound(fields, files = null) {
  const current = photo;
  const { masks, remarks } = await askAbout(current, id => post(`/api/pictures/${id}/instances`, fields));
  const instances = await Promise.all(masks.map(async (base64, i) => {
    const found = decodeBase64(base64);
    const mask = await readMask(found, current.view_width, current.view_height);
    return { mask, file: files?.[i] ?? found, on: true };
  }));
  // another photo may have been opened in the meantime
  if (photo !== current) return;
  const visible = instances.filter(instance => !instance.mask.isEmpty);
  const before = editor.instances.length;
  if (visible.length) editor.add(...visible);
  if (visible.length < instances.length) remarks.push("A mask without any white pixel was left out");
  if (remarks.length) notify(remarks.map(sentence).join(" "));
  announce(`${editor.instances.length - before} added, ${editor.instances.length} instances now`);
}

async function findInBox(box) {
  const scale = photo.width / photo.view_width;
  const [x0, y0, x1, y1] = box.map(side => side * scale);
  const whole = [Math.floor(x0), Math.floor(y0), Math.ceil(x1), Math.ceil(y1)];
  editor.waiting.push(box);
  await attempt(() => addFound({ boxes: JSON.stringify([whole]) }));
  editor.waiting = editor.waiting.filter(one => one !== box);
  editor.draw();
}

function showInstances() {
  const { instances, selected } = editor;
  $("no-instances").hidden = instances.length > 0;
  const focused = document.activeElement?.dataset?.action;
  $("instances").replaceChildren(...instances.map((instance, i) => instanceRow(instance, i, i === selected)));
  if (focused) document.querySelector(`#instances [data-action="${focused}"]`)?.focus();
  $("undo").disabled = !editor.canUndo;
  $("redo").disabled = !editor.canRedo;
  $("new-instance").hidden = selected < 0;
  $("close-polygon").hidden = !editor.canClose;
  $("brush-size").hidden = editor.tool !== "brush" && editor.tool !== "eraser";
}

function instanceRow(instance, i, isSelected) {
  const number = i + 1;
  const row = element("li", { className: instance.on ? "" : "off" });
  if (isSelected) row.setAttribute("aria-current", "true");
  const swatch = element("span", { className: "swatch" });
  swatch.style.setProperty("--colour", editor.colours[i]);
  const name = element("button", { type: "button", className: "name" }, swatch, `Instance ${number}`);
  name.setAttribute("aria-pressed", isSelected);
  name.addEventListener("click", () => editor.select(isSelected ? -1 : i));
  const on = element("input", { type: "checkbox", checked: instance.on });
  on.setAttribute("aria-label", `Translate instance ${number}`);
  on.addEventListener("change", () => editor.switchOn(i, on.checked));
  const remove = element("button", { type: "button", className: "delete", title: "Delete" }, "✕");
  remove.setAttribute("aria-label", `Delete instance ${number}`);
  remove.addEventListener("click", () => editor.remove(i));
  // found again after the rows have been made again
  [name, on, remove].forEach((control, kind) => { control.dataset.action = `${kind}-${i}`; });
  row.append(name, element("label", { title: "Translate it" }, on), remove);
  return row;
}

function setHint() {
  hint(currentModel().needs_masks ? HINTS[editor.tool] : "This model translates whole pictures; there is nothing to mark.");
}

function zoom(step) {
  const current = Number($("frame").style.getPropertyValue("--zoom")) || 1;
  const index = step ? Math.min(Math.max(ZOOMS.indexOf(current) + step, 0), ZOOMS.length - 1) : 0;
  $("frame").style.setProperty("--zoom", ZOOMS[index]);
  $("zoom-out").disabled = index === 0;
  $("zoom-in").disabled = index === ZOOMS.length - 1;
}

// --- models and directions ---

function currentModel() {
  return about.models.find(model => model.name === $("model").value) ?? about.models[0];
}

function showModel() {
  const { directions, name, needs_masks: needsMasks } = currentModel();
  document.body.classList.toggle("whole-pictures", !needsMasks);
  editor.setMarks(needsMasks);
  const rows = directions.map(({ direction, from, to }) => {
    const choice = element("input", { type: "radio", name: "direction", value: direction });
    return element("label", {}, choice, `${from} → ${to}`);
  });
  $("direction-list").replaceChildren(...rows);
  selectDirection(directions[0].direction);
  const samples = about.samples.filter(sample => sample.model === name);
  $("samples").hidden = !samples.length;
  $("sample-list").replaceChildren(...samples.map(sample => {
    const { from, to } = directions.find(one => one.direction === sample.direction);
    const image = element("img", { src: sample.picture, alt: `Sample ${sample.name}`, loading: "lazy" });
    const button = element("button", { type: "button" }, image, `${from} → ${to}`);
    button.addEventListener("click", () => attempt(() => openSample(sample)));
    return element("li", {}, button);
  }));
  setHint();
}

function selectDirection(direction) {
  for (const choice of document.getElementsByName("direction")) choice.checked = choice.value === direction;
}

function selectedDirection() {
  return [...document.getElementsByName("direction")].find(choice => choice.checked).value;
}

// --- translating ---

async function translate() {
  const { instances } = editor;
  const current = photo;
  const model = currentModel();
  const select = instances.flatMap((instance, i) => instance.on ? [i] : []);
  if (model.needs_masks && !instances.length) throw new Error("Mark an instance first: drag a box around it.");
  if (model.needs_masks && !select.length) throw new Error("All instances are switched off; switch one on.");
  const fields = { model: model.name, direction: selectedDirection() };
  isCancelled = false;
  showProgress("Sending…", null);
  try {
    if (model.needs_masks) {
      const files = await Promise.all(instances.map(instance => instance.file ?? instance.mask.toFile()));
      fields.masks = files.map((blob, i) => ({ blob, name: `${i}.png` }));
      fields.select = JSON.stringify(select);
    }
    job = await askAbout(current, id => post("/api/translate", { ...fields, picture: id }));
    if (isCancelled) await cancelJob(job.id);
    const ended = await follow(job, showState);
    if (ended.state === "failed") throw new Error(sentence(ended.error));
    if (ended.state === "cancelled") announce("Cancelled");
    if (ended.state === "done") await addResult(ended, current);
  } catch (error) {
    // one that had ended just before it was cancelled has been deleted
    if (!isCancelled || error.status !== 404) throw error;
    announce("Cancelled");
  } finally {
    job = null;
    $("progress").hidden = true;
    $("translate").hidden = false;
  }
}

function cancel() {
  isCancelled = true;
  showProgress("Cancelling…", null);
  if (job) cancelJob(job.id);
}

function showState({ state, position, done, total }) {
  if (isCancelled) {
    showProgress("Cancelling…", null);
  } else if (state === "queued") {
    showProgress(position ? `Waiting: ${position} before this one` : "Starting…", null);
  } else if (total) {
    showProgress(`Translating: ${done} of ${total} instances done`, done / total);
  } else if (total === 0) {
    showProgress("Translating…", null);
  } else {
    showProgress("Reading photo and masks…", null);
  }
}

function showProgress(text, share) {
  if ($("progress-text").textContent !== text) announce(text);
  $("progress-text").textContent = text;
  if (share === null) $("bar").removeAttribute("value");
  else $("bar").value = share;
  $("progress").hidden = false;
  $("translate").hidden = true;
}

// --- results ---

// Add the result of a photo's translation, and show it unless its user has gone on to something else.
async function addResult(ended, translated) {
  const { result } = ended;
  const names = ["before", "after", "outlines_before", "outlines_after"].filter(name => result[name]);
  const urls = await Promise.all(names.map(async name => [name, URL.createObjectURL(await getBlob(result[name]))]));
  const entry = { job: ended, views: Object.fromEntries(urls) };
  results.push(entry);
  for (const old of results.splice(0, results.length - MOST_RESULTS)) Object.values(old.views).forEach(URL.revokeObjectURL);
  $("history").hidden = false;
  if (photo !== translated || editor.draft || $("work").hidden) {
    showHistory();
    announce(`${ended.name} is translated: see the results of this visit`);
    return;
  }
  await showResult(entry);
  $("result-text").focus({ preventScroll: true });
  if ($("stage").getBoundingClientRect().top < 0) $("stage").scrollIntoView();
}

async function showResult(entry) {
  shown = entry;
  $("views").hidden = false;
  const { job: ended, views } = entry;
  const { result } = ended;
  const ready = [];
  for (const [id, name] of [["before", "before"], ["after", "after"], ["outlines-before", "outlines_before"], ["outlines-after", "outlines_after"]]) {
    $(id).hidden = !views[name];
    if (!views[name]) continue;
    $(id).src = views[name];
    ready.push($(id).decode());
  }
  // nothing jumps once it is shown
  await Promise.all(ready).catch(() => {});
  if (shown !== entry) return;
  $("compare").style.setProperty("--shape", $("before").naturalWidth / $("before").naturalHeight);
  const count = result.masks.length;
  const seconds = ended.seconds < 10 ? ended.seconds.toFixed(1) : Math.round(ended.seconds);
  $("result-text").textContent = `${ended.name}, ${directionText(ended)}: ` +
    (currentOf(ended).needs_masks ? `${count} instance${count === 1 ? "" : "s"} in ${seconds} s.` : `${seconds} s.`);
  announce($("result-text").textContent);
  $("remarks").replaceChildren(...ended.remarks.map(remark => element("li", {}, sentence(remark))));
  $("download-picture").href = result.picture;
  $("download-picture").download = `${ended.name}_${ended.direction}.png`;
  $("download-all").href = result.archive;
  $("download-all").download = `${ended.name}_${ended.direction}.zip`;
  // numbered as the list numbers the instances
  const links = result.masks.map(({ number, mask }) =>
    element("a", { href: mask, download: `${ended.name}_${number + 1}.png` }, `mask ${number + 1}`));
  $("download-masks").replaceChildren("Masks of the new instances: ", ...links);
  $("download-masks").hidden = !count;
  showHistory();
  showWork();
  $("mark-tab").disabled = !photo;
  showView("result");
  slide(50);
}

// Save the file behind a link. The browser alone would not say why there is none any more.
async function download(link) {
  let blob;
  try {
    blob = await getBlob(link.href);
  } catch (error) {
    if (error.status !== 404) throw error;
    throw new Error("This result has expired: the server keeps none for long. Translate again to download it.");
  }
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: link.download }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function showHistory() {
  const rows = [...results].reverse().map(entry => {
    const image = element("img", { src: entry.views.after, alt: "" });
    const button = element("button", { type: "button" }, image, `${entry.job.name}, ${directionText(entry.job)}`);
    if (entry === shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      showResult(entry);
      $("stage").scrollIntoView({ block: "nearest" });
    });
    return element("li", {}, button);
  });
  $("history-list").replaceChildren(...rows);
}

function currentOf(ended) {
  return about.models.find(model => model.name === ended.model);
}

function directionText(ended) {
  const { from, to } = currentOf(ended).directions.find(one => one.direction === ended.direction);
  return `${from} → ${to}`;
}

function showView(view) {
  for (const name of ["mark", "result"]) {
    $(`${name}-view`).hidden = name !== view;
    $(`${name}-tab`).setAttribute("aria-selected", name === view);
  }
  if (view === "mark") editor.draw();
}

function slide(value) {
  $("slide").value = value;
  $("compare").style.setProperty("--at", `${value}%`);
}

function slideTo(event) {
  const place = $("compare").getBoundingClientRect();
  slide(Math.min(100, Math.max(0, (event.clientX - place.left) / place.width * 100)));
}

function showOutlines() {
  for (const image of document.querySelectorAll(".outline")) image.classList.toggle("unseen", !$("outlines").checked);
}

// --- small things ---

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function listen() {
  const on = (id, kind, act) => $(id).addEventListener(kind, act);
  on("notice-close", "click", () => notify(""));
  on("choose", "click", () => $("photo-file").click());
  on("another", "click", leaveOrReturn);
  on("photo-file", "change", () => { openFirst($("photo-file").files); $("photo-file").value = ""; });
  on("model", "change", showModel);
  on("undo", "click", () => editor.undo());
  on("redo", "click", () => editor.redo());
  on("close-polygon", "click", () => editor.closePolygon());
  on("size", "input", () => { editor.brush = (Number($("size").value) / 100) ** 2 / 4 + 0.002; editor.draw(); });
  on("zoom-in", "click", () => zoom(1));
  on("zoom-out", "click", () => zoom(-1));
  for (const tool of document.getElementsByName("tool")) {
    tool.addEventListener("change", () => { editor.setTool(tool.value); setHint(); });
  }
  on("new-instance", "click", () => {
    editor.select(-1);
    $("tools").querySelector("[value=brush]").click();
  });
  on("segment", "click", () => attempt(() => addFound({ segment: selectedDirection()[0] })));
  on("add-masks", "click", () => $("mask-file").click());
  on("mask-file", "change", () => {
    const files = [...$("mask-file").files];
    $("mask-file").value = "";
    attempt(() => addFound({ masks: files.map(blob => ({ blob, name: blob.name })) }, files));
  });
  on("translate", "click", () => attempt(translate));
  on("cancel", "click", cancel);
  on("mark-tab", "click", () => showView("mark"));
  on("result-tab", "click", () => showView("result"));
  on("slide", "input", () => slide(Number($("slide").value)));
  on("compare", "pointerdown", event => { $("compare").setPointerCapture(event.pointerId); slideTo(event); });
  on("compare", "pointermove", event => { if (event.buttons) slideTo(event); });
  on("outlines", "change", showOutlines);
  on("result-view", "click", event => {
    const link = event.target.closest("a[download]");
    if (!link) return;
    event.preventDefault();
    attempt(() => download(link));
  });
  addEventListener("pagehide", () => job && cancelJob(job.id));
  addEventListener("paste", event => openFirst(event.clipboardData.files));
  addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("dragging"); });
  addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", event => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    openFirst(event.dataTransfer.files);
  });
  addEventListener("keydown", event => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
    if (!photo || !editor.marks || $("work").hidden || $("mark-view").hidden) return;
    event.preventDefault();
    if (event.shiftKey) editor.redo();
    else editor.undo();
  });
}

async function start() {
  listen();
  about = await getJson("/api/about");
  editor.colours = about.colours;
  editor.most = about.limits.instances;
  $("model").replaceChildren(...about.models.map(({ name }) => element("option", { value: name }, name)));
  $("model-choice").hidden = about.models.length < 2;
  $("model-name").textContent = about.models.length < 2 ? `Model ${about.models[0].name}` : "";
  $("segment").hidden = !about.segmenter;
  showModel();
  showInstances();
  showOutlines();
}

attempt(start);
