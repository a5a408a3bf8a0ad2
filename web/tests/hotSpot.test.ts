import { expect, test } from "vitest";
import { hotSpot } from "../src/field/hotSpot";

const image = { width: 4000, height: 3000 }; // 12 mm2 at 1 um
const at = (row: number, col: number) => ({ row, col });

test("the square of 2 mm2 with the most points, inside the field", () => {
    const cluster = [at(2900, 3900), at(2500, 3500), at(2700, 3300)];
    const spot = hotSpot([at(100, 100), at(200, 1000), ...cluster], image, 1, 2);
    expect(spot?.count).toBe(3);
    expect(spot?.width).toBeCloseTo(Math.sqrt(2e6), 6);
    expect(spot?.height).toBeCloseTo(Math.sqrt(2e6), 6);
    for (const { row, col } of cluster) {
        expect(row - (spot?.row ?? 0)).toBeLessThanOrEqual(spot?.height ?? 0);
        expect(col - (spot?.col ?? 0)).toBeLessThanOrEqual(spot?.width ?? 0);
    }
    expect((spot?.col ?? 0) + (spot?.width ?? 0)).toBeLessThanOrEqual(image.width);
});

test("as many as any square has, of random points", () => {
    let seed = 1;
    const random = () => {
        seed = (seed * 16807) % 2147483647;
        return seed / 2147483647;
    };
    const points = Array.from({ length: 60 }, () => at(random() * 2999, random() * 3999));
    const side = Math.sqrt(2e6);
    let most = 0;
    for (let row = 0; row + side <= image.height; row += 10) {
        for (let col = 0; col + side <= image.width; col += 10) {
            const inside = points.filter(
                (point) => point.row >= row && point.row <= row + side && point.col >= col && point.col <= col + side,
            );
            most = Math.max(most, inside.length);
        }
    }
    const spot = hotSpot(points, image, 1, 2);
    if (!spot) throw new Error("no hot spot");
    const isInside = ({ row, col }: { row: number; col: number }) =>
        row >= spot.row && row <= spot.row + side + 1e-9 && col >= spot.col && col <= spot.col + side + 1e-9;
    expect(spot.count).toBe(points.filter(isInside).length);
    expect(spot.count).toBeGreaterThanOrEqual(most);
});

test("a narrow field has a rectangle of 2 mm2, a smaller field has none", () => {
    const spot = hotSpot([at(10, 10)], { width: 500, height: 8000 }, 1, 2);
    expect([spot?.width, spot?.height, spot?.count]).toEqual([500, 4000, 1]);
    expect(hotSpot([at(10, 10)], { width: 2000, height: 2000 }, 0.25, 2)).toBeNull();
});

test("a field without mitoses has none in its densest area", () => {
    expect(hotSpot([], image, 1, 2)?.count).toBe(0);
});
