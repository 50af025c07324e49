// SPDX-License-Identifier: Apache-2.0
// The photo with its instances on a canvas: tools to draw masks with, by mouse, touch or keyboard, and undo.
//
// An instance is {mask, file, on}: its mask at the view's size, the file that it came from (null once it was drawn on),
// and whether it is to be translated. Instances are never changed, only replaced, so that undo can keep earlier ones.

import { Mask, polygonMask } from "./mask.js";

const LEAST_BOX = 3; // pixels of the screen; less is a click
const CLOSE = 10; // pixels of the screen: a click this near to a polygon's first point closes it
const MOST_UNDO = 50;
const RIM = "rgba(0, 0, 0, .75)";

export class Editor {
  // `onChange()` follows every change of the instances or of what is being drawn; `onBox(box)` asks for the object in a
  // box [x0, y0, x1, y1] of the view; `onHint(text)` says why nothing was drawn.
  constructor(canvas, { onChange, onBox, onHint }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onChange = onChange;
    this.onBox = onBox;
    this.onHint = onHint;
    this.colours = [];
    this.tool = "box";
    this.brush = 0.03; // its radius, as a share of the view's longer side
    this.close();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // --- photo and instances ---

  open(picture, width, height) {
    this.close();
    this.picture = picture;
    this.width = width;
    this.height = height;
    this.cursor = { x: width / 2, y: height / 2 };
    this.canvas.parentElement.style.setProperty("--shape", width / height);
    this.changed();
  }

  close() {
    this.picture = null;
    this.state = { instances: [], selected: -1 };
    this.past = [];
    this.future = [];
    this.draft = null; // what is being drawn: {box: [start, end]}, {points: [...]} or {mask, at}
    this.waiting = []; // boxes whose objects are being looked for
    this.byKeyboard = false;
    this.cache = new WeakMap(); // outlines and tinted canvases by mask
  }

  get instances() {
    return this.state.instances;
  }

  get selected() {
    return this.state.selected;
  }

  add(...added) {
    const instances = [...this.instances, ...added];
    this.change({ instances, selected: instances.length - 1 });
  }

  remove(index) {
    this.change({ instances: this.instances.filter((_, i) => i !== index), selected: -1 });
  }

  switchOn(index, on) {
    this.replace(index, { ...this.instances[index], on });
  }

  // Choosing an instance changes nothing that would need an undo.
  select(index) {
    this.state = { ...this.state, selected: index };
    this.changed();
  }

  replace(index, instance) {
    this.change({ instances: this.instances.map((old, i) => i === index ? instance : old), selected: index });
  }

  change(state) {
    this.past = [...this.past, this.state].slice(-MOST_UNDO);
    this.future = [];
    this.state = state;
    this.changed();
  }

  undo() {
    this.step(this.past, this.future);
  }

  redo() {
    this.step(this.future, this.past);
  }

  step(from, to) {
    this.giveUp();
    if (!from.length) return;
    to.push(this.state);
    this.state = from.pop();
    this.changed();
  }

  changed() {
    this.draw();
    this.onChange();
  }

  // --- tools: each begins, moves and ends at points of the view ---

  setTool(tool) {
    this.giveUp();
    this.tool = tool;
    this.changed();
  }

  begin(point) {
    if (this.tool === "box") this.draft = { box: [point, point] };
    else if (this.tool === "polygon") this.addPoint(point);
    else this.beginStroke(point);
    this.changed();
  }

  move(point) {
    this.cursor = point;
    if (this.draft?.box) this.draft.box[1] = point;
    if (this.draft?.mask) {
      this.draft.mask.drawLine(this.draft.at, point, this.radius, this.tool === "brush" ? 1 : 0);
      this.cache.delete(this.draft.mask);
      this.draft.at = point;
    }
    this.draw();
  }

  end(point) {
    this.move(point);
    const draft = this.draft;
    if (draft?.points) return;
    this.draft = null;
    if (draft?.box) this.endBox(draft.box);
    if (draft?.mask) this.endStroke(draft.mask);
    this.changed();
  }

  giveUp() {
    this.draft = null;
    this.changed();
  }

  get radius() {
    return this.brush * Math.max(this.width, this.height);
  }

  // Pixels of the view in one of the screen.
  get pixel() {
    return this.width / Math.max(1, this.canvas.clientWidth);
  }

  endBox([start, end]) {
    const size = Math.min(Math.abs(end.x - start.x), Math.abs(end.y - start.y));
    if (size >= LEAST_BOX * this.pixel) {
      const [x0, x1] = [start.x, end.x].sort((a, b) => a - b);
      const [y0, y1] = [start.y, end.y].sort((a, b) => a - b);
      this.onBox([x0, y0, x1, y1]);
      return;
    }
    const clicked = this.instances.findIndex(instance => instance.mask.has(start));
    this.select(clicked);
    if (clicked < 0) this.onHint("That was a click. Drag from one corner to the other, closely around an instance.");
  }

  beginStroke(point) {
    const instance = this.instances[this.selected];
    if (this.tool === "eraser" && !instance) {
      this.onHint("Choose in the list which instance to erase from.");
      return;
    }
    this.draft = { mask: instance ? instance.mask.copy() : new Mask(this.width, this.height), at: point };
    this.move(point);
  }

  endStroke(mask) {
    const index = this.selected;
    if (mask.isEmpty && index >= 0) this.remove(index);
    else if (mask.isEmpty) return;
    else if (index >= 0) this.replace(index, { mask, file: null, on: this.instances[index].on });
    else this.add({ mask, file: null, on: true });
  }

  addPoint(point) {
    const points = this.draft?.points ?? [];
    const isNear = points.length && Math.hypot(points[0].x - point.x, points[0].y - point.y) < CLOSE * this.pixel;
    if (isNear && points.length > 2) this.closePolygon();
    else if (!isNear) this.draft = { points: [...points, point] };
  }

  get canClose() {
    return this.draft?.points?.length > 2;
  }

  closePolygon() {
    const mask = polygonMask(this.draft.points, this.width, this.height);
    this.draft = null;
    if (mask.isEmpty) this.onHint("That polygon has no area.");
    else this.add({ mask, file: null, on: true });
    this.changed();
  }

  // --- mouse, touch, keyboard ---

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", event => {
      if (!this.picture || event.button !== 0 || !event.isPrimary) return;
      this.byKeyboard = false;
      canvas.setPointerCapture(event.pointerId);
      this.begin(this.pointOf(event));
    });
    canvas.addEventListener("pointermove", event => {
      if (!this.picture || !event.isPrimary) return;
      for (const moved of event.getCoalescedEvents?.() ?? []) this.move(this.pointOf(moved));
      this.move(this.pointOf(event));
    });
    canvas.addEventListener("pointerup", event => {
      if (this.draft && event.isPrimary) this.end(this.pointOf(event));
    });
    // a second finger: the browser zooms
    canvas.addEventListener("pointercancel", () => this.giveUp());
    canvas.addEventListener("pointerleave", () => { this.cursor = this.byKeyboard ? this.cursor : null; this.draw(); });
    canvas.addEventListener("keydown", event => {
      if (this.picture && !event.ctrlKey && !event.metaKey && !event.altKey && this.key(event)) event.preventDefault();
    });
  }

  // Act on a key; returns whether it is one of ours.
  key(event) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    this.cursor ??= { x: this.width / 2, y: this.height / 2 };
    if (direction) {
      this.byKeyboard = true;
      const step = event.shiftKey ? 1 : Math.max(1, Math.max(this.width, this.height) / 40);
      this.move(this.within(this.cursor.x + direction[0] * step, this.cursor.y + direction[1] * step));
    } else if (event.key === "Enter" || event.key === " ") {
      this.byKeyboard = true;
      if (this.draft && !this.draft.points) this.end(this.cursor);
      else this.begin(this.cursor);
    } else if (event.key === "Escape") {
      this.giveUp();
    } else if (event.key === "Delete" && this.selected >= 0) {
      this.remove(this.selected);
    } else {
      return false;
    }
    return true;
  }

  pointOf(event) {
    const place = this.canvas.getBoundingClientRect();
    const x = (event.clientX - place.left) / place.width * this.width;
    const y = (event.clientY - place.top) / place.height * this.height;
    return this.within(x, y);
  }

  within(x, y) {
    return { x: Math.min(Math.max(x, 0), this.width), y: Math.min(Math.max(y, 0), this.height) };
  }

  // --- drawing, once per frame ---

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.picture && this.canvas.clientWidth) this.paint();
    });
  }

  paint() {
    const { canvas, context } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const scale = width / this.width;
    context.setTransform(scale, 0, 0, height / this.height, 0, 0);
    this.line = ratio / scale; // a pixel of the screen
    context.drawImage(this.picture, 0, 0, this.width, this.height);
    this.instances.forEach((instance, i) => {
      const isStroke = this.draft?.mask && i === this.selected;
      this.paintMask(isStroke ? this.draft.mask : instance.mask, i, instance.on);
    });
    if (this.draft?.mask && this.selected < 0) this.paintMask(this.draft.mask, this.instances.length, true);
    for (const box of this.waiting) this.paintPath(boxPath(box), "#fff", true);
    this.paintDraft();
    this.paintCursor();
  }

  paintMask(mask, number, on) {
    const { context } = this;
    const colour = this.colours[number % this.colours.length];
    let drawn = this.cache.get(mask);
    if (drawn?.colour !== colour) {
      drawn = { colour, outline: mask.outline(), tinted: mask.tinted(colour) };
      this.cache.set(mask, drawn);
    }
    if (on) {
      context.imageSmoothingEnabled = false;
      context.globalAlpha = number === this.selected ? 0.45 : 0.25;
      context.drawImage(drawn.tinted, 0, 0);
      context.globalAlpha = 1;
      context.imageSmoothingEnabled = true;
    }
    this.paintPath(drawn.outline, colour, !on);
  }

  paintPath(path, colour, dashed = false) {
    const { context } = this;
    context.lineCap = dashed ? "butt" : "square";
    context.setLineDash([]);
    context.strokeStyle = RIM;
    context.lineWidth = 4 * this.line;
    if (!dashed) context.stroke(path);
    if (dashed) context.setLineDash([5 * this.line, 4 * this.line]);
    context.strokeStyle = colour;
    context.lineWidth = 2 * this.line;
    context.stroke(path);
    context.setLineDash([]);
  }

  paintDraft() {
    if (this.draft?.box) {
      const [start, end] = this.draft.box;
      this.paintPath(boxPath([start.x, start.y, end.x, end.y]), "#fff");
    }
    if (this.draft?.points) {
      const path = new Path2D();
      for (const { x, y } of this.draft.points) path.lineTo(x, y);
      if (this.cursor) path.lineTo(this.cursor.x, this.cursor.y);
      this.paintPath(path, "#fff");
      for (const { x, y } of this.draft.points) this.paintPath(circle(x, y, 3 * this.line), "#fff");
    }
  }

  paintCursor() {
    if (!this.cursor) return;
    const { x, y } = this.cursor;
    if (this.tool === "brush" || this.tool === "eraser") this.paintPath(circle(x, y, this.radius), "#fff");
    if (!this.byKeyboard) return;
    const cross = new Path2D();
    const arm = 9 * this.line;
    cross.moveTo(x - arm, y), cross.lineTo(x + arm, y), cross.moveTo(x, y - arm), cross.lineTo(x, y + arm);
    this.paintPath(cross, "#fff");
  }
}

function boxPath([x0, y0, x1, y1]) {
  const path = new Path2D();
  path.rect(x0, y0, x1 - x0, y1 - y0);
  return path;
}

function circle(x, y, radius) {
  const path = new Path2D();
  path.arc(x, y, radius, 0, 2 * Math.PI);
  return path;
}
