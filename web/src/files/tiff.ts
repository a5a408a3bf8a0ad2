/** TIFF files: without compression, or with LZW, deflate, PackBits, ZSTD or JPEG; also the tags of EXIF blocks. */

import { fromArrayBuffer, type GeoTIFFImage } from "geotiff";
import type { Picture } from "../detector/image";
import { JPEG } from "./jpegTiles";
import { LZW } from "./lzwTiles";
import { CENTIMETRE, fromDescription, fromResolution, INCH } from "./pixelSize";
import { asPicture, checkShape, FileError } from "./pixels";

const REDUCED = 1; // bit of NewSubfileType
const PALETTE = 3;
const COLOURS: Readonly<Record<number, string>> = { 0: "a grey image", 1: "a grey image", 5: "CMYK", 8: "CIELab" };
const YCBCR = 6;
const UNKNOWN = 0; // kinds of a fourth channel
const MULTIPLIED = 1;
const COMPRESSIONS = new Set([1, LZW, JPEG, 8, 32946, 32773, 50000]); // none, deflate twice, PackBits, ZSTD

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
    checkShape(image.getWidth(), image.getHeight());
    const photometric = await number(image, "PhotometricInterpretation", 0);
    const colours = COLOURS[photometric];
    if (colours !== undefined) throw new FileError(`is ${colours}; fields must be 8-bit RGB`);
    const bits = image.getBitsPerSample();
    if (bits !== 8) throw new FileError(`has ${bits} bits per channel; convert it to 8-bit RGB`);
    const compression = await number(image, "Compression", 1);
    if (!COMPRESSIONS.has(compression)) {
        throw new FileError(
            `has a compression that is not read here (${compression}); save it with LZW or without one`,
        );
    }
    if (photometric === YCBCR && compression !== JPEG) throw new FileError("is YCbCr; convert it to 8-bit RGB");
    const orientation = await number(image, "Orientation", 1);
    if (orientation > 1) throw new FileError(`is marked as turned or mirrored (${orientation}); save it upright`);
    const samples = image.getSamplesPerPixel();
    if (samples > 4 || samples === 2) throw new FileError(`has ${samples} channels; convert it to 8-bit RGB`);
    const isPalette = photometric === PALETTE;
    const values = (await (isPalette
        ? image.readRGB({ interleave: true })
        : image.readRasters({ interleave: true }))) as unknown as Uint8Array;
    const channels = samples === 4 ? 4 : 3;
    const kind = await number(image, "ExtraSamples", 0);
    if (channels === 4 && kind === MULTIPLIED) divide(values);
    if (channels === 4 && kind === UNKNOWN && values.some((value, index) => index % 4 === 3 && value < 255)) {
        throw new FileError("has a fourth channel that may be transparency or not; save it as 8-bit RGB");
    }
    const microns = await micronsOf(image);
    const eightBit = isPalette ? Uint8Array.from(values) : values;
    return asPicture(image.getWidth(), image.getHeight(), eightBit, channels, microns);
}

/** Return what an EXIF block says of the pixel size, um, and of the direction; nothing if there is none. */
export async function readExif(
    content: ArrayBuffer | null,
): Promise<{ readonly microns: number | null; readonly isTurned: boolean }> {
    try {
        if (content === null) throw new Error("no block");
        const image = await (await fromArrayBuffer(content)).getImage(0);
        return { microns: await micronsOf(image), isTurned: (await number(image, "Orientation", 1)) > 1 };
    } catch {
        return { microns: null, isTurned: false }; // programs ignore a damaged block
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
    | "Compression"
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
