/** The browser's own decoders. */

import { FileError } from "./pixels";

export const NO_MEMORY = "needs more memory than this browser gives; cut it into smaller fields";

/** Decode an image upright, without a change of its colours; returns red, green, blue and alpha of each pixel. */
export async function decodeByBrowser(file: Blob): Promise<ImageData> {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    try {
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        if (!context) throw new FileError(NO_MEMORY);
        context.drawImage(bitmap, 0, 0);
        return context.getImageData(0, 0, bitmap.width, bitmap.height);
    } finally {
        bitmap.close();
    }
}
