/**
 * PNG files, with exact pixels.
 *
 * A browser's own decoder changes them where a file is transparent or describes its colours.
 */

import { convertIndexedToRgb, decode, ResolutionUnitSpecifier } from "fast-png";
import type { Picture } from "../detector/image";
import { fromResolution, METRE } from "./pixelSize";
import { asPicture, checkShape, FileError } from "./pixels";
import { readExif } from "./tiff";

/**
 * Read an 8-bit RGB image, with or without transparency, or one with a palette.
 *
 * @throws Error it is damaged, or of another kind.
 */
export async function readPng(content: Uint8Array<ArrayBuffer>): Promise<Picture> {
    const view = new DataView(content.buffer);
    checkShape(view.getUint32(16), view.getUint32(20));
    const parts = chunks(content);
    if (parts.has("acTL")) throw new FileError("has several images; save each as a file of its own");
    const exif = await readExif(parts.get("eXIf") ?? null);
    if (exif.isTurned) throw new FileError("is marked as turned or mirrored; save it upright");
    const png = decode(content, { checkCrc: true });
    const isPalette = png.channels === 1 && png.palette;
    if (png.depth !== 8 && !isPalette)
        throw new FileError(`has ${png.depth} bits per channel; convert it to 8-bit RGB`);
    if (png.channels < 3 && !isPalette) throw new FileError("is a grey image; fields must be 8-bit RGB");
    const microns =
        png.resolution?.unit === ResolutionUnitSpecifier.METRE
            ? fromResolution(png.resolution.x, png.resolution.y, METRE)
            : null;
    if (isPalette) {
        const channels = isPalette[0].length === 4 ? 4 : 3;
        return asPicture(png.width, png.height, convertIndexedToRgb(png), channels, microns ?? exif.microns);
    }
    if (png.transparency) throw new FileError("has a transparent colour; save it with an alpha channel, or without");
    return asPicture(png.width, png.height, png.data, png.channels === 4 ? 4 : 3, microns ?? exif.microns);
}

/** Return the chunks of a file before its pixels, by name. */
function chunks(content: Uint8Array<ArrayBuffer>): Map<string, ArrayBuffer> {
    const view = new DataView(content.buffer);
    const found = new Map<string, ArrayBuffer>();
    for (let position = 8; position + 12 <= content.length; ) {
        const length = view.getUint32(position);
        const name = String.fromCharCode(...content.subarray(position + 4, position + 8));
        if (name === "IDAT") break;
        found.set(name, content.slice(position + 8, position + 8 + length).buffer);
        position += 12 + length;
    }
    return found;
}
