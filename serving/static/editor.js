// SPDX-License-Identifier: Apache-2.0
// The photo with its instances on a canvas: tools to draw masks with, by mouse, touch or keyboard, and undo.
//
// An instance is {mask, file, on}: its mask at the view's size, the file that it came from (null once it was drawn on),
// and whether it is to be translated. Instances are never changed, only replaced, so that undo can keep earlier ones.

import { Mask, polygonMask } from "./mask.js";

const LEAST_BOX = 3; // pixels of the screen; less is a click
const CLOSE = 10; // pixels of the screen: a click this near to a polygon's first point closes it
const MOST_UNDO = 50;
const MOST_PIXELS = 2048; // of the canvas's longer side: twice the largest view, for sharp outlines, and no more memory
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
    this.most = Infinity; // instances in a photo
    this.marks = true; // false for a model without masks: none are shown, and none can be drawn
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
    // what is being drawn: {box: [start, end]}, {points: [...]} or {mask, at, index}; a stroke's `index` is that of the
    // instance that it changes, -1 for a new one
    this.draft = null;
    this.draftBefore = null; // the draft when the pointer that is down went down
    this.waiting = []; // boxes whose objects are being looked for
    this.byKeyboard = false;
    this.cache = new Map(); // outlines and tinted canvases of the masks that are shown
  }

  get instances() {
    return this.state.instances;
  }

  get selected() {
    return this.state.selected;
  }

  // Those beyond the most that a photo may have are left out. The last one is chosen, unless something is being drawn.
  add(...added) {
    const taken = added.slice(0, Math.max(0, this.most - this.instances.length));
    if (taken.length < added.length) {
      this.onHint(`A photo can have ${this.most} instances; delete one to make room for another.`);
    }
    if (!taken.length) return;
    const instances = [...this.instances, ...taken];
    this.change({ instances, selected: this.draft ? this.selected : instances.length - 1 });
  }

  remove(index) {
    // a stroke's index may no longer be right
    if (this.draft?.mask) this.draft = null;
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

  get canUndo() {
    return this.draft !== null || this.past.length > 0;
  }

  get canRedo() {
    return this.draft === null && this.future.length > 0;
  }

  // While something is being drawn: takes back a polygon's last point, or what is drawn with the other tools.
  undo() {
    const points = this.draft?.points ?? [];
    if (points.length > 1) {
      this.draft = { points: points.slice(0, -1) };
      this.changed();
    } else if (this.draft) {
      this.giveUp();
    } else {
      this.step(this.past, this.future);
    }
  }

  redo() {
    if (this.canRedo) this.step(this.future, this.past);
  }

  step(from, to) {
    if (!from.length) return;
    to.push(this.state);
    this.state = from.pop();
    this.changed();
  }

  changed() {
    this.draw();
    this.onChange();
  }

  // Show instances and let them be drawn, or only show the photo.
  setMarks(marks) {
    this.marks = marks;
    if (!marks) this.giveUp();
    this.draw();
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
    if (draft?.mask) this.endStroke(draft);
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
    const mask = instance ? instance.mask.copy() : new Mask(this.width, this.height);
    this.draft = { mask, at: point, index: this.selected };
    this.move(point);
  }

  // `index` is the instance that was chosen when the stroke began; others may have been added since.
  endStroke({ mask, index }) {
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
      if (!this.picture || !this.marks || event.button !== 0 || !event.isPrimary) return;
      this.byKeyboard = false;
      this.draftBefore = this.draft;
      canvas.setPointerCapture(event.pointerId);
      this.begin(this.pointOf(event));
    });
    canvas.addEventListener("pointermove", event => {
      if (!this.picture || !event.isPrimary) return;
      // the button was released where this page did not see it
      if (!event.buttons && !this.byKeyboard && this.draft && !this.draft.points) this.giveUp();
      for (const moved of event.getCoalescedEvents?.() ?? []) this.move(this.pointOf(moved));
      this.move(this.pointOf(event));
    });
    canvas.addEventListener("pointerup", event => {
      if (this.draft && event.isPrimary) this.end(this.pointOf(event));
    });
    // a second finger: the browser zooms
    canvas.addEventListener("pointercancel", event => {
      if (event.isPrimary) this.cancelPointer();
    });
    canvas.addEventListener("pointerleave", () => { this.cursor = this.byKeyboard ? this.cursor : null; this.draw(); });
    canvas.addEventListener("keydown", event => {
      if (!this.picture || !this.marks || event.ctrlKey || event.metaKey || event.altKey) return;
      if (this.key(event)) event.preventDefault();
    });
  }

  // Take back what the pointer has done since it went down: of a polygon, one point.
  cancelPointer() {
    this.draft = this.draft?.points ? this.draftBefore : null;
    this.changed();
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
    const longer = Math.max(canvas.clientWidth, canvas.clientHeight);
    const ratio = Math.min(window.devicePixelRatio || 1, MOST_PIXELS / longer);
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const scale = width / this.width;
    context.setTransform(scale, 0, 0, height / this.height, 0, 0);
    this.line = ratio / scale; // a pixel of the screen
    context.drawImage(this.picture, 0, 0, this.width, this.height);
    if (!this.marks) return;
    this.paintMasks();
    for (const box of this.waiting) this.paintPath(boxPath(box), "#fff", true);
    this.paintDraft();
    this.paintCursor();
  }

  paintMasks() {
    const { mask: stroke, index } = this.draft ?? {};
    const shown = this.instances.map(({ mask, on }, i) => ({ mask: stroke && i === index ? stroke : mask, on }));
    if (stroke && index < 0) shown.push({ mask: stroke, on: true });
    const masks = new Set(shown.map(({ mask }) => mask));
    // each tinted canvas takes up to 4 MB: those that only undo may bring back are made again
    for (const mask of this.cache.keys()) if (!masks.has(mask)) this.cache.delete(mask);
    shown.forEach(({ mask, on }, i) => this.paintMask(mask, i, on));
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
    cross.moveTo(x - arm, y);
    cross.lineTo(x + arm, y);
    cross.moveTo(x, y - arm);
    cross.lineTo(x, y + arm);
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
