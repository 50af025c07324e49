// SPDX-License-Identifier: Apache-2.0
// The page: choose a model and a picture, mark instances, and see the translation.

import { Translator } from "./translator.js";

const COLOURS = ["#ffd400", "#00d0ff", "#ff60d0", "#60ff60"];
const BRUSH = 0.06; // its width, as a share of the picture's

const element = (id) => document.getElementById(id);
const before = element("before");
const after = element("after");

let translator = null;
let picture = null; // ImageData
let masks = []; // a canvas for each instance, opaque inside
let start = null; // where the pointer went down (of the brush: where it was last), in pixels of the picture

/** Show what an action comes to, or why it fails. */
async function report(action) {
    try {
        element("message").textContent = (await action()) || "";
    } catch (error) {
        element("message").textContent = `That failed: ${error.message}`;
    }
    element("translate").disabled = translator === null;
}

async function useModel(bytes) {
    translator = await Translator.load(new Uint8Array(bytes));
    for (const canvas of [before, after]) {
        canvas.width = translator.width;
        canvas.height = translator.height;
    }
    drawSample();
    return `${translator.direction}, ${translator.width} pixels wide and ${translator.height} high`;
}

/** Take what `draw` draws on a canvas context of the model's size as the picture. */
function usePicture(draw) {
    if (translator === null) {
        throw new Error("choose a model first");
    }
    const context = newCanvas().getContext("2d");
    draw(context);
    picture = context.getImageData(0, 0, translator.width, translator.height);
    after.getContext("2d").clearRect(0, 0, after.width, after.height);
    removeMarks();
}

/** Three red discs on a gradient, as in the shapes data set. */
function drawSample() {
    usePicture((context) => {
        const { width, height } = translator;
        const gradient = context.createLinearGradient(0, 0, width, height);
        gradient.addColorStop(0, "#8a9a5b");
        gradient.addColorStop(1, "#d8c8a0");
        context.fillStyle = gradient;
        context.fillRect(0, 0, width, height);
        context.fillStyle = "#c82828";
        for (const [x, y, radius] of [[0.3, 0.3, 0.14], [0.72, 0.4, 0.1], [0.45, 0.75, 0.12]]) {
            context.beginPath();
            context.arc(x * width, y * height, radius * Math.min(width, height), 0, 2 * Math.PI);
            context.fill();
        }
    });
}

function newCanvas() {
    return Object.assign(document.createElement("canvas"), { width: translator.width, height: translator.height });
}

function removeMarks() {
    masks = [];
    show();
}

function newInstance() {
    masks.push(newCanvas());
}

/** Show the picture with its masks over it. */
function show() {
    const context = before.getContext("2d");
    context.putImageData(picture, 0, 0);
    context.globalAlpha = 0.4;
    masks.forEach((mask) => context.drawImage(mask, 0, 0));
    context.globalAlpha = 1;
}

/** Draw what the tool does between `start` and where the pointer is. */
function mark(end) {
    const mask = masks[masks.length - 1];
    const context = mask.getContext("2d");
    context.fillStyle = COLOURS[(masks.length - 1) % COLOURS.length];
    context.beginPath();
    if (element("tool").value === "brush") {
        context.strokeStyle = context.fillStyle;
        context.lineWidth = Math.max(2, BRUSH * mask.width);
        context.lineCap = "round";
        context.moveTo(start.x, start.y);
        context.lineTo(end.x, end.y);
        context.stroke();
        start = end;
    } else {
        context.clearRect(0, 0, mask.width, mask.height);
        const [width, height] = [end.x - start.x, end.y - start.y];
        if (element("tool").value === "box") {
            context.rect(start.x, start.y, width, height);
        } else {
            const centre = [start.x + width / 2, start.y + height / 2];
            context.ellipse(...centre, Math.abs(width) / 2, Math.abs(height) / 2, 0, 0, 2 * Math.PI);
        }
    }
    context.fill();
    show();
}

function position(event) {
    const area = before.getBoundingClientRect();
    const scale = before.width / area.width;
    return { x: Math.round((event.clientX - area.left) * scale), y: Math.round((event.clientY - area.top) * scale) };
}

/** A mask as a Uint8Array, 1 where its canvas is at least half covered. */
function inside(mask) {
    const { data } = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);
    return Uint8Array.from({ length: mask.width * mask.height }, (_, i) => (data[4 * i + 3] >= 128 ? 1 : 0));
}

before.addEventListener("pointerdown", (event) => {
    if (picture === null) {
        return;
    }
    start = position(event);
    // strokes of the brush add to the last instance; a box or an ellipse is one of its own
    if (masks.length === 0 || element("tool").value !== "brush") {
        newInstance();
    }
    before.setPointerCapture(event.pointerId);
    mark(start);
});
before.addEventListener("pointermove", (event) => start && mark(position(event)));
before.addEventListener("pointerup", () => (start = null));
before.addEventListener("pointercancel", () => (start = null));

element("model").addEventListener("change", (event) =>
    report(async () => useModel(await event.target.files[0].arrayBuffer())));
element("picture").addEventListener("change", (event) =>
    report(async () => {
        const image = await createImageBitmap(event.target.files[0]);
        usePicture((context) => context.drawImage(image, 0, 0, translator.width, translator.height));
    }));
element("sample").addEventListener("click", () => report(drawSample));
element("next").addEventListener("click", () => report(newInstance));
element("clear").addEventListener("click", () => report(removeMarks));
element("translate").addEventListener("click", () =>
    report(async () => {
        element("message").textContent = "translating ...";
        element("translate").disabled = true;
        const began = performance.now();
        after.getContext("2d").putImageData(await translator.translate(picture, masks.map(inside)), 0, 0);
        return `translated in ${((performance.now() - began) / 1000).toFixed(1)} s`;
    }));

report(async () => {
    const response = await fetch("model.onnx");
    return response.ok ? useModel(await response.arrayBuffer()) : "choose a model";
});
