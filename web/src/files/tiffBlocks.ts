/** The strips or tiles of a TIFF page. */

import type { ImageFileDirectory } from "geotiff";

/** Return the width and height of the page's strips or tiles, px. */
export async function blockSize(directory: ImageFileDirectory): Promise<{ tileWidth: number; tileHeight: number }> {
    const value = async (tag: "ImageWidth" | "ImageLength" | "TileWidth" | "TileLength" | "RowsPerStrip") =>
        Number(await directory.loadValue(tag));
    if (!directory.hasTag("StripOffsets")) {
        return { tileWidth: await value("TileWidth"), tileHeight: await value("TileLength") };
    }
    const height = await value("ImageLength");
    const rows = directory.hasTag("RowsPerStrip") ? await value("RowsPerStrip") : height; // 2^32 - 1 = one strip
    return { tileWidth: await value("ImageWidth"), tileHeight: Math.min(rows, height) };
}
