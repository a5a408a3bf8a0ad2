import { expect, test } from "vitest";
import { Marks, mitoses } from "../src/field/marks";

const candidates = [
    { row: 10, col: 10, probability: 0.9 },
    { row: 50, col: 60, probability: 0.6 },
    { row: 90, col: 20, probability: 0.2 },
];
const states = (marks: Marks, threshold: number) => marks.from(threshold).map((mark) => mark.state);

test("the threshold decides about candidates, not about corrections", () => {
    const marks = new Marks(candidates);
    expect(states(marks, 0.5)).toEqual(["detected", "detected"]);
    const [first, second] = marks.from(0.5);
    marks.set(first, "accepted");
    marks.set(second, "rejected");
    expect(states(marks, 0.95)).toEqual(["accepted", "rejected"]);
    expect(mitoses(marks.from(0.95)).map((mark) => mark.row)).toEqual([10]);
    expect(states(marks, 0)).toEqual(["accepted", "rejected", "detected"]);
});

test("every correction can be taken back and done again, in order", () => {
    const marks = new Marks(candidates);
    const before = marks.from(0.5);
    marks.set(before[0], "rejected");
    const added = marks.add({ row: 30, col: 30 }, 5);
    marks.set(marks.from(0.5)[0], "accepted");
    const after = marks.from(0.5);
    expect(after.map((mark) => mark.state)).toEqual(["accepted", "detected", "added"]);
    for (let step = 0; step < 3; step++) marks.undo();
    expect(marks.from(0.5)).toEqual(before);
    expect(marks.canUndo).toBe(false);
    for (let step = 0; step < 3; step++) marks.redo();
    expect(marks.from(0.5)).toEqual(after);
    marks.undo();
    marks.set(added, "rejected");
    expect(marks.canRedo).toBe(false); // another correction came in between
});

test("an added mark where the detector has a candidate accepts the candidate", () => {
    const marks = new Marks(candidates);
    const mark = marks.add({ row: 92, col: 21 }, 5);
    expect([mark.probability, mark.state, mark.row]).toEqual([0.2, "accepted", 90]);
    expect(states(marks, 0.5)).toEqual(["detected", "detected", "accepted"]);
});

test("rejecting an added mark removes it", () => {
    const marks = new Marks(candidates);
    const mark = marks.add({ row: 30, col: 30 }, 5);
    marks.set(mark, "rejected");
    expect(marks.from(0).length).toBe(3);
    marks.undo();
    expect(marks.from(0).at(-1)).toEqual(mark);
});

test("the same state again is no correction", () => {
    const marks = new Marks(candidates);
    marks.set(marks.from(0)[0], "detected");
    expect(marks.canUndo).toBe(false);
});
