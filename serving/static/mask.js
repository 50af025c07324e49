// SPDX-License-Identifier: Apache-2.0
// Masks as arrays, one byte for each pixel of the view, 1 inside; drawing on them, and files of them.

export class Mask {
  constructor(width, height, inside = new Uint8Array(width * height)) {
    this.width = width;
    this.height = height;
    this.inside = inside;
  }

  copy() {
    return new Mask(this.width, this.height, this.inside.slice());
  }

  get isEmpty() {
    return !this.inside.includes(1);
  }

  has(point) {
    const x = Math.floor(point.x), y = Math.floor(point.y);
    return x >= 0 && y >= 0 && x < this.width && y < this.height && this.inside[y * this.width + x] === 1;
  }

  // Set all pixels whose centres are within `radius` of the line between two points; at least those under it.
  drawLine(from, to, radius, value) {
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(0.5, radius / 3)));
    for (let i = 0; i <= steps; i++) {
      const share = i / steps;
      this.drawDisc(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius, value);
    }
  }

  drawDisc(x, y, radius, value) {
    const reach = Math.max(radius, 0.71); // a smaller disc may hold no pixel's centre
    const top = Math.max(0, Math.floor(y - reach)), bottom = Math.min(this.height - 1, Math.ceil(y + reach));
    for (let row = top; row <= bottom; row++) {
      const half = Math.sqrt(Math.max(0, reach * reach - (row + 0.5 - y) ** 2));
      const left = Math.max(0, Math.ceil(x - half - 0.5)), right = Math.min(this.width, Math.floor(x + half - 0.5) + 1);
      if (left < right) this.inside.fill(value, row * this.width + left, row * this.width + right);
    }
  }

  // The border between inside and outside, in pixels of the view, as lines along the edges of pixels.
  outline() {
    const { width, height, inside } = this;
    const path = new Path2D();
    const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height ? inside[y * width + x] : 0;
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x < width; x++) {
        const start = x;
        while (x < width && at(x, y) !== at(x, y - 1)) x++;
        if (x > start) addLine(path, start, y, x, y);
      }
    }
    for (let x = 0; x <= width; x++) {
      for (let y = 0; y < height; y++) {
        const start = y;
        while (y < height && at(x, y) !== at(x - 1, y)) y++;
        if (y > start) addLine(path, x, start, x, y);
      }
    }
    return path;
  }

  // A canvas with the inside in a colour "#rrggbb", transparent outside.
  tinted(colour) {
    const [canvas, context] = newCanvas(this.width, this.height);
    const image = context.createImageData(this.width, this.height);
    const pixels = new Uint32Array(image.data.buffer);
    const [red, green, blue] = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
    const pixel = new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
    for (let i = 0; i < pixels.length; i++) if (this.inside[i]) pixels[i] = pixel;
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // The mask as a PNG file, white on black.
  toFile() {
    const [canvas, context] = newCanvas(this.width, this.height);
    context.fillRect(0, 0, this.width, this.height);
    context.drawImage(this.tinted("#ffffff"), 0, 0);
    return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
  }
}

// The mask in a PNG file, at the size of the view.
export async function readMask(file, width, height) {
  const image = await createImageBitmap(file);
  const [canvas, context] = newCanvas(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  image.close();
  return fromPixels(context, width, height, 0);
}

// The area of a polygon of at least three points.
export function polygonMask(points, width, height) {
  const [, context] = newCanvas(width, height);
  context.beginPath();
  for (const { x, y } of points) context.lineTo(x, y);
  context.fill("evenodd");
  return fromPixels(context, width, height, 3);
}

function addLine(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}

function fromPixels(context, width, height, channel) {
  const { data } = context.getImageData(0, 0, width, height);
  const mask = new Mask(width, height);
  for (let i = 0; i < mask.inside.length; i++) mask.inside[i] = data[4 * i + channel] > 127 ? 1 : 0;
  return mask;
}

function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}
