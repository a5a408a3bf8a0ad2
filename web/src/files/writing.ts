/** The corrected marks of a field as files: CSV, and GeoJSON that QuPath and `mitoscope import qupath` read. */

import { type Mark, NUCLEUS_UM } from "../field/marks";

/** Classes that `mitoscope import` knows. */
const MITOSIS = { name: "Mitosis", color: [86, 180, 233] };
const LOOKALIKE = { name: "Non-mitotic figure", color: [213, 94, 0] };
const CORNERS = 16;
const THINNEST = 0.05; // px, of an outline at the border

/** Return the marks as CSV, most probable first; positions are row and column of pixel centres. */
export function asCsv(marks: readonly Mark[]): string {
    const lines = marks.map(({ row, col, probability, state }) => {
        const name = state === "rejected" ? LOOKALIKE.name : MITOSIS.name;
        return `${row.toFixed(2)},${col.toFixed(2)},${probability?.toFixed(6) ?? ""},${name},${state}\n`;
    });
    return ["row,col,probability,class,state\n", ...lines].join("");
}

/**
 * Return the marks as GeoJSON; rejected ones are look-alikes.
 *
 * In QuPath (0, 0) is the corner of the first pixel, here it is its centre. An outline at the border is an ellipse round
 * the same centre, so that its centre stays that of the mark.
 */
export function asGeoJson(
    marks: readonly Mark[],
    image: { readonly width: number; readonly height: number },
    micronsPerPixel: number,
): string {
    const radius = NUCLEUS_UM / micronsPerPixel;
    const features = marks.map(({ id, row, col, probability, state }) => ({
        type: "Feature",
        id,
        geometry: { type: "Polygon", coordinates: [ring(col + 0.5, row + 0.5, radius, image)] },
        properties: {
            objectType: "annotation",
            classification: state === "rejected" ? LOOKALIKE : MITOSIS,
            measurements: probability === null ? {} : { Probability: Number(probability.toFixed(6)) },
        },
    }));
    return `${JSON.stringify({ type: "FeatureCollection", features })}\n`;
}

function ring(
    x: number,
    y: number,
    radius: number,
    image: { readonly width: number; readonly height: number },
): [number, number][] {
    const [wide, high] = [
        [x, image.width],
        [y, image.height],
    ].map(([at, size]) => Math.max(THINNEST, Math.min(radius, at, size - at)));
    const corners = Array.from({ length: CORNERS }, (_, corner): [number, number] => {
        const angle = (2 * Math.PI * corner) / CORNERS;
        return [hundredths(x + wide * Math.cos(angle)), hundredths(y + high * Math.sin(angle))];
    });
    return [...corners, corners[0]];
}

function hundredths(value: number): number {
    return Math.round(value * 100) / 100;
}
