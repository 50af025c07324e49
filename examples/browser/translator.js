// SPDX-License-Identifier: Apache-2.0
// Translate a picture with a model of export.py, as examples/onnx_translate.py does.

import * as ort from "./onnxruntime/ort.wasm.min.mjs";
import { readMetadata } from "./metadata.js";

// more threads need a server that sends the headers of cross-origin isolation
ort.env.wasm.numThreads = 1;

export class Translator {
    /** Load an ONNX file (Uint8Array). */
    static async load(bytes) {
        const settings = readMetadata(bytes);
        if (!settings.ins_per) {
            throw new Error("this is not a model of export.py");
        }
        return new Translator(await ort.InferenceSession.create(bytes), settings);
    }

    constructor(session, settings) {
        this.session = session;
        this.direction = settings.direction;
        this.height = Number(settings.height);
        this.width = Number(settings.width);
        this.insPer = Number(settings.ins_per);
    }

    /**
     * Translate a picture (ImageData of the model's size) and the instances of its masks (Uint8Arrays, 1 inside), the
     * largest first; returns an ImageData. Empty masks are left out.
     */
    async translate(image, masks) {
        const area = (mask) => mask.reduce((sum, inside) => sum + inside, 0);
        const order = masks.filter((mask) => area(mask) > 0).sort((a, b) => area(b) - area(a));
        let picture = fromImage(image);
        if (this.insPer === 0) {
            // trained without masks: the network wants one, so it gets an empty one
            picture = await this.pass(picture, [new Uint8Array(this.height * this.width)]);
        } else {
            for (let start = 0; start < order.length; start += this.insPer) {
                picture = await this.pass(picture, order.slice(start, start + this.insPer));
            }
        }
        return toImage(picture, this.width, this.height);
    }

    /** One pass over a picture (3 * H * W floats in [-1, 1]); returns the translated one. */
    async pass(picture, masks) {
        const pixels = this.height * this.width;
        const set = new Float32Array(masks.length * pixels);
        masks.forEach((mask, i) => set.set(Float32Array.from(mask, (inside) => 2 * inside - 1), i * pixels));
        const result = await this.session.run({
            picture: new ort.Tensor("float32", picture, [1, 3, this.height, this.width]),
            masks: new ort.Tensor("float32", set, [masks.length, 1, this.height, this.width]),
        });
        return result.translated_picture.data;
    }
}

function fromImage(image) {
    const pixels = image.width * image.height;
    return Float32Array.from({ length: 3 * pixels }, (_, i) => {
        const channel = Math.floor(i / pixels);
        return image.data[4 * (i % pixels) + channel] / 127.5 - 1;
    });
}

function toImage(picture, width, height) {
    const image = new ImageData(width, height);
    const pixels = width * height;
    for (let i = 0; i < pixels; i++) {
        for (let channel = 0; channel < 3; channel++) {
            // the array clips and rounds
            image.data[4 * i + channel] = (picture[channel * pixels + i] + 1) * 127.5;
        }
        image.data[4 * i + 3] = 255;
    }
    return image;
}
