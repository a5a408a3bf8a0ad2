/** Read a field from a file of the user; nothing leaves the device. */

import type { Picture } from "../detector/image";
import { decodeByBrowser, NO_MEMORY } from "./browser";
import { CENTIMETRE, fromResolution, INCH, METRE } from "./pixelSize";
import { asPicture, checkShape, FileError } from "./pixels";
import { readPng } from "./png";
import { readExif, readTiff } from "./tiff";

const UNITS: Readonly<Record<number, number>> = { 1: INCH, 2: CENTIMETRE };
const COLOURS: Readonly<Record<number, string>> = { 1: "a grey image", 4: "CMYK" };
const NOT_READ = "is not a TIFF, PNG, JPEG or BMP image";
const DAMAGED = "is damaged or truncated; copy it again";

/**
 * Read a TIFF, PNG, JPEG or BMP image; its first bytes say which it is.
 *
 * @throws FileError it is none of them, damaged, or no field.
 */
export async function readPicture(file: Blob): Promise<Picture> {
    const content = new Uint8Array(await file.arrayBuffer());
    try {
        return await decode(content, file);
    } catch (error) {
        if (error instanceof FileError) throw error;
        const isMemory = error instanceof RangeError && /alloc|array length/i.test(error.message);
        throw new FileError(isMemory ? NO_MEMORY : DAMAGED);
    }
}

async function decode(content: Uint8Array<ArrayBuffer>, file: Blob): Promise<Picture> {
    const starts = (...bytes: number[]) => bytes.every((byte, index) => content[index] === byte);
    if (starts(0x49, 0x49) || starts(0x4d, 0x4d)) return readTiff(content.buffer);
    if (starts(0x89, 0x50, 0x4e, 0x47)) return readPng(content);
    if (starts(0xff, 0xd8, 0xff)) return byBrowser(file, await readJpegHeader(content));
    if (starts(0x42, 0x4d)) return byBrowser(file, readBmpHeader(content));
    throw new FileError(NOT_READ);
}

async function byBrowser(file: Blob, micronsPerPixel: number | null): Promise<Picture> {
    const { width, height, data } = await decodeByBrowser(file);
    return asPicture(width, height, data, 4, micronsPerPixel);
}

/**
 * Return the pixel size that the header of a JPEG file gives, um; null if it gives none.
 *
 * @throws FileError the file is too large, or not RGB.
 */
async function readJpegHeader(content: Uint8Array<ArrayBuffer>): Promise<number | null> {
    const view = new DataView(content.buffer);
    let [fromJfif, fromExif]: (number | null)[] = [null, null];
    for (let position = 2; position + 4 <= content.length && content[position] === 0xff; ) {
        const marker = content[position + 1];
        if (marker === 0xff) {
            position++; // a fill byte
            continue;
        }
        if (marker === 0xda || marker === 0xd9) break; // the scan, or the end
        const length = view.getUint16(position + 2);
        const start = position + 4;
        const name = String.fromCharCode(...content.subarray(start, start + 4));
        if (marker === 0xe0 && name === "JFIF" && length >= 14) {
            const unit = UNITS[content[start + 7]];
            fromJfif = unit ? fromResolution(view.getUint16(start + 8), view.getUint16(start + 10), unit) : null;
        } else if (marker === 0xe1 && name === "Exif") {
            fromExif = (await readExif(content.slice(start + 6, start + length - 2).buffer)).microns;
        } else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
            checkShape(view.getUint16(start + 3), view.getUint16(start + 1));
            const colours = COLOURS[content[start + 5]];
            if (colours) throw new FileError(`is ${colours}; fields must be 8-bit RGB`);
        }
        position += 2 + length;
    }
    return fromJfif ?? fromExif;
}

function readBmpHeader(content: Uint8Array<ArrayBuffer>): number | null {
    const view = new DataView(content.buffer);
    if (view.getUint32(14, true) < 40 || view.getUint16(28, true) !== 24) {
        throw new FileError("is a BMP of another kind than 24-bit RGB; save it as PNG");
    }
    checkShape(Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true)));
    return fromResolution(view.getInt32(38, true), view.getInt32(42, true), METRE);
}
