/** Decoded values as a picture. */

import { MOST_PIXELS } from "../detector/detector";
import type { Picture } from "../detector/image";

const OPAQUE = 128; // alpha from which a pixel counts and keeps its colour; the others become white

/** A file that cannot be a field; the message goes behind its name. */
export class FileError extends Error {}

/**
 * Check the size of an image before it is decoded.
 *
 * @throws FileError it is empty or too large.
 */
export function checkShape(width: number, height: number): void {
    if (width < 1 || height < 1) throw new FileError("has no pixels");
    if (width * height > MOST_PIXELS) {
        throw new FileError(
            `has ${width} × ${height} pixels; cut it into fields of at most ${MOST_PIXELS / 1e6} million`,
        );
    }
}

/**
 * Make a picture of 8-bit values with 3 or 4 channels; the fourth is the alpha.
 *
 * @throws FileError every pixel is transparent.
 */
export function asPicture(
    width: number,
    height: number,
    values: ArrayLike<number>,
    channels: 3 | 4,
    micronsPerPixel: number | null,
): Picture {
    const rgb = new Uint8Array(width * height * 3);
    const opaque = new Uint8Array(width * height).fill(1);
    let clear = 0;
    for (let pixel = 0; pixel < opaque.length; pixel++) {
        const isClear = channels === 4 && values[pixel * 4 + 3] < OPAQUE;
        if (isClear) {
            opaque[pixel] = 0;
            clear++;
        }
        for (let channel = 0; channel < 3; channel++) {
            rgb[3 * pixel + channel] = isClear ? 255 : values[channels * pixel + channel];
        }
    }
    if (clear === opaque.length) throw new FileError("is transparent everywhere; save it without transparency");
    return { width, height, rgb, opaque: clear === 0 ? null : opaque, micronsPerPixel };
}
