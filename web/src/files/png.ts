/** PNG files: exact pixels, which a browser's own decoder does not give where a file is transparent or has colours of its own. */

import { convertIndexedToRgb, decode, ResolutionUnitSpecifier } from "fast-png";
import type { Picture } from "../detector/image";
import { fromResolution, METRE } from "./pixelSize";
import { asPicture, FileError } from "./pixels";

/**
 * Read an 8-bit RGB image, with or without transparency, or one with a palette.
 *
 * @throws Error it is damaged, or of another kind.
 */
export function readPng(content: Uint8Array): Picture {
    const png = decode(content, { checkCrc: true });
    if (png.depth !== 8 && !png.palette)
        throw new FileError(`has ${png.depth} bits per channel; convert it to 8-bit RGB`);
    if (png.channels < 3 && !png.palette) throw new FileError("is a grey image; fields must be 8-bit RGB");
    const resolution = png.resolution;
    const microns =
        resolution?.unit === ResolutionUnitSpecifier.METRE ? fromResolution(resolution.x, resolution.y, METRE) : null;
    if (png.palette) {
        const channels = png.palette[0].length === 4 ? 4 : 3;
        return asPicture(png.width, png.height, convertIndexedToRgb(png), channels, microns);
    }
    return asPicture(png.width, png.height, png.data, png.channels === 4 ? 4 : 3, microns);
}
