import { expect, test } from "vitest";
import { Marks } from "../src/field/marks";
import { asCsv, asGeoJson } from "../src/files/writing";

const image = { width: 100, height: 80 };

function corrected() {
    const marks = new Marks([
        { row: 40.25, col: 50.5, probability: 0.987654321 },
        { row: 1, col: 99, probability: 0.5 },
    ]);
    marks.set(marks.from(0)[1], "rejected");
    marks.add({ row: 70, col: 20 }, 3);
    return marks.from(0);
}

test("the CSV has every mark, with its class for `mitoscope import csv`", () => {
    expect(asCsv(corrected())).toBe(
        "row,col,probability,class,state\n" +
            "40.25,50.50,0.987654,Mitosis,detected\n" +
            "1.00,99.00,0.500000,Non-mitotic figure,rejected\n" +
            "70.00,20.00,,Mitosis,added\n",
    );
});

test("the GeoJSON has outlines round the marks, inside the image", () => {
    const { features } = JSON.parse(asGeoJson(corrected(), image, 0.5));
    expect(features.length).toBe(3);
    expect(new Set(features.map((feature: { id: string }) => feature.id)).size).toBe(3);
    const middles = features.map(({ geometry }: { geometry: { coordinates: [number, number][][] } }) => {
        const ring = geometry.coordinates[0];
        expect(ring[0]).toEqual(ring.at(-1));
        for (const [x, y] of ring) {
            expect(x >= 0 && x <= image.width && y >= 0 && y <= image.height).toBe(true);
        }
        const corners = ring.slice(1);
        return [0, 1].map((axis) => corners.reduce((sum, corner) => sum + corner[axis], 0) / corners.length);
    });
    expect(middles[0][0]).toBeCloseTo(51, 2); // column and half a pixel
    expect(middles[0][1]).toBeCloseTo(40.75, 2);
    const names = features.map((feature: { properties: { classification: { name: string } } }) => {
        return feature.properties.classification.name;
    });
    expect(names).toEqual(["Mitosis", "Non-mitotic figure", "Mitosis"]);
    expect(features[0].properties.measurements).toEqual({ Probability: 0.987654 });
    expect(features[2].properties.measurements).toEqual({});
});
