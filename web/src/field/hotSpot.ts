/** Where mitoses are densest: the area in which they are counted for grading. */

import { clamp, type Point } from "../detector/image";

/** A rectangle in px, and how many points are in it. */
export interface HotSpot {
    readonly row: number;
    readonly col: number;
    readonly width: number;
    readonly height: number;
    readonly count: number;
}

/** Return the square of this many mm2 with the most points; null if the field is smaller. */
export function hotSpot(
    points: readonly Point[],
    image: { readonly width: number; readonly height: number },
    micronsPerPixel: number,
    mm2: number,
): HotSpot | null {
    const pixels = (mm2 * 1e6) / micronsPerPixel ** 2;
    if (image.width * image.height < pixels) return null;
    // In a narrow field it is a rectangle as wide as the field.
    const width = clamp(Math.sqrt(pixels), pixels / image.height, image.width);
    const height = pixels / width;
    let best = { row: 0, col: 0, width, height, count: -1 };
    const sorted = points.toSorted((one, other) => one.row - other.row);
    const lowest = image.height - height;
    // The best one can be moved until a point lies on its left and on its top edge, or it ends where the field does.
    for (const left of [0, ...points.map((point) => point.col)]) {
        const col = Math.min(left, image.width - width);
        const inside = sorted.filter((point) => point.col >= col && point.col <= col + width);
        let [first, end] = [0, 0];
        for (const row of [0, ...inside.map((point) => point.row).filter((row) => row < lowest), lowest]) {
            while (first < inside.length && inside[first].row < row) first++;
            while (end < inside.length && inside[end].row <= row + height) end++;
            if (end - first > best.count) best = { row, col, width, height, count: end - first };
        }
    }
    return best;
}
