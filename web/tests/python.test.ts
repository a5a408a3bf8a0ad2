/** The page computes what Python computes. tests/web/test_web.py writes the cases and runs this. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { findCandidates } from "../src/detector/candidates";
import type { Image, Point } from "../src/detector/image";
import { views } from "../src/detector/patches";
import { resize } from "../src/detector/resize";
import { calibrate, headLogOdds, sigmoid, suppress } from "../src/detector/scores";
import { normalise } from "../src/detector/stain";
import { readPicture } from "../src/files/reading";

const folder = process.env.MITOSCOPE_CASES ?? "";
interface File {
    readonly file: string;
    readonly bad?: boolean;
    readonly damaged?: boolean;
    readonly name: string;
    readonly width: number;
    readonly height: number;
    readonly opaque: number | null;
    readonly microns: number | null;
}

const cases = folder ? JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) : null;
const files: File[] = cases?.files ?? [];
const bytes = (name: string) => new Uint8Array(readFileSync(join(folder, name)));
const image = (name: string): Promise<Image> => readPicture(new Blob([bytes(name)]));
const pairs = (points: [number, number][]): Point[] => points.map(([row, col]) => ({ row, col }));

/** How many values differ, and by how much at most. */
function difference(found: Uint8Array, expected: Uint8Array): { share: number; largest: number } {
    expect(found.length).toBe(expected.length);
    let [count, largest] = [0, 0];
    for (let index = 0; index < found.length; index++) {
        const away = Math.abs(found[index] - expected[index]);
        count += Number(away > 0);
        largest = Math.max(largest, away);
    }
    return { share: count / found.length, largest };
}

describe.skipIf(!cases)("as Python", () => {
    test("resizes", async () => {
        const noise = await image("noise.png");
        for (const { scale, name, width, height } of cases.resized) {
            const resized = resize(noise, scale);
            expect([resized.width, resized.height]).toEqual([width, height]);
            const { share, largest } = difference(resized.rgb, bytes(name));
            expect(largest, `scale ${scale}`).toBeLessThanOrEqual(1); // rounding
            expect(share, `scale ${scale}`).toBeLessThan(0.001);
        }
    });

    test("finds the same candidates in the same order", async () => {
        const field = await image("field.png");
        for (const { points, ...search } of cases.candidates) {
            const found = findCandidates(field, null, search);
            expect(found.length).toBe(points.length);
            expect(points.length).toBeGreaterThan(30);
            found.forEach(({ row, col }, index) => {
                expect(row).toBeCloseTo(points[index][0], 6);
                expect(col).toBeCloseTo(points[index][1], 6);
            });
        }
    });

    test("cuts, turns and mirrors patches", async () => {
        const { size, points, name } = cases.patches;
        const seen = views(await image("noise.png"), pairs(points), size, 8);
        expect(seen.length).toBe(8);
        const expected = bytes(name);
        seen.forEach((view, number) => {
            const { share, largest } = difference(
                view,
                expected.subarray(number * view.length, (number + 1) * view.length),
            );
            expect(largest, `view ${number}`).toBeLessThanOrEqual(number < 4 ? 0 : 1); // turned by 45 degrees: rounding
            expect(share, `view ${number}`).toBeLessThan(0.001);
        });
    });

    test("normalises the stain", async () => {
        const field = await image("field.png");
        for (const { method, name } of cases.stained) {
            const { share, largest } = difference(normalise(field, method)?.rgb ?? new Uint8Array(), bytes(name));
            expect(largest, method).toBeLessThanOrEqual(1);
            // OpenCV looks the colours of `reinhard` up in a coarse table.
            expect(share, method).toBeLessThan(method === "reinhard" ? 0.2 : 0.01);
        }
    });

    test("scores, calibrates and suppresses", () => {
        const { features, head, prior, probabilities } = cases.head;
        const logOdds = headLogOdds(Float64Array.from(features.flat()), head, prior);
        logOdds.forEach((value, index) => void expect(sigmoid(value)).toBeCloseTo(probabilities[index], 5));
        const calibrated = calibrate(logOdds, cases.calibration).map(sigmoid);
        calibrated.forEach((value, index) => void expect(value).toBeCloseTo(cases.calibration.probabilities[index], 5));
        const { points, radius, kept } = cases.suppression;
        expect(suppress(pairs(points), Float64Array.from(probabilities as number[]), radius)).toEqual(kept);
    });

    test.each(files.filter((file) => !file.bad))("reads $file", async (file) => {
        const picture = await readPicture(new Blob([bytes(file.file)]));
        expect([picture.width, picture.height]).toEqual([file.width, file.height]);
        expect(difference(picture.rgb, bytes(file.name))).toEqual({ share: 0, largest: 0 });
        expect(picture.opaque?.reduce((sum, value) => sum + value, 0) ?? null).toBe(file.opaque);
        if (file.microns === null) expect(picture.micronsPerPixel).toBeNull();
        else expect(picture.micronsPerPixel).toBeCloseTo(file.microns, 6);
    });

    test.each(files.filter((file) => file.bad))("rejects $file", async (file) => {
        await expect(readPicture(new Blob([bytes(file.file)]))).rejects.toThrow(
            file.damaged
                ? /^is damaged or truncated/
                : /^(is not a|is a grey|is a BMP|is YCbCr|is marked|has a fourth|has \d+ (bits|pages|channels)|has several)/,
        );
    });
});
