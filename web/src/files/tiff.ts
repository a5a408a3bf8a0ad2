/** TIFF files: without compression, or with LZW, deflate, PackBits, ZSTD or JPEG; also the tags of EXIF blocks. */

import { fromArrayBuffer, type GeoTIFFImage } from "geotiff";
import type { Picture } from "../detector/image";
import { CENTIMETRE, fromDescription, fromResolution, INCH } from "./pixelSize";
import { asPicture, FileError } from "./pixels";

const REDUCED = 1; // bit of NewSubfileType
const PALETTE = 3;
const COLOURS: Readonly<Record<number, string>> = { 0: "grey", 1: "grey", 5: "CMYK", 8: "CIELab" };
const MULTIPLIED = 1; // kind of alpha

/**
 * Read the field in a TIFF file.
 *
 * @throws Error it is damaged, has several pages, or is not 8-bit RGB.
 */
export async function readTiff(content: ArrayBuffer): Promise<Picture> {
    const tiff = await fromArrayBuffer(content);
    const images = await Promise.all(
        Array.from({ length: await tiff.getImageCount() }, (_, page) => tiff.getImage(page)),
    );
    const kinds = await Promise.all(images.map((image) => number(image, "NewSubfileType", 0)));
    const full = images.length === 1 ? images : images.filter((_, page) => (kinds[page] & REDUCED) === 0);
    const image = full[0];
    if (full.length !== 1) throw new FileError(`has ${images.length} pages; save each as a file of its own`);
    const photometric = await number(image, "PhotometricInterpretation", 0);
    const colours = COLOURS[photometric];
    if (colours !== undefined) throw new FileError(`is ${colours}; convert it to 8-bit RGB`);
    const bits = image.getBitsPerSample();
    if (bits !== 8) throw new FileError(`has ${bits} bits per channel; convert it to 8-bit RGB`);
    const orientation = await number(image, "Orientation", 1);
    if (orientation > 1) throw new FileError(`is marked as turned or mirrored (${orientation}); save it upright`);
    const values = (await image.readRGB({ interleave: true, enableAlpha: true })) as unknown as Uint8Array;
    const channels = values.length === image.getWidth() * image.getHeight() * 4 ? 4 : 3;
    if (channels === 4 && (await number(image, "ExtraSamples", 0)) === MULTIPLIED) divide(values);
    const microns = await micronsOf(image);
    const eightBit = photometric === PALETTE ? Uint8Array.from(values) : values;
    return asPicture(image.getWidth(), image.getHeight(), eightBit, channels, microns);
}

/** Return the pixel size that an EXIF block gives, um; null if it gives none, or is damaged. */
export async function micronsOfExif(content: ArrayBuffer): Promise<number | null> {
    try {
        return await micronsOf(await (await fromArrayBuffer(content)).getImage(0));
    } catch {
        return null;
    }
}

async function micronsOf(image: GeoTIFFImage): Promise<number | null> {
    const [x, y] = [await number(image, "XResolution", 0), await number(image, "YResolution", 0)];
    const unit = await number(image, "ResolutionUnit", 2);
    const directory = image.getFileDirectory();
    const description = directory.hasTag("ImageDescription") ? await directory.loadValue("ImageDescription") : "";
    const described = fromDescription(String(description).replace(/\0+$/, ""), x, y);
    if (described !== null || (unit !== 2 && unit !== 3)) return described;
    return fromResolution(x, y, unit === 2 ? INCH : CENTIMETRE);
}

/** Return the first number of a tag; a rational is divided. */
async function number(image: GeoTIFFImage, tag: Tag, missing: number): Promise<number> {
    const directory = image.getFileDirectory();
    if (!directory.hasTag(tag)) return missing;
    const value: unknown = await directory.loadValue(tag);
    if (typeof value === "number") return value;
    const [above, below] = Array.from(value as ArrayLike<number>);
    return tag === "XResolution" || tag === "YResolution" ? (below ? above / below : 0) : above;
}

type Tag =
    | "ExtraSamples"
    | "NewSubfileType"
    | "Orientation"
    | "PhotometricInterpretation"
    | "ResolutionUnit"
    | "XResolution"
    | "YResolution";

/** Undo the multiplication of colours by their alpha, in place. */
function divide(rgba: Uint8Array): void {
    for (let pixel = 0; pixel < rgba.length; pixel += 4) {
        const alpha = rgba[pixel + 3];
        for (let value = pixel; value < pixel + 3; value++) {
            rgba[value] = Math.min(255, Math.round((rgba[value] * 255) / Math.max(alpha, 1)));
        }
    }
}
