/** Patches round points, and the views of them that a detector averages. */

import { type Image, mirror, type Point } from "./image";

const QUARTERS = [0, 2, 1, 3]; // turns of the views, two of each: as it is, and mirrored

/** The patches of one view: red, green and blue planes of each patch, one patch after the other. */
export type Patches = Uint8Array<ArrayBuffer>;

/**
 * Cut the views of the patches round some points. Outside the image they show the mirrored border.
 *
 * @param image the field at the pixel size of the patches.
 * @param points the middles of the patches, in pixels of the image.
 * @param size the side of a patch, px.
 * @param count the number of views: 1, 2, 4 or 8.
 */
export function views(image: Image, points: readonly Point[], size: number, count: number): Patches[] {
    const patches = cut(image, points, size);
    return Array.from({ length: count }, (_, number) =>
        mirrored(patches, size, QUARTERS[number >> 1], number % 2 === 1),
    );
}

function cut(image: Image, points: readonly Point[], size: number): Patches {
    const half = (size - 1) / 2 - 0.5;
    const patches = new Uint8Array(points.length * 3 * size * size);
    points.forEach((point, number) => {
        const top = Math.floor(point.row - half);
        const left = Math.floor(point.col - half);
        for (let row = 0; row < size; row++) {
            const line = mirror(top + row, image.height) * image.width;
            for (let col = 0; col < size; col++) {
                const pixel = (line + mirror(left + col, image.width)) * 3;
                for (let channel = 0; channel < 3; channel++) {
                    patches[((number * 3 + channel) * size + row) * size + col] = image.rgb[pixel + channel];
                }
            }
        }
    });
    return patches;
}

/** Turn patches by quarters counter-clockwise, and then mirror them left to right. */
function mirrored(patches: Patches, size: number, quarters: number, flip: boolean): Patches {
    if (quarters === 0 && !flip) return patches;
    const result = new Uint8Array(patches.length);
    const last = size - 1;
    for (let row = 0; row < size; row++) {
        for (let col = 0; col < size; col++) {
            const x = flip ? last - col : col;
            const [fromRow, fromCol] = [
                [row, x],
                [x, last - row],
                [last - row, last - x],
                [last - x, row],
            ][quarters];
            const [to, from] = [row * size + col, fromRow * size + fromCol];
            for (let plane = 0; plane < patches.length; plane += size * size)
                result[plane + to] = patches[plane + from];
        }
    }
    return result;
}
