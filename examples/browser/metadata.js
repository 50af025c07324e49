// SPDX-License-Identifier: Apache-2.0
// The metadata of an ONNX file, which onnxruntime-web does not give: field 14 of the file, a protocol buffer.

const METADATA = 14;
const LENGTH_DELIMITED = 2;

/** The metadata of an ONNX file (Uint8Array) as an object of strings. */
export function readMetadata(bytes) {
    const metadata = {};
    for (const [number, content] of fields(bytes)) {
        if (number === METADATA) {
            const [key, value] = [...fields(content)].map(([, text]) => new TextDecoder().decode(text));
            metadata[key] = value;
        }
    }
    return metadata;
}

/** The number and the content of each field of a message; the content of numbers is left out. */
function* fields(bytes) {
    let position = 0;

    function variableLengthNumber() {
        let value = 0;
        let factor = 1;
        while (bytes[position] >= 128) {
            value += (bytes[position++] - 128) * factor;
            factor *= 128;
        }
        return value + bytes[position++] * factor;
    }

    while (position < bytes.length) {
        const tag = variableLengthNumber();
        const kind = tag % 8;
        if (kind === 0) {
            variableLengthNumber();
        } else if (kind === LENGTH_DELIMITED) {
            const length = variableLengthNumber();
            yield [Math.floor(tag / 8), bytes.subarray(position, position + length)];
            position += length;
        } else {
            throw new Error("this is not an ONNX file");
        }
    }
}
