/** Read a field from a file of the user; nothing leaves the device. */

import type { Picture } from "../detector/image";
import { CENTIMETRE, fromResolution, INCH } from "./pixelSize";
import { asPicture, FileError } from "./pixels";
import { readPng } from "./png";
import { micronsOfExif, readTiff } from "./tiff";

const LARGEST = 100e6; // px; the memory of a phone is small
const UNITS: Readonly<Record<number, number>> = { 1: INCH, 2: CENTIMETRE };
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
        const picture = await decode(content, file);
        if (picture.width * picture.height > LARGEST) {
            throw new FileError(
                `has ${picture.width} × ${picture.height} pixels; cut it into fields of at most 100 million`,
            );
        }
        return picture;
    } catch (error) {
        if (error instanceof FileError) throw error;
        throw new FileError(DAMAGED);
    }
}

async function decode(content: Uint8Array<ArrayBuffer>, file: Blob): Promise<Picture> {
    const starts = (...bytes: number[]) => bytes.every((byte, index) => content[index] === byte);
    if (starts(0x49, 0x49) || starts(0x4d, 0x4d)) return readTiff(content.buffer);
    if (starts(0x89, 0x50, 0x4e, 0x47)) return readPng(content);
    if (starts(0xff, 0xd8, 0xff)) return byBrowser(file, await micronsOfJpeg(content));
    if (starts(0x42, 0x4d)) return byBrowser(file, null);
    throw new FileError(NOT_READ);
}

/** Decode an image by the browser, upright, without a change of its colours. */
async function byBrowser(file: Blob, micronsPerPixel: number | null): Promise<Picture> {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    try {
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        if (!context) throw new FileError("needs more memory than this browser gives");
        context.drawImage(bitmap, 0, 0);
        const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
        return asPicture(bitmap.width, bitmap.height, data, 4, micronsPerPixel);
    } finally {
        bitmap.close();
    }
}

/** Return the pixel size that the header of a JPEG file gives, um; null if it gives none. */
export async function micronsOfJpeg(content: Uint8Array<ArrayBuffer>): Promise<number | null> {
    const view = new DataView(content.buffer);
    let position = 2;
    let fromExif: number | null = null;
    while (position + 4 <= content.length && content[position] === 0xff) {
        const marker = content[position + 1];
        if (marker === 0xda || marker === 0xd9) break; // the scan, or the end
        const length = view.getUint16(position + 2);
        const start = position + 4;
        const name = String.fromCharCode(...content.subarray(start, start + 4));
        if (marker === 0xe0 && name === "JFIF" && length >= 14) {
            const unit = UNITS[content[start + 7]];
            const microns = unit ? fromResolution(view.getUint16(start + 8), view.getUint16(start + 10), unit) : null;
            if (microns !== null) return microns;
        } else if (marker === 0xe1 && name === "Exif") {
            fromExif = await micronsOfExif(content.slice(start + 6, start + length - 2).buffer);
        }
        position += 2 + length;
    }
    return fromExif;
}
